"""Every process becomes two, for ever."""
# ruff: noqa: T201 - printing is what a program does

import os
import signal

first = os.getpid()
print("forking", flush=True)
while True:
    try:
        os.fork()  # noqa: TID251 - what is shown here
    except OSError:
        if os.getpid() == first:
            raise
        signal.pause()  # hold the place: nobody else shall have it
