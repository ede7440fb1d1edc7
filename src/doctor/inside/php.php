// Run by the host's PHP with the settings of a pool. It enters the root after its extensions are
// loaded, as PHP-FPM does, and prints what works there as JSON.
// Before these lines: $root, $uid, $gid.

error_reporting(0);
function answer(array $reply): never {
    exit(json_encode($reply, JSON_INVALID_UTF8_SUBSTITUTE | JSON_PARTIAL_OUTPUT_ON_ERROR));
}
if (!function_exists('posix_setuid') || !function_exists('chroot')) {
    answer(['Err' => 'the extension posix of its command line is not there']);
}
$settings = [];
foreach (['sendmail_path', 'mysqli.default_socket', 'pdo_mysql.default_socket',
          'session.save_handler', 'session.save_path'] as $key) {
    $value = ini_get($key);
    $settings[$key] = is_string($value) ? $value : '';
}
if (!chroot($root) || !posix_setgid($gid) || !posix_setuid($uid)) {
    answer(['Err' => 'it cannot enter the root']);
}

$failed = [];
$worked = [];
$handler = $settings['session.save_handler'];
if (!in_array($handler, ['', 'files', 'user']) && function_exists('session_module_name')
    && session_module_name($handler) === false) {
    $failed['session.save_handler'] = "no extension that is loaded keeps sessions in $handler";
}
$try = function (string $what, callable $f) use (&$failed, &$worked) {
    try {
        $why = $f();
    } catch (Throwable $error) {
        $why = $error->getMessage();
    }
    if ($why === null) {
        $worked[] = $what;
    } else {
        $failed[$what] = $why;
    }
};

if (class_exists('Imagick')) {
    $try('imagick', function () {
        if (!Imagick::queryFormats()) {
            return 'it knows no format of images';
        }
        foreach (['png', 'jpeg', 'gif'] as $format) {
            $image = new Imagick();
            $image->newImage(2, 2, 'white');
            $image->setImageFormat($format);
            $again = new Imagick();
            $again->readImageBlob($image->getImageBlob());
        }
        return null;
    });
}

// libcurl reads its certificates once there is a connection, before it says anything.
if (function_exists('curl_multi_init')) {
    $try('curl', function () {
        $server = stream_socket_server('tcp://127.0.0.1:0');
        if (!$server) {
            return null;
        }
        $curl = curl_init('https://' . stream_socket_get_name($server, false) . '/');
        curl_setopt_array($curl, [CURLOPT_PROXY => '', CURLOPT_RETURNTRANSFER => true]);
        $multi = curl_multi_init();
        curl_multi_add_handle($multi, $curl);
        $client = false;
        for ($end = microtime(true) + 30; microtime(true) < $end; usleep(1000)) {
            curl_multi_exec($multi, $running);
            if ($ended = curl_multi_info_read($multi)) {
                // CURLE_SSL_CACERT_BADFILE, which not every libcurl names
                return $ended['result'] === 77 ? curl_error($curl) : null;
            }
            $client = $client ?: stream_socket_accept($server, 0);
            $ready = [$client];
            $none = null;
            if ($client && stream_select($ready, $none, $none, 0)) {
                return null;
            }
        }
        return null;
    });
}

answer(['Ok' => [
    'version' => PHP_VERSION,
    'extensions' => get_loaded_extensions(),
    'settings' => (object) $settings,
    'worked' => $worked,
    'failed' => (object) $failed,
]]);
