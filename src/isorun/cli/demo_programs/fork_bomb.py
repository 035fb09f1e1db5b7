"""Every process becomes two, for ever."""
# ruff: noqa: T201, TID251 - a program prints, reads its environment, forks

import os
import signal

first = os.getpid()
print("forking", flush=True)
while True:
    try:
        os.fork()
    except OSError:
        if os.getpid() == first:
            raise
        signal.pause()  # hold the place: nobody else shall have it
