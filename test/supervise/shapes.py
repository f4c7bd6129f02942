"""Starts itself in many shapes: shapes.py SHAPE FILE; the application appends to FILE ten times a second."""

import os
import subprocess
import sys
import time

shape, path = sys.argv[1:]
app = [sys.executable, __file__, "app", path]


def wait():
    print("up", flush=True)
    time.sleep(1000)


if shape == "app":
    while True:
        with open(path, "a") as f:
            f.write(f"{os.getpid()} {time.time()}\n")
        time.sleep(0.1)
elif shape == "subprocess":
    subprocess.run(app, close_fds=True)
elif shape == "daemon":
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            # As daemons do: no descriptor is left, and none of the standard streams.
            os.closerange(0, 256)
            os.execv(sys.executable, app)
        os._exit(0)
    wait()
elif shape == "ignores":
    import signal

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    subprocess.Popen(app, start_new_session=True)
    wait()
elif shape == "forks":
    # A tree that keeps growing at its ends while it is killed.
    for _ in range(3):
        if os.fork() == 0:
            end = time.time() + 1000
            while time.time() < end:
                if os.fork() != 0:
                    time.sleep(0.05)
                    os._exit(0)
    subprocess.Popen(app)
    wait()
