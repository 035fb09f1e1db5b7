"""A cold `isorun run hello.py` by stage: when each was over, in milliseconds since the command was started.

Theory of operation. The command itself is not changed for this. `python -m bench.cold_stages TRACE run FILE` is `isorun
run FILE` in an interpreter with an audit hook (`sys.addaudithook`), which sees forks, executions and imports; the
host's channels note what comes in. The child that stages and becomes bubblewrap writes its moment into memory that both
share. An ordinary user's jail is staged by no child, so that stage is missing there.

It must not import anything at the top that the command would not: that would be measured, too.
"""

import mmap
import os
import struct
import sys
import time

#: As they mostly follow each other: the host's imports go on beside the jail's own start.
STAGES = ("jail started", "staged", "host imported", "zygote warm", "slot sealed", "first byte", "exit")
_MESSAGES = {"Warmed": "zygote warm", "Ready": "slot sealed"}
_MOMENT = struct.Struct("d")


class _Trace:
    """The first moment of each stage, by the clock that all processes share."""

    def __init__(self) -> None:
        self._moments: dict[str, float] = {}
        self._shared = mmap.mmap(-1, _MOMENT.size)
        self._pid = os.getpid()

    def audit(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "os.exec" and os.getpid() != self._pid:
            _MOMENT.pack_into(self._shared, 0, time.monotonic())
        elif event in ("os.fork", "subprocess.Popen"):
            self._moments.setdefault("jail started", time.monotonic())
        elif event == "import" and "slot sealed" not in self._moments:
            self._moments["host imported"] = time.monotonic()  # so far
            if arguments[0] == "isorun.backends.watch.watching":
                self._listen()

    def _listen(self) -> None:
        from isorun.kernel.readiness import Channel  # it is there: what is being imported comes after it

        receive = Channel.receive

        async def noted(channel: Channel) -> object:
            message = await receive(channel)
            if stage := _MESSAGES.get(type(message).__name__):
                self._moments.setdefault(stage, time.monotonic())
            return message

        Channel.receive = noted

    def write(self, path: str) -> None:
        (staged,) = _MOMENT.unpack_from(self._shared)
        moments = {**self._moments, **({"staged": staged} if staged else {})}
        from pathlib import Path  # the command has it by now

        Path(path).write_text("".join(f"{moment} {stage}\n" for stage, moment in moments.items()))


def main(trace_file: str, *argv: str) -> int:
    """Run the command of *argv*, and write when each stage was over."""
    trace = _Trace()
    sys.addaudithook(trace.audit)
    from isorun.cli.main import run_command

    code = run_command(argv)
    trace.write(trace_file)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
