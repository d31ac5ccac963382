"""A client of LMTP and ESMTP that shares nothing with ours: sends the message on its standard input, after a login.

Arguments: lmtp|smtp, starttls|wrapped|clear, port, the authority's certificate, then perhaps a mechanism with name and
password, or a certificate and its key. Prints the last reply: that to the end of the
message, or the one that was not what it should be.
"""

import smtplib
import socket
import ssl
import sys

protocol, way, port, authority, *login = sys.argv[1:]
context = ssl.create_default_context(cafile=authority)
if len(login) == 2:
    context.load_cert_chain(*login)


class Server(smtplib.LMTP if protocol == "lmtp" else smtplib.SMTP):
    """smtplib knows TLS from the first octet for SMTP alone."""

    def _get_socket(self, host, port, timeout):
        raw = socket.create_connection((host, port), timeout)
        return context.wrap_socket(raw, server_hostname="localhost") if way == "wrapped" else raw


server = Server(host="", local_hostname="client.example.org")
server.timeout = 20
server.connect("127.0.0.1", int(port))
server._host = "localhost"
server.ehlo()
if way == "starttls":
    server.starttls(context=context)
    server.ehlo()
if len(login) == 3:
    mechanism, server.user, server.password = login
    server.auth(mechanism, getattr(server, "auth_" + mechanism.lower().replace("-", "_")))
reply = server.mail("sender@example.org")
if reply[0] == 250:
    reply = server.rcpt("alice@example.org")
if reply[0] == 250:
    reply = server.data(sys.stdin.buffer.read().replace(b"\n", b"\r\n"))
print(reply)
server.quit()
