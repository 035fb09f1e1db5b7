"""Every message as a frozen type, and the one place where bytes become one.

`decode` raises `ProtocolError` and nothing else, whatever the bytes; `encode` raises `NotEncodable`,
naming the path of the value at fault. The header is strict JSON, never pickle. This module keeps no
state and knows no order: who may send what, and when, is `wire.session`. The annotation of a field
is its wire type and must be a key of `_FITS`. `PROTOCOL.md` has the same fields in words.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from isorun.wire.frames import MAX_FRAME, Frames, ProtocolError, encode_frame
from isorun.wire.values import Packer, Unfit, Unpacker, brief, parse, render

TYPE_CHECKING = False  # typing costs milliseconds of a cold start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

VERSION = 1
REFUSALS = (
    "ToolDenied",
    "ToolInputInvalid",
    "ToolTimeout",
    "ToolBudgetExceeded",
    "ToolFailed",
    "ToolUnavailable",
)


class Message:
    """Base of every message."""

    __slots__ = ()


# Control stream, host to slot


@dataclass(frozen=True, slots=True, kw_only=True)
class Put(Message):
    """Write `data` to `path` under the workspace; `append` for every chunk of a file but its first."""

    path: str
    data: bytes
    append: bool
    mode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached(Message):
    """The cgroup holds you; go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Go(Message):
    """Run the program."""

    argv: list[str]
    env: dict[str, str]
    context: dict[str, Any]


# Control stream, slot to host


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined(Message):
    """The namespaces are entered. Credentials travel beside it (`SCM_CREDENTIALS`), never in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready(Message):
    """The slot is sealed; `isolation` is its word on what the host cannot read: Landlock ABI, hostname."""

    isolation: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupError(Message):
    """A named step of building the slot failed; nothing follows."""

    step: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored(Message):
    """`count` more `Put`s, in the order sent, are in the workspace."""

    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreError(Message):
    """A `Put` failed; nothing follows."""

    path: str
    reason: str
    errno: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Message):
    """The next instruction is the program's own."""


# Build stream, host to template or zygote


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildInit(Message):
    """Clone an init for a slot. The socket for the answer travels beside it."""

    slot: int
    limits: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkProgram(Message):
    """Fork this slot's program process; the filters are seccomp instructions, to be loaded in this order."""

    slot: int
    limits: dict[str, Any]
    filters_by_number: bytes
    filters_by_argument: bytes
    cpu: int | None


# Build stream, template or zygote to host


@dataclass(frozen=True, slots=True, kw_only=True)
class InitReady(Message):
    """A new slot's init stands. Its pidfd travels beside it."""

    slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildFailed(Message):
    """A named step of building this slot failed; its processes are gone."""

    slot: int
    step: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited(Message):
    """A process of this slot was reaped: exactly one of `code` and `signal` is meant to be set."""

    slot: int
    code: int | None
    signal: int | None
    user_s: float
    system_s: float
    max_rss_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmed(Message):
    """The zygote has imported its preloads: seconds each took, and the reason of each that failed."""

    python: str
    preloads: dict[str, float]
    failed: dict[str, str]


# Tool stream, program to supervisor: everything in these is hostile


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Message):
    """Call a tool. `id` names the answer; `timeout_s` counts from the moment the supervisor reads this."""

    id: int
    tool: str
    params: dict[str, Any]
    reason: str
    timeout_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Log(Message):
    """One logging record for infra.log."""

    level: str
    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(Message):
    """What the loader says of an uncaught exception. A program can forge it: it names a failure, and makes none.

    `line` is the program's own; `source` is the text of the line that raised, whosever it is.
    """

    type: str
    message: str
    errno: int | None
    line: int | None
    source: str


# Tool stream, supervisor to program


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply(Message):
    """The result of the call with this id."""

    id: int
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(Message):
    """The call with this id failed; `error` is one of `REFUSALS`."""

    id: int
    error: str
    text: str


