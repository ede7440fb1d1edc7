<?php
// What a PHP-FPM worker in the chroot can do, a line each.
echo 'name ', gethostbyname('jail.test'), "\n";
$tls = @stream_socket_client('ssl://jail.test:4433', $code, $message, 5);
echo 'tls ', $tls ? 'verified' : 'none', "\n";
echo 'user ', posix_getpwuid(posix_geteuid())['name'] ?? 'none', "\n";
echo 'zone ', @timezone_open('Europe/Berlin') ? 'known' : 'none', "\n";
echo 'file ', trim(@file_get_contents('/etc/lab/file') ?: 'none'), "\n";
