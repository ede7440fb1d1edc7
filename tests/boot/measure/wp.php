<?php
// What WordPress itself does with pictures, mail, other servers and its database.
require __DIR__ . '/wp-load.php';
$file = wp_upload_dir()['path'] . '/red.jpg';
imagejpeg(imagecreatetruecolor(400, 200), $file);
$editor = wp_get_image_editor($file);
$works = !is_wp_error($editor) && !is_wp_error($editor->resize(40, 20));
$saved = $works ? $editor->save() : null;
echo 'picture ', is_object($editor) ? get_class($editor) : '', ' ', $saved['width'] ?? 'fails', "\n";
$bundle = ['sslcertificates' => '/etc/ssl/certs/ca-certificates.crt'];
$page = wp_remote_get('https://jail.test:4433/', $bundle);
echo 'https ', wp_remote_retrieve_response_code($page), "\n";
$sent = wp_mail('somebody@jail.test', $_SERVER['QUERY_STRING'], 'It is sent.');
echo 'mail ', $sent ? 'works' : 'fails', "\n";
echo 'database ', get_option('blogname'), ', ', get_post(1)->post_title, "\n";
