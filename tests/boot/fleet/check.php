<?php
$resolved = gethostbyname("localhost") == "127.0.0.1" ? "resolved" : "not resolved";
$user = posix_getpwuid(posix_geteuid())["name"] ?? "unknown";
$zone = (new DateTime("2026-07-01 12:00 Europe/Zurich"))->format("T");
$authorities = count(array_filter(openssl_get_cert_locations(), 'is_readable')) > 0;
echo __FILE__, " $resolved $user $zone ", $authorities ? "authorities" : "none";
echo " ", file_exists("/usr/share/common-licenses/GPL-3") ? "licenses" : "plain", "\n";
