"""Takes a notice apart with Python's email package, by the rules of RFC 3464, 6522 and 6533, and prints it as JSON.

"problems" has a sentence for each rule that is broken. The notice stands on standard input, with any line ends.
"""

import email
import email.parser
import email.policy
import email.utils
import json
import re
import sys

POLICY = email.policy.default
OCTETS = POLICY.clone(refold_source="none", cte_type="8bit", linesep="\n")
MESSAGE_FIELDS = {
    "Original-Envelope-Id", "Reporting-MTA", "X-Lastmile-Queue-ID", "X-Lastmile-Sender", "Arrival-Date",
}
RECIPIENT_FIELDS = {
    "Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code",
    "Last-Attempt-Date", "Will-Retry-Until",
}
TYPED = {
    "Reporting-MTA": "dns", "Remote-MTA": "dns", "Diagnostic-Code": "smtp|x-lastmile",
    "Original-Recipient": "rfc822|utf-8", "Final-Recipient": "rfc822|utf-8", "X-Lastmile-Sender": "rfc822|utf-8",
}
CLASSES = {"failed": "5", "delayed": "4", "delivered": "2", "relayed": "2"}
problems = []


def expect(is_so, problem):
    if not is_so:
        problems.append(problem)


def check_message(message):
    for part in message.walk():
        problems.extend(f"{part.get_content_type()}: {type(defect).__name__}" for defect in part.defects)
    for name in ["From", "To", "Subject", "Date", "Message-ID", "MIME-Version"]:
        expect(message[name], f"there is no {name}")
    expect(message["Auto-Submitted"] == "auto-replied", "it does not say that a program wrote it")
    expect(message["From"].addresses[0].username == "MAILER-DAEMON", "it is not from MAILER-DAEMON")
    expect(message["Date"].datetime.tzinfo, "its date has no zone")


def check_fields(header):
    """The fields on top, which may be in UTF-8 (RFC 6532): Python reads that only where it is given text."""
    fields = email.parser.HeaderParser(policy=POLICY.clone(utf8=True)).parsestr(header)
    for name, value in fields.items():
        # Which it is meant to be.
        known = {"NonASCIILocalPartDefect"} if name == "To" else set()
        found = {type(defect).__name__ for defect in value.defects} - known
        problems.extend(f"{name}: {defect}" for defect in found)
        expect(len(fields.get_all(name)) == 1, f"{name} stands there more than once")
    return fields


def fields_of(group, known, needed, what):
    """The fields of one group, each once, in the form that its name asks for."""
    parsed = email.parser.HeaderParser(policy=POLICY.clone(utf8=True)).parsestr(group)
    fields = dict(parsed.items())
    expect(len(fields) == len(parsed.items()), f"{what}: a field stands there twice")
    expect(not parsed.get_payload(), f"{what}: something follows the fields")
    expect(set(fields) <= known, f"{what}: unknown fields {set(fields) - known}")
    expect(needed <= set(fields), f"{what}: there is no {needed - set(fields)}")
    for name, value in fields.items():
        kind = TYPED.get(name)
        expect(not kind or re.fullmatch(rf"({kind}); ?\S.*", value, re.I), f"{what}: {name}: {value}")
        if name.endswith("-Date") or name.endswith("-Until"):
            expect(email.utils.parsedate_to_datetime(value).tzinfo, f"{what}: {name}: {value}")
    return {name: str(value) for name, value in fields.items()}


def check_status(text):
    first, *rest = text.rstrip("\n").split("\n\n")
    groups = [fields_of(first, MESSAGE_FIELDS, {"Reporting-MTA", "Arrival-Date"}, "message")]
    expect(rest, "it reports on nobody")
    for group in rest:
        needed = {"Final-Recipient", "Action", "Status", "Diagnostic-Code", "Last-Attempt-Date"}
        fields = fields_of(group, RECIPIENT_FIELDS, needed, "recipient")
        action, status = fields.get("Action"), fields.get("Status", "")
        expect(re.fullmatch(r"[245]\.\d{1,3}\.\d{1,3}", status), f"Status: {status}")
        expect(CLASSES.get(action) == status[:1], f"Action {action} with Status {status}")
        expect(("Will-Retry-Until" in fields) == (action == "delayed"), f"Will-Retry-Until with Action {action}")
        groups.append(fields)
    return groups


def raw_parts(octets, boundary):
    """The octets of each part's body."""
    pieces = (b"\n" + octets).split(b"\n--" + boundary.encode())
    expect(pieces[-1].strip() == b"--", "the last boundary does not end it")
    return [piece.split(b"\n\n", 1)[1] for piece in pieces[1:-1]]


def check_report(message, octets):
    kind = message.get_param("report-type")
    expect(kind in ("delivery-status", "global-delivery-status"), f"report-type {kind}")
    words, status, original = message.iter_parts()
    raw = raw_parts(octets, message.get_boundary())
    expect(words.get_content_type() == "text/plain", words.get_content_type())
    expect(status.get_content_type() == f"message/{kind}", status.get_content_type())
    international = kind.startswith("global")
    expect(international or (raw[1].isascii() and message.as_bytes()), "fields of the ASCII form are not ASCII")
    groups = check_status(raw[1].decode("utf-8"))
    if kind == "delivery-status":
        # Python takes this type apart itself, and must find the same.
        own = [{name: str(value) for name, value in group.items()} for group in status.get_payload()]
        expect([group for group in own if group] == groups, f"Python reads the fields as {own}")
    kinds = {
        False: {"message/rfc822": True, "text/rfc822-headers": False},
        True: {"message/global": True, "message/global-headers": False},
    }[international]
    returned = original.get_content_type()
    expect(returned in kinds, f"the message is returned as {returned}")
    if kinds.get(returned):
        back = original.get_payload(0).as_bytes(policy=OCTETS)
        expect(back == raw[2], "the returned message does not read back to the octets that were sent")
    else:
        back = raw[2]
    return words, groups, {"type": returned, "octets": back.hex()}


def main():
    octets = sys.stdin.buffer.read().replace(b"\r\n", b"\n")
    expect(b"\r" not in octets and b"\0" not in octets, "there is a CR or NUL in it")
    expect(all(len(line) <= 998 for line in octets.split(b"\n")), "a line is too long")
    message = email.message_from_bytes(octets, policy=POLICY)
    check_message(message)
    words, groups, original = message, [], None
    if message.get_content_type() == "multipart/report":
        words, groups, original = check_report(message, octets)
    else:
        expect(message.get_content_type() == "text/plain", message.get_content_type())
    text = words.get_content().replace("\r\n", "\n")
    for line in text.split("\n"):
        expect(len(line) <= 78 or " " not in line.strip(), f"a line for people is too long: {line}")
    fields = check_fields(octets.split(b"\n\n", 1)[0].decode("utf-8"))
    print(json.dumps({
        "problems": problems,
        "subject": str(message["Subject"]),
        "to": str(fields["To"].addresses[0]),
        "words": text,
        "groups": groups,
        "original": original,
    }))


main()
