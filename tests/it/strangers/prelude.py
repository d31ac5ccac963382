# What every script of a stranger begins with: the queue, and ways to say that something must not be possible.
import ctypes, errno, fcntl, json, os, signal, socket, stat, struct, sys, threading, time

QUEUE = os.environ["QUEUE"]
INCOMING = QUEUE + "/incoming/"
REFUSALS = (errno.EACCES, errno.EPERM)


def denied(what, *arguments, errors=REFUSALS):
    """Fails unless the system refuses it."""
    try:
        result = what(*arguments)
    except OSError as error:
        if error.errno in errors:
            return
        sys.exit(f"{what.__name__}{arguments}: {error}, which is another refusal")
    sys.exit(f"{what.__name__}{arguments} was possible: {result}")


def queue_file(recipient="mallory@example.org", content="Subject: mallory\r\n\r\ntext\r\n", states=None, **head):
    """A queue file as anybody could write it with an editor; the head's other members are the caller's."""
    recipients = recipient if isinstance(recipient, list) else [recipient]
    known = {"id": "0MALL0RY", "sender": "mallory@example.org", "arrival": "2026-11-21T19:30:00Z",
             "recipients": len(recipients), "origin": "uid=0", "size": len(content)}
    known.update(head)
    lines = "".join(json.dumps({"address": address}) + "\n" for address in recipients)
    states = states or "-" + "P" * len(recipients)
    return f"lastmile/1\n{json.dumps(known)}\n{states}\n{lines}\n{content}".encode()


def drop(name, octets, mode=0o640):
    """Puts a file into incoming/ as one should: under an unfinished name first."""
    unfinished = INCOMING + f".mallory-{os.getpid()}-{threading.get_ident()}"
    with open(unfinished, "wb") as file:
        file.write(octets)
        os.fchmod(file.fileno(), mode)
    os.rename(unfinished, INCOMING + name)


def connect():
    """A connection to the agent, after its greeting."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(60)
    connection.connect(QUEUE + "/agent.sock")
    lines = connection.makefile("rb")
    greeting = json.loads(lines.readline())
    return connection, lines, greeting


def ask(question):
    """All lines of the answer to one question."""
    connection, lines, _ = connect()
    connection.sendall(json.dumps(question).encode() + b"\n")
    answer = []
    while True:
        answer.append(json.loads(lines.readline()))
        if "end" in answer[-1] or "refused" in answer[-1]:
            return answer


def say(*words):
    print(*words, flush=True)
