"""Runs a command in a terminal of its own, copies what it prints, and presses Ctrl-C when it has printed "up"."""

import os
import pty
import sys

pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
seen = b""
while True:
    try:
        data = os.read(terminal, 4096)
    except OSError:
        break
    if not data:
        break
    sys.stdout.buffer.write(data)
    sys.stdout.flush()
    if b"up" in data and b"up" not in seen:
        os.write(terminal, b"\x03")
    seen += data
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