# Supervisor stream, host to supervisor


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRun(Message):
    """A run begins. Its tool stream and its out/ directory travel beside this, in that order."""

    run: int
    exec_id: str
    turn: str
    user: str
    grants: list[str]
    limits: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseRun(Message):
    """The run's last process is dead: take what it still sent, give up its calls, and say `RunClosed`."""

    run: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Serve(Message):
    """To a supervisor in a container, over its stdin: what it is, where it listens, and files for its `~/.aws`."""

    globals_json: str
    environment: dict[str, str]
    aws: dict[str, str]
    socket: str


# Supervisor stream, supervisor to host


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded(Message):
    """The bundle is loaded; `tools` maps each tool id to its description."""

    tools: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFailed(Message):
    """The bundle cannot be loaded; `reason` names file, line and tool. Nothing follows."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal(Message):
    """What became of calls of this run, in the order in which they ended: a JSON text."""

    run: int
    records: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLog(Message):
    """A line for the run's infra.log, from `component`; run 0 is no run's."""

    run: int
    component: str
    level: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunClaim(Message):
    """The program's `Ended`, handed on: a claim, to be believed as little as before."""

    run: int
    type: str
    message: str
    errno: int | None
    line: int | None
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunViolated(Message):
    """The program broke the protocol of its tool stream, which is read no further."""

    run: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunClosed(Message):
    """Nothing more comes of this run."""

    run: int


# Attached stream, both ways: the channels of a container over its one stdin and stdout, see `wire.multiplex`


@dataclass(frozen=True, slots=True, kw_only=True)
class Carry(Message):
    """Bytes of a channel."""

    channel: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Room(Message):
    """`count` more bytes of the channel were delivered: as many may be sent again."""

    channel: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shut(Message):
    """No more bytes come on the channel."""

    channel: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced(Message):
    """From the host: give the program a new stream. From init: bytes of the channel are the new one's from here on."""

    channel: str


# Attached stream, host to init


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare(Message):
    """What the container is to become; filters as in `ForkProgram`. Programs see these variables of its environment."""

    limits: dict[str, Any]
    filters_by_number: bytes
    filters_by_argument: bytes
    preloads: list[str]
    environment: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look(Message):
    """Say `Sealed`, now that the slot has said `Ready` on its control stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminate(Message):
    """SIGTERM to the program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish(Message):
    """End every process but init, send what they left, and say `Finished`."""


# Attached stream, init to host


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed(Message):
    """What the kernel says of the program's process, once that is sealed: `facts`, see `backends.container_walls`."""

    facts: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(Message):
    """Every process but init is dead. What the container's cgroup counted, -1 for what it does not tell."""

    oom_kills: int
    process_limit_hits: int
    cpu_s: float
    peak_memory_bytes: int
    full_bytes: list[str]
    full_inodes: list[str]


CONTROL = (Put, Attached, Go, Joined, Ready, SetupError, Stored, StoreError, Started)
BUILD = (BuildInit, ForkProgram, InitReady, BuildFailed, Exited, Warmed)
TOOL = (Call, Log, Ended, Reply, Refused)
SUPERVISOR = (OpenRun, CloseRun, Serve, Loaded, LoadFailed, Journal, RunLog, RunClaim, RunViolated, RunClosed)
ATTACHED = (Carry, Room, Shut, Replaced, Prepare, Look, Terminate, Finish, Sealed, Finished)

_INT_FIELD = 1 << 63  # fields go into clocks, tables and databases; only values inside a tree may be longer
_ENVELOPE = frozenset({"v", "t", "blobs"})
_CHOICES = {("Refused", "error"): REFUSALS}


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -_INT_FIELD <= value < _INT_FIELD


def _is_float(value: object) -> bool:
    # An int counts, but not one that a clock would refuse with OverflowError.
    return _is_int(value) or (isinstance(value, float) and isfinite(value))


def _is_dict_of(value: object, fits: Callable[[object], bool]) -> bool:
    return isinstance(value, dict) and all(map(fits, value.values()))


def _is_str(value: object) -> bool:
    return isinstance(value, str)


