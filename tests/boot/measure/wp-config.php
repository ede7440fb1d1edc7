<?php
define('DB_NAME', 'lab');
define('DB_USER', 'lab');
define('DB_PASSWORD', 'secret');
define('DB_HOST', 'DATABASE');
define('DB_CHARSET', 'utf8mb4');
define('WP_HTTP_BLOCK_EXTERNAL', true);
define('WP_ACCESSIBLE_HOSTS', 'jail.test');
define('DISABLE_WP_CRON', true);
define('AUTH_KEY', 'a');
$table_prefix = 'wp_';
defined('ABSPATH') || define('ABSPATH', __DIR__ . '/');
require_once ABSPATH . 'wp-settings.php';
