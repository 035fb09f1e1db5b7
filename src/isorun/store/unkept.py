"""The end of a run's folder that the caller does not want: what of it the result goes on holding.

It must not read a file that the result does not list.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from isorun.core.result import Artifact, RunResult
from isorun.core.text import file_name
from isorun.store.folder import RunFolder

HELD_BYTES = 16 << 20  # of all artifacts of a run: a host may hold the results of many
_NAMED = 10


def without_folder(result: RunResult, folder: RunFolder) -> RunResult:
    """*result* with the bytes of its artifacts as far as they are `HELD_BYTES` together; *folder* is removed."""
    try:
        artifacts = tuple(_held(result.artifacts))
    finally:
        folder.discard()
    lost = [one for one in artifacts if one.held is None]
    notices = (*result.notices, _told(lost)) if lost else result.notices
    return replace(result, artifacts=artifacts, notices=notices, kept=False)


def _held(artifacts: Sequence[Artifact]) -> Iterator[Artifact]:
    room = HELD_BYTES
    for one in artifacts:
        if one.bytes > room:
            yield one
            continue
        try:
            data = one.read_bytes()
        except OSError:  # the disk fails; the result says that it is not there
            yield one
            continue
        room -= len(data)
        yield replace(one, held=data)


def _told(lost: Sequence[Artifact]) -> str:
    names = ", ".join(f"{file_name(one.path)} ({one.bytes} bytes)" for one in lost[:_NAMED])
    more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
    return f"removed with the run's folder (keep=False holds {HELD_BYTES >> 20} MiB): {names}{more}"