_FITS: dict[str, Callable[[object], bool]] = {
    "Any": lambda value: True,
    "bool": lambda value: isinstance(value, bool),
    "bytes": lambda value: isinstance(value, (bytes, bytearray, memoryview)),
    "dict[str, Any]": lambda value: isinstance(value, dict),
    "dict[str, float]": lambda value: _is_dict_of(value, _is_float),
    "dict[str, str]": lambda value: _is_dict_of(value, _is_str),
    "float": _is_float,
    "float | None": lambda value: value is None or _is_float(value),
    "int": _is_int,
    "int | None": lambda value: value is None or _is_int(value),
    "list[str]": lambda value: isinstance(value, (list, tuple)) and all(map(_is_str, value)),
    "str": _is_str,
}
_TYPES: dict[str, type[Message]] = {kind.__name__: kind for kind in (*CONTROL, *BUILD, *TOOL, *SUPERVISOR, *ATTACHED)}
_FIELDS = {
    kind: tuple(
        (name, annotation, _FITS[annotation], _CHOICES.get((kind.__name__, name)))
        for name, annotation in kind.__annotations__.items()
    )
    for kind in _TYPES.values()
}
_KEYS = {kind: _ENVELOPE | {name for name, *_ in fields} for kind, fields in _FIELDS.items()}


class NotEncodable(ValueError):
    """A value of ours cannot be sent; `path` says where it stands, for example `params.a[3]`."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def encode(message: Message, max_frame: int = MAX_FRAME) -> bytes:
    """The whole frame of *message*. Tuples become lists. Raises `NotEncodable`."""
    kind = type(message)
    packer = Packer(max_frame)
    tree: dict[str, Any] = {"v": VERSION, "t": kind.__name__}
    for name, annotation, fits, choices in _FIELDS[kind]:
        value = getattr(message, name)
        try:
            tree[name] = packer.pack(value)
        except Unfit as unfit:
            raise NotEncodable(name + unfit.path, unfit.reason) from None
        if (choices or not fits(value)) and (wrong := _misfit(value, annotation, fits, choices)):
            raise NotEncodable(name, wrong)
    tree["blobs"] = list(map(len, packer.blobs))
    try:
        return encode_frame(render(tree), packer.blobs, max_frame)
    except (Unfit, ValueError) as exc:
        raise NotEncodable(kind.__name__, str(exc)) from None


def decode(header: bytes, blobs: bytes | memoryview = b"") -> Message:
    """The message of one frame. Raises `ProtocolError` for whatever is not exactly one, and nothing else."""
    tree = parse(header)
    kind = _kind(tree)
    unpacker = Unpacker(tree["blobs"], blobs)
    values: dict[str, Any] = {}
    for name, annotation, fits, choices in _FIELDS[kind]:
        value = values[name] = unpacker.unpack(tree[name], 0)
        if (choices or not fits(value)) and (wrong := _misfit(value, annotation, fits, choices)):
            raise ProtocolError(f"{kind.__name__}.{name} {wrong}")
    unpacker.end()
    return kind(**values)


def decode_packet(packet: bytes, max_frame: int = MAX_FRAME) -> Message:
    """The message of a packet that must hold exactly one frame. Raises `ProtocolError`."""
    frames = Frames(max_frame)
    frames.feed(packet)
    frame = frames.next()
    frames.end()
    if frame is None:
        raise ProtocolError("an empty packet")
    return decode(*frame)


def _misfit(
    value: object, annotation: str, fits: Callable[[object], bool], choices: tuple[str, ...] | None
) -> str | None:
    if not fits(value):
        return f"must be {annotation}, got {type(value).__name__}"
    if choices is not None and value not in choices:
        return f"must be one of {', '.join(choices)}, got {brief(value)}"
    return None


def _kind(tree: dict[str, Any]) -> type[Message]:
    version, name = tree.get("v"), tree.get("t")
    if type(version) is not int or version != VERSION:
        raise ProtocolError(f"this side speaks version {VERSION}, the peer sent {brief(version)}")
    kind = _TYPES.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ProtocolError(f"unknown message type {brief(name)}")
    if tree.keys() != _KEYS[kind]:
        if missing := sorted(_KEYS[kind] - tree.keys()):
            raise ProtocolError(f"{name} lacks {', '.join(missing)}")
        unknown = sorted(tree.keys() - _KEYS[kind])
        raise ProtocolError(f"{name} has no field {brief(unknown[0])}")
    return kind
