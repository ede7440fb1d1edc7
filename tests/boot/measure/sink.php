<?php
// A mail server that accepts all and writes down the subjects.
$server = stream_socket_server('tcp://127.0.0.1:2525');
while (true) {
    $client = stream_socket_accept($server, -1);
    fwrite($client, "220 sink\r\n");
    while (($line = fgets($client)) !== false) {
        $verb = strtoupper(substr($line, 0, 4));
        if ($verb === 'DATA') {
            fwrite($client, "354 go on\r\n");
            while (($line = fgets($client)) !== false && rtrim($line) !== '.') {
                if (str_starts_with($line, 'Subject: ')) {
                    file_put_contents('/var/lib/lab-mail', substr($line, 9), FILE_APPEND);
                }
            }
        }
        fwrite($client, $verb === 'QUIT' ? "221 bye\r\n" : "250 ok\r\n");
        if ($verb === 'QUIT') {
            break;
        }
    }
    fclose($client);
}
