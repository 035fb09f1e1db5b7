"""The environment that the CLI gets is copied, whatever other threads do to it meanwhile."""

import os
import threading

from sandbox_runner.docker.command import own_environment


def test_a_copy_is_made_while_names_come_and_go() -> None:
    """Two thousand copies beside a thread that sets and removes a name; a plain `dict(os.environ)` fails there."""
    over = threading.Event()

    def change() -> None:
        while not over.is_set():
            for number in range(50):
                os.environ[f"SANDBOX_RUNNER_TEST_{number}"] = "x"
            for number in range(50):
                del os.environ[f"SANDBOX_RUNNER_TEST_{number}"]

    thread = threading.Thread(target=change)
    thread.start()
    try:
        copies = [own_environment() for _ in range(2000)]
    finally:
        over.set()
        thread.join()
    assert {copy["PATH"] for copy in copies} == {os.environ["PATH"]}
