"""Reads a notice with Python's email package, as a mail program would, and prints what it found."""

import email
import email.policy
import sys

content = sys.stdin.buffer.read()
message = email.message_from_bytes(content, policy=email.policy.default)
for name in ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version"]:
    print(f"{name}: {message[name]}")
print(message.get_content_type(), message.get_param("report-type"))


def body(part):
    """The text of a part that Python does not take apart: header fields, or an international message."""
    at = [p is part for p in message.iter_parts()].index(True) + 1
    return content.decode("utf-8").split("--" + message.get_boundary())[at].split("\r\n\r\n", 1)[1]


if not message.is_multipart():
    print("  | " + message.get_content().rstrip().replace("\r", "").replace("\n", "\n  | "))
for part in message.iter_parts():
    print(f"= {part.get_content_type()} ({part['Content-Description']}) {part['Content-Transfer-Encoding']}")
    kind = part.get_content_type()
    if kind == "text/plain":
        print("  | " + part.get_content().rstrip().replace("\r", "").replace("\n", "\n  | "))
    elif kind == "message/rfc822":
        print("  | " + part.get_payload(0).as_string().rstrip().replace("\r", "").replace("\n", "\n  | "))
    elif kind == "message/delivery-status":
        for group in part.get_payload():
            for name, value in group.items():
                print(f"  {name}: {value}")
            print("  -")
    else:
        print("  | " + body(part).rstrip().replace("\r\n", "\n  | "))
for part in message.walk():
    for defect in part.defects:
        print(f"DEFECT {type(defect).__name__}")
for line in content.split(b"\r\n"):
    if len(line) > 998 or b"\r" in line or b"\n" in line:
        print(f"BAD LINE {line[:60]!r}")
