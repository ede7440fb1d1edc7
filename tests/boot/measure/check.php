<?php
// What a worker can do, a line each; none of it depends on where its root is.
error_reporting(0);
ini_set('display_errors', '0');
function line(string $what, $how): void
{
    echo $what, ' ', $how === true ? 'works' : ($how ?: 'fails'), "\n";
}

line('name', gethostbyname('jail.test') === '127.0.0.1');
line('user', posix_getpwuid(posix_geteuid())['name']);
line('zone', (new DateTime('2026-07-01 12:00 UTC'))
    ->setTimezone(new DateTimeZone('Europe/Zurich'))->format('H') === '14');
line('iconv', iconv('UTF-8', 'EUC-JP', "\u{65e5}") === "\xc6\xfc");

$tls = stream_socket_client('ssl://jail.test:4433', $code, $message, 5);
line('stream', $tls && fclose($tls)); // the server has one client at a time
$curl = curl_init('https://jail.test:4433/');
curl_setopt_array($curl, [CURLOPT_RETURNTRANSFER => true, CURLOPT_TIMEOUT => 60]);
line('https', str_contains(curl_exec($curl), 'TLSv1.3') ?: curl_error($curl));

foreach (['localhost', '127.0.0.1'] as $host) {
    try {
        $database = new mysqli($host, 'lab', 'secret', 'lab');
        line("database $host", $database->query('SELECT 6 * 7')->fetch_row()[0] === '42');
    } catch (mysqli_sql_exception $error) {
        line("database $host", $error->getMessage());
    }
}

// Two pictures, made, written, read and made smaller.
try {
    $picture = new Imagick();
    $picture->newImage(400, 200, 'red', 'jpeg');
    $small = new Imagick();
    $small->readImageBlob($picture->getImageBlob());
    $small->thumbnailImage(40, 0);
    $small->setImageFormat('png');
    [$width, $height, $format] = getimagesizefromstring($small->getImageBlob());
    line('imagick', "$width $height $format");
} catch (ImagickException $error) {
    line('imagick', $error->getMessage());
}
ob_start();
imagejpeg(imagescale(imagecreatetruecolor(400, 200), 40));
[$width, $height, $format] = getimagesizefromstring(ob_get_clean());
line('gd', "$width $height $format");

$file = tempnam(sys_get_temp_dir(), 'x');
line('temporary', $file && dirname($file) === sys_get_temp_dir() && file_put_contents($file, 'x'));
unlink($file);
session_id('lab' . getmypid());
line('session', session_start() && session_write_close());
session_start();
session_destroy();

line('mail', mail('somebody@jail.test', $_SERVER['QUERY_STRING'], "It is sent.\n"));
