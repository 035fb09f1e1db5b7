"""What the author of a tool uses: the mark, the context, the error whose text is shown.

Nothing here runs in a sandbox. This module must stay light: every tool module imports it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

TYPE_CHECKING = False  # typing costs milliseconds of a cold start
if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Mapping
    from pathlib import PurePosixPath
    from typing import IO, Any, TypeVar, overload

    _F = TypeVar("_F", bound=Callable[..., Any])

MARK = "__isorun_tool__"


class ToolError(Exception):
    """Raise it in a tool to say something to the program: its text, and nothing else, is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What the author said of a tool: seconds of one call, calls of one run, whether it needs the network."""

    timeout_s: float | None = None
    max_calls: int | None = None
    network: bool = True


if TYPE_CHECKING:

    @overload
    def tool(function: _F) -> _F: ...

    @overload
    def tool(
        *, timeout_s: float | None = None, max_calls: int | None = None, network: bool = True
    ) -> Callable[[_F], _F]: ...


def tool(
    function: Any = None,
    *,
    timeout_s: float | None = None,
    max_calls: int | None = None,
    network: bool = True,
) -> Any:
    """Mark a function or method as a tool: programs may call it if they were granted it.

    Its parameters need type hints; from them and the docstring comes the JSON schema
    that a call is checked against before the tool runs. A parameter annotated
    `isorun.ToolContext` is filled by us. *timeout_s* and *max_calls* lower the run's
    own limits for this tool. With *network* False it runs in a process that has neither
    network nor secrets; a bundle is refused where that cannot be had. Raises `ValueError`
    for a limit that is not positive.
    """
    is_number = isinstance(timeout_s, int | float) and not isinstance(timeout_s, bool)
    if timeout_s is not None and not (is_number and 0 < timeout_s < inf):
        raise ValueError(f"timeout_s must be positive and finite, got {timeout_s!r}")
    if max_calls is not None and (isinstance(max_calls, bool) or not isinstance(max_calls, int) or max_calls < 1):
        raise ValueError(f"max_calls must be a whole number above 0, got {max_calls!r}")
    if not isinstance(network, bool):
        raise ValueError(f"network must be True or False, got {network!r}")
    marks = Marks(timeout_s=timeout_s, max_calls=max_calls, network=network)

    def mark(marked: _F) -> _F:
        setattr(getattr(marked, "__func__", marked), MARK, marks)  # of a staticmethod or classmethod, its function
        return marked

    return mark if function is None else mark(function)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """What a tool may know and do of the run that calls it.

    `output_dir` is the program's name for its output directory; nothing on the host has
    that path: open files with `open_output`. `deadline` is a value of `time.monotonic()`.
    What `log` gets goes to the run's infra.log. `env` holds the names that the operator
    allows this bundle, and no other.
    """

    output_dir: PurePosixPath
    user_id: str
    turn_id: str
    exec_id: str
    deadline: float
    log: logging.Logger
    env: Mapping[str, str]
    opener: Callable[[str, str, str | None], IO[Any]]

    def open_output(self, path: str | PurePosixPath, mode: str = "wb", encoding: str | None = None) -> IO[Any]:
        """Open *path*, relative to `output_dir`, for reading or writing; folders on the way are made.

        *mode* is r, w, x or a, with or without b; text is UTF-8 unless told. Raises
        `ToolError` for a path that leads out of the output directory, goes through a link
        or names something that is not a regular file, `FileExistsError` (x) and
        `FileNotFoundError` (r) as `open` does, and `OSError` where the quota is used up.
        """
        return self.opener(str(path), mode, encoding)
