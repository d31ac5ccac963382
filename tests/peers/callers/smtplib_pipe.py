"""Python's smtplib talking to `sendmail -bs` through a pipe.

Usage: smtplib_pipe.py SENDMAIL OPTION... < STEPS

STEPS is a JSON list of steps; each is a list of smtplib's own method name and its arguments. For each step one JSON
value is written: what the method returned, or the name of its exception and what the server said. The last line has
the exit status of the program.
"""

import json
import smtplib
import subprocess
import sys

# The program answers at once or is broken.
TIMEOUT = 60


class Pipe:
    """As much of a socket as smtplib uses."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def sendall(self, octets):
        self.process.stdin.write(octets)
        self.process.stdin.flush()

    def makefile(self, _mode):
        return self.process.stdout

    def close(self):
        self.process.stdin.close()


class PipeSMTP(smtplib.SMTP):
    """smtplib with a program for a server."""

    def _get_socket(self, host, port, timeout):
        return Pipe(self.command)


def plain(value):
    """A value without octets, for JSON."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def main():
    steps = json.load(sys.stdin)
    smtp = PipeSMTP(local_hostname="client.example")
    smtp.command = sys.argv[1:]
    greeting = smtp.connect("a pipe", 25)
    pipe = smtp.sock
    print(json.dumps(plain(greeting)))
    for method, arguments, options in steps:
        if method == "sendmail":
            arguments[2] = arguments[2].encode()
        try:
            result = plain(getattr(smtp, method)(*arguments, **options))
        except smtplib.SMTPRecipientsRefused as error:
            result = {"raised": "SMTPRecipientsRefused", "said": plain(error.recipients)}
        except smtplib.SMTPResponseException as error:
            result = {"raised": type(error).__name__, "said": [error.smtp_code, plain(error.smtp_error)]}
        if method == "ehlo":
            result = smtp.esmtp_features
        print(json.dumps(result))
    pipe.close()
    print(json.dumps(pipe.process.wait(TIMEOUT)))


main()
