<?php
// Symfony Mailer sends mail: Debian's package, as an application uses it, through the command that a DSN names.
//
//   php symfony.php DSN <MESSAGES
//
// DSN is what an application has in MAILER_DSN: sendmail://default?command=... or native://default. MESSAGES is a JSON
// array of objects; one transport, and so one process of `sendmail -bs`, sends all of them in turn:
//   from, to, cc, bcc   addresses; the last three are lists and may be missing
//   sender              the envelope's sender, where it is not From
//   recipients          the envelope's recipients, where they are not To, Cc and Bcc
//   subject, text       ASCII or UTF-8
// On standard output is one line of JSON for each: {"sent": the octets of the message in hexadecimal}, or
// {"exception": its class, "code": the server's, "message": what a developer reads}.

require_once 'Symfony/Component/Mailer/autoload.php';

use Symfony\Component\Mailer\Envelope;
use Symfony\Component\Mailer\Exception\TransportExceptionInterface;
use Symfony\Component\Mailer\Transport;
use Symfony\Component\Mime\Address;
use Symfony\Component\Mime\Email;

$messages = json_decode(stream_get_contents(STDIN), true, 512, JSON_THROW_ON_ERROR);
$transport = Transport::fromDsn($argv[1]);

foreach ($messages as $message) {
    $email = (new Email())->from($message['from'])->subject($message['subject'])->text($message['text']);
    $email->to(...$message['to'] ?? [])->cc(...$message['cc'] ?? [])->bcc(...$message['bcc'] ?? []);
    $envelope = Envelope::create($email);
    if (isset($message['sender'])) {
        $envelope->setSender(new Address($message['sender']));
    }
    if (isset($message['recipients'])) {
        $envelope->setRecipients(array_map(fn ($address) => new Address($address), $message['recipients']));
    }
    try {
        $result = ['sent' => bin2hex($transport->send($email, $envelope)->toString())];
    } catch (TransportExceptionInterface $exception) {
        $result = [
            'exception' => get_class($exception),
            'code' => $exception->getCode(),
            'message' => $exception->getMessage(),
        ];
    }
    echo json_encode($result, JSON_THROW_ON_ERROR), "\n";
}
