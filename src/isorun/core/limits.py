"""The ceilings of one run. Every one is positive and finite: no value means "unlimited"."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from isorun.core import quantity
from isorun.core.errors import InvalidRequest
from isorun.core.text import shown

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
MAX_FRAME_BYTES = 16 * MIB  # what the wire can carry (wire.frames.MAX_FRAME)
#: File locks of one run at a time. A database needs a few; at some 200 bytes of kernel memory each this is below 1 MiB.
MAX_LOCKS = 4096

_USUAL_MEMORY = 1 * GIB
_PAGE = 4096  # a tmpfs holds whole pages
_MOST_WORKSPACE = 256 * MIB  # unless it is set: what a program leaves there is copied to the host's disk
_LEAST_MEMORY = 6 * _PAGE  # half of it is a page for each tmpfs
_FOLLOWS: Any = None  # the memory decides
#: How many eighths of the memory each tmpfs may hold unless it is set: together a half.
_EIGHTHS = {"workspace_bytes": 2, "tmp_bytes": 1, "shm_bytes": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one run; a promise about the whole run, for every backend.

    Bytes, seconds and counts, as the names say. Bytes and seconds may be texts with a unit: `256M`, `90s`.
    Zero, negative, infinite and NaN values raise `InvalidRequest`, and so does a set of tmpfs sizes that could
    hold more than half of `memory_bytes` (their pages are charged to the run). A tmpfs size that is not
    given follows the memory: a quarter of it for the workspace, at most 256 MiB, an eighth each for /tmp and
    /dev/shm, and less where the sizes that are given leave less of the half.
    """

    wall_s: float = 600.0  # PY_CODE_EXEC_TIMEOUT; a longer timeout_s is refused
    memory_bytes: int = _USUAL_MEMORY
    processes: int = 128  # processes and threads together
    cpus: float = 1.0
    workspace_bytes: int = _FOLLOWS
    workspace_inodes: int = 10_000
    file_bytes: int = 100 * MIB  # one file
    tmp_bytes: int = _FOLLOWS  # where libraries put temporary files: an array that joblib shares, say
    shm_bytes: int = _FOLLOWS
    open_files: int = 1024  # per process
    log_bytes: int = 16 * MIB  # stdout and stderr kept in user.log; the middle is cut, and the gap says so
    result_bytes: int = 1 * MIB  # stdout and stderr kept in the result, each
    output_bytes: int = 128 * MIB  # a program that writes more than this is ended: output_limit
    source_bytes: int = 1 * MIB
    input_bytes: int = 128 * MIB
    contract_items: int = 100
    tool_calls: int = 1000
    tool_calls_at_once: int = 16  # the others wait for their turn
    frame_bytes: int = 16 * MIB
    tool_call_s: float = 60.0
    grace_s: float = 2.0  # between SIGTERM and the kill

    if TYPE_CHECKING:  # dataclass makes it; it takes texts, too, and what a field holds is a number

        def __init__(
            self,
            *,
            wall_s: float | str = ...,
            memory_bytes: int | str = ...,
            processes: int = ...,
            cpus: float = ...,
            workspace_bytes: int | str | None = ...,
            workspace_inodes: int = ...,
            file_bytes: int | str = ...,
            tmp_bytes: int | str | None = ...,
            shm_bytes: int | str | None = ...,
            open_files: int = ...,
            log_bytes: int | str = ...,
            result_bytes: int | str = ...,
            output_bytes: int | str = ...,
            source_bytes: int | str = ...,
            input_bytes: int | str = ...,
            contract_items: int = ...,
            tool_calls: int = ...,
            tool_calls_at_once: int = ...,
            frame_bytes: int | str = ...,
            tool_call_s: float | str = ...,
            grace_s: float | str = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if value is not None or f.name not in _EIGHTHS:
                object.__setattr__(self, f.name, _checked(f.name, value, whole=f.type is int))
        if self.cpus < 0.01:
            raise InvalidRequest(f"cpus must be at least 0.01, got {self.cpus}", code="invalid_limit")
        if self.frame_bytes > MAX_FRAME_BYTES:
            raise InvalidRequest(
                f"frame_bytes must be at most {MAX_FRAME_BYTES}, got {self.frame_bytes}", code="invalid_limit"
            )
        given = {name: size for name in _EIGHTHS if (size := getattr(self, name)) is not None}
        for name, size in _following(self.memory_bytes, given).items():
            object.__setattr__(self, name, size)

    def as_dict(self) -> dict[str, float]:
        """Every limit by its name."""
        return {name: getattr(self, name) for name in self.__slots__}


def own_limits(given: object) -> Mapping[str, float] | None:
    """The limits that one run is to have of its own, by name; None for none.

    *given* is a dict of fields of `Limits`, or a `Limits`, which stands for those fields that are not the defaults.
    Raises `InvalidRequest` naming the limit.
    """
    if given is None:
        return None
    if isinstance(given, Limits):
        usual = Limits(memory_bytes=max(given.memory_bytes, _LEAST_MEMORY))  # a tmpfs that follows was not asked for
        values = {f.name: getattr(given, f.name) for f in fields(Limits)}
        own = {name: value for name, value in values.items() if value != getattr(usual, name)}
        if given.memory_bytes != _USUAL_MEMORY:
            own["memory_bytes"] = given.memory_bytes
        return own or None
    if not isinstance(given, Mapping):
        raise InvalidRequest(
            f"limits must be a Limits, or a dict such as {{'memory_bytes': '256M'}}, got {shown(given)}",
            code="invalid_limit",
        )
    known = {f.name: f.type is int for f in fields(Limits)}
    for name in given:
        if name not in known:
            raise InvalidRequest(f"{shown(name)} is not a limit{_nearest(str(name), known)}", code="unknown_limit")
    return {name: _checked(name, value, whole=known[name]) for name, value in given.items()} or None


def with_own(host: Limits, own: Mapping[str, float] | None) -> Limits:
    """*host* but for what is *own*; a tmpfs that is not, shrinks where the memory leaves it less."""
    if not own:
        return host
    values: dict[str, Any] = {f.name: getattr(host, f.name) for f in fields(Limits)} | dict(own)
    if sum(values[name] for name in _EIGHTHS) > values["memory_bytes"] // 2:
        given: dict[str, Any] = {name: own[name] for name in _EIGHTHS if name in own}
        following = _following(values["memory_bytes"], given)
        values |= {name: min(size, values[name]) for name, size in following.items()}
    return Limits(**values)


def check_own(host: Limits, own: Mapping[str, float] | None) -> None:
    """Raise `InvalidRequest` for what is above a ceiling of *host*, naming its setting."""
    for name, value in (own or {}).items():
        most = getattr(host, name)
        if value > most:
            raise InvalidRequest(
                f"limits: {name} is {value}, more than ISORUN_MAX_{name.upper()} allows: {most}",
                code="limit_too_large",
            )


def _nearest(slip: str, names: Iterable[str]) -> str:
    from difflib import get_close_matches  # for an error only

    found = get_close_matches(slip, list(names), n=1)
    return f"; did you mean {found[0]}?" if found else f"; there are {', '.join(names)}"


def _checked(name: str, value: object, *, whole: bool) -> float:
    if isinstance(value, str) and takes_unit(name) and not value[-1:].isdigit():
        value = typed(name, value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidRequest(f"{name} must be a number, got {value!r}{_with_unit(name, value)}", code="invalid_limit")
    if not 0 < value < math.inf:
        raise InvalidRequest(f"{name} must be positive and finite, got {value}", code="invalid_limit")
    if whole and not isinstance(value, int):
        raise InvalidRequest(f"{name} must be a whole number, got {value}", code="invalid_limit")
    return value


def _with_unit(name: str, value: object) -> str:
    """A text needs its unit: what a number alone counts is said by its type."""
    if not isinstance(value, str) or not takes_unit(name):
        return ""
    return f"; a text needs a unit, such as {'256M' if name.endswith('_bytes') else '90s'}"


def takes_unit(name: str) -> bool:
    """Whether the limit *name* is a number of bytes or of seconds."""
    return name.endswith(("_bytes", "_s"))


def typed(name: str, text: str) -> float:
    """The value of the limit *name* that somebody typed. Raises `InvalidRequest` naming the limit."""
    own_limits({name: 1})  # whether there is such a limit
    size = name.endswith("_bytes")
    wants = quantity.SIZE if size else quantity.TIME if takes_unit(name) else "a number"
    try:
        if size:
            return quantity.bytes_of(text)
        if takes_unit(name):
            return quantity.seconds_of(text)
        return int(text) if text.isascii() and text.isdigit() else float(text)
    except ValueError:
        raise InvalidRequest(f"{name} must be {wants}, got {text!r}", code="invalid_limit") from None


def _following(memory: int, given: Mapping[str, int]) -> dict[str, int]:
    """The sizes that are not *given*. Raises `InvalidRequest` where all together are more than half of *memory*."""
    unset = {name: eighths for name, eighths in _EIGHTHS.items() if name not in given}
    held = sum(given.values())
    if held + _PAGE * len(unset) > memory // 2:
        if not given:
            raise InvalidRequest(f"memory_bytes must be at least {_LEAST_MEMORY}, got {memory}", code="invalid_limit")
        raise InvalidRequest(
            f"workspace, /tmp and /dev/shm hold {held + _PAGE * len(unset)} bytes together, more than half of "
            f"memory_bytes ({memory}); raise memory_bytes or lower them",
            code="invalid_limit",
        )
    left, shares = memory // 2 - held, sum(unset.values())
    found = {name: min(memory * share // 8, left * share // shares) for name, share in unset.items()}
    if "workspace_bytes" in found:
        found["workspace_bytes"] = min(found["workspace_bytes"], _MOST_WORKSPACE)
    return {name: max(size // _PAGE, 1) * _PAGE for name, size in found.items()}
