"""What the MCP server needs of the place that has the runs: one interface, and the values that go through it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from isorun.core.request import RunRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file that a run handed out. `path` is POSIX, relative to out/."""

    path: str
    bytes: int
    mime: str
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended. `result` is as `RunResult.to_dict` tells it; its paths of the host are not read."""

    exec_id: str
    result: Mapping[str, Any]
    files: Sequence[File] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Bytes of a file from `offset` on; the file has `total` of them."""

    data: bytes
    offset: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One run of a list. `status` is a word of `Status`, or running; `started` RFC 3339 UTC, "" if not known."""

    exec_id: str
    status: str
    started: str = ""
    prog_name: str = ""
    files: Sequence[File] = ()


class Backend(Protocol):
    """The runs of one user. Each method raises `InvalidRequest` for what the caller can mend, with a text for a model.

    An `exec_id` that is not one of this user's runs is `InvalidRequest` (no_such_run), also if it is another user's.
    """

    @property
    def tools(self) -> Mapping[str, Mapping[str, Any]]:
        """The tools that programs may call, as `Runtime.tools` has them."""

    async def start(self, request: RunRequest) -> str:
        """Start a run and return its exec_id at once."""

    def output(self, exec_id: str) -> AsyncIterator[str]:
        """What the run prints, as it is printed, until it ends. Output that is taken late may lack a part."""

    async def result(self, exec_id: str) -> Ended:
        """How the run ended, once it has."""

    async def cancel(self, exec_id: str) -> None:
        """End the run, and return once it has ended. A run that has ended keeps its result."""

    async def read(self, exec_id: str, path: str, *, offset: int, most: int) -> Piece:
        """At most *most* bytes of a file below the run's out/. No link is followed, and nothing beside out/ is read."""

    async def latest(self, most: int) -> Sequence[Listed]:
        """The newest *most* runs, the newest first."""
