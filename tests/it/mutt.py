"""Shows the only message of a Maildir in mutt, as somebody at a terminal of 80 columns and 24 lines sees it.

Prints JSON: "screen", the lines of the terminal once the message is shown, and "text", all that mutt shows of it.
Usage: mutt.py MAILDIR DIRECTORY; the directory is mutt's home, and nothing else of the machine's configuration counts.
"""

import codecs
import fcntl
import json
import os
import pathlib
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

COLUMNS, LINES = 80, 24
LIMIT = 30  # seconds for everything
SETTINGS = """
set charset=utf-8 pipe_decode=yes wait_key=no quit=yes beep=no timeout=5 mark_old=no
set pager_format="as shown" index_format="%s" move=no ssl_force_tls=no header_cache=""
ignore *
unignore from date subject to
"""
SEQUENCE = re.compile(r"\x1b(?:\[([?0-9;]*)([A-Za-z@`])|[()].|([^\[()]))")


class Screen:
    """A terminal of the kind vt100, as far as curses uses it."""

    def __init__(self):
        self.rows = [[" "] * COLUMNS for _ in range(LINES)]
        self.row = self.column = 0
        self.region = (0, LINES - 1)
        self.rest = ""

    def lines(self):
        return ["".join(row).rstrip() for row in self.rows]

    def feed(self, text):
        text = self.rest + text
        at = 0
        while at < len(text):
            if text[at] == "\x1b":
                found = SEQUENCE.match(text, at)
                if not found:
                    break
                self.sequence(*found.groups())
                at = found.end()
                continue
            self.character(text[at])
            at += 1
        self.rest = text[at:]

    def character(self, char):
        if char == "\r":
            self.column = 0
        elif char == "\n":
            self.line_feed()
        elif char == "\b":
            self.column = max(0, self.column - 1)
        elif char == "\t":
            self.column = min(COLUMNS - 1, self.column // 8 * 8 + 8)
        elif char >= " " and char != "\x7f":
            if self.column >= COLUMNS:
                self.column = 0
                self.line_feed()
            self.rows[self.row][self.column] = char
            self.column += 1

    def line_feed(self):
        if self.row == self.region[1]:
            self.scroll(self.region[0], self.region[1])
        else:
            self.row = min(LINES - 1, self.row + 1)

    def scroll(self, gone, new):
        del self.rows[gone]
        self.rows.insert(new, [" "] * COLUMNS)

    def sequence(self, given, verb, single):
        numbers = [int(word) for word in re.findall(r"\d+", given or "")]
        first = max(1, numbers[0]) if numbers else 1
        if verb in ("H", "f"):
            self.row = min(LINES, first) - 1
            self.column = min(COLUMNS, max(1, numbers[1]) if len(numbers) > 1 else 1) - 1
        elif verb == "A":
            self.row = max(0, self.row - first)
        elif verb == "B":
            self.row = min(LINES - 1, self.row + first)
        elif verb == "C":
            self.column = min(COLUMNS - 1, self.column + first)
        elif verb == "D":
            self.column = max(0, self.column - first)
        elif verb in ("J", "K"):
            self.erase(verb, numbers[0] if numbers else 0)
        elif verb == "r":
            self.region = (first - 1, (numbers[1] if len(numbers) > 1 else LINES) - 1)
            self.row = self.column = 0
        elif single == "M":
            if self.row == self.region[0]:
                self.scroll(self.region[1], self.region[0])
            else:
                self.row = max(0, self.row - 1)

    def erase(self, verb, part):
        start = 0 if part else self.column
        end = self.column + 1 if part == 1 else COLUMNS
        self.rows[self.row][start:end] = [" "] * (end - start)
        if verb == "J":
            rows = range(self.row) if part == 1 else range(0 if part == 2 else self.row + 1, LINES)
            for row in rows:
                self.rows[row] = [" "] * COLUMNS


class Mutt:
    """mutt on a terminal of its own. It ends with this program, because its terminal does."""

    def __init__(self, maildir, home):
        self.deadline = time.monotonic() + LIMIT
        self.screen = Screen()
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        settings = home / "muttrc"
        settings.write_text(f'{SETTINGS}set folder="{home}" spoolfile="{maildir}"\n')
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
            kept = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": str(home), "TERM": "vt100"}
            command = ["mutt", "-n", "-F", str(settings), "-R", "-f", str(maildir)]
            os.execvpe("mutt", command, kept | {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"})
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))

    def type(self, keys):
        os.write(self.terminal, keys.encode())

    def wait_for(self, what, is_so):
        """Reads what mutt writes until something is so."""
        while not is_so():
            left = self.deadline - time.monotonic()
            if left <= 0:
                sys.exit(f"waited {LIMIT} s in vain for {what}; the screen shows:\n" + "\n".join(self.screen.lines()))
            if select.select([self.terminal], [], [], min(left, 0.05))[0]:
                try:
                    octets = os.read(self.terminal, 65536)
                except OSError:
                    octets = b""
                if not octets:
                    sys.exit("mutt ended early:\n" + "\n".join(self.screen.lines()))
                self.screen.feed(self.decoder.decode(octets))

    def end(self):
        self.type("q")
        self.wait_or_kill(time.monotonic() + 5)

    def wait_or_kill(self, deadline):
        while time.monotonic() < deadline:
            # What it still writes has to be read, or it waits for that.
            if select.select([self.terminal], [], [], 0.02)[0]:
                try:
                    os.read(self.terminal, 65536)
                except OSError:
                    pass
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                return
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def main():
    maildir, home = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    shown, done = home / "shown", home / "done"
    mutt = Mutt(maildir, home)
    mutt.wait_for("the list of messages", lambda: any("Mutt: " in line for line in mutt.screen.lines()))
    mutt.type("\n")
    mutt.wait_for("the message", lambda: any(line.strip() == "as shown" for line in mutt.screen.lines()))
    # Piped as it is decoded for the screen; the second name tells that the first is complete.
    screen = mutt.screen.lines()
    mutt.type(f"|cat >{shown}; touch {done}\n")
    mutt.wait_for("the text of the message", done.exists)
    mutt.type("q")
    mutt.end()
    print(json.dumps({"screen": screen, "text": shown.read_text(encoding="utf-8", errors="strict")}))


main()
