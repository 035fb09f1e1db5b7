"""What a command does when a signal asks it to end: it ends what runs first."""

import os
import signal

INTERRUPTED = 130  # the exit code, as a shell has it for Ctrl-C


def cancel_on_signals() -> None:
    """Cancel this task at the first SIGINT, SIGTERM or SIGHUP; the second ends the process at once, as `INTERRUPTED`.

    A signal that the process was started to ignore stays ignored. Called in a running loop, of the main thread.
    """
    import asyncio  # the constant alone is needed by commands that must start fast

    task = asyncio.current_task()
    came: list[bool] = []

    def happened() -> None:
        if came:
            os._exit(INTERRUPTED)
        came.append(True)
        if task is not None:
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, happened)
