"""Every message as a frozen type, and the one place where bytes become one.

`decode` raises `ProtocolError` and nothing else, for all bytes; `encode` raises `NotEncodable`,
naming the path of the value at fault. The header is strict JSON, never pickle. This module keeps no
state and knows no order: who may send what, and when, is `wire.session`. The annotation of a field
is its wire type and must be a key of `_FITS`. `PROTOCOL.md` has the same fields in
words. The module is long because every message of every stream is a type of its own, with its bounds.
"""

from __future__ import annotations

from math import isfinite

from isorun.core.sent.claim import Claim
from isorun.core.sent.context import RunContext
from isorun.core.sent.facts import ContainerFacts
from isorun.core.sent.record import Record
from isorun.core.sent.sealing import Sealing
from isorun.wire.frames import MAX_FRAME, Frames, ProtocolError, encode_frame
from isorun.wire.values import MAX_VALUES, Packer, Unfit, Unpacker, brief, parse, render, unpacker_of

TYPE_CHECKING = False  # typing costs milliseconds of a cold start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    _Field = tuple[str, str, Callable[[object], bool], tuple[str, ...] | None, type[Record] | None]

VERSION = 1
REFUSALS = (
    "ToolDenied",
    "ToolInputInvalid",
    "ToolTimeout",
    "ToolBudgetExceeded",
    "ToolFailed",
    "ToolUnavailable",
)


class Message(Record):
    """Base of every message."""


# Control stream, host to slot


class Put(Message):
    """Write `data` to `path` under the workspace; `append` for every chunk of a file but its first."""

    path: str
    data: bytes
    append: bool
    mode: int


class Attached(Message):
    """The cgroup holds you; go on."""


class Go(Message):
    """Run the program."""

    argv: list[str]
    env: dict[str, str]
    context: RunContext


# Control stream, slot to host


class Joined(Message):
    """The namespaces are entered. Credentials travel beside it (`SCM_CREDENTIALS`), never in it."""


class Ready(Message):
    """The slot is sealed; `isolation` is its word on what the host cannot read: Landlock ABI, hostname."""

    isolation: dict[str, Any]


class SetupError(Message):
    """A named step of building the slot failed; nothing follows."""

    step: str
    reason: str


class StoreError(Message):
    """A `Put` failed; nothing follows."""

    path: str
    reason: str
    errno: int | None


class Started(Message):
    """Every `Put` is in the workspace, and the next instruction is the program's own."""


# Build stream, host to template or zygote


class BuildInit(Message):
    """Clone an init for a slot, *without* these walls. The socket for the answer travels beside it."""

    slot: int
    without: list[str]


class ForkProgram(Message):
    """Fork this slot's program process; the filter is seccomp instructions."""

    slot: int
    sealing: Sealing
    filter: bytes
    cpu: int | None


class MakeStream(Message):
    """Make a tool stream in this slot's network namespace. Init's pidfd and the socket for the answer go beside it."""

    slot: int


# Build stream, template or zygote to host


class InitReady(Message):
    """A new slot's init stands. Its pidfd travels beside it."""

    slot: int


class StreamMade(Message):
    """Both ends of a new tool stream travel beside it."""

    slot: int


class BuildFailed(Message):
    """A named step of building this slot failed; its processes are gone."""

    slot: int
    step: str
    reason: str


class Exited(Message):
    """A process of this slot was reaped: exactly one of `code` and `signal` is meant to be set."""

    slot: int
    code: int | None
    signal: int | None
    user_s: float
    system_s: float
    max_rss_bytes: int


class Warmed(Message):
    """The zygote has imported its preloads: seconds each took, and the reason of each that failed."""

    python: str
    preloads: dict[str, float]
    failed: dict[str, str]


# Tool stream, program to supervisor: everything in these is hostile


class Call(Message):
    """Call a tool. `id` names the answer; `timeout_s` counts from the moment the supervisor reads this."""

    id: int
    tool: str
    params: dict[str, Any]
    reason: str
    timeout_s: float | None


class Log(Message):
    """One logging record for infra.log."""

    level: str
    name: str
    text: str


class Ended(Message):
    """The program ends by an uncaught exception. A program can forge it: it names a failure, and makes none."""

    claim: Claim


# Tool stream, supervisor to program


class Reply(Message):
    """The result of the call with this id."""

    id: int
    value: Any


class Refused(Message):
    """The call with this id failed; `error` is one of `REFUSALS`."""

    id: int
    error: str
    text: str


# Supervisor stream, host to supervisor


class OpenRun(Message):
    """A run begins. Its tool stream and its out/ directory travel beside this, in that order.

    Of the granted tools the calls of those in `held` are answered by the host.
    """

    run: int
    exec_id: str
    turn: str
    user: str
    grants: list[str]
    held: list[str]
    limits: dict[str, Any]


class CloseRun(Message):
    """The run's last process is dead: take what it still sent, give up its calls, and say `RunClosed`."""

    run: int


class CallAnswered(Message):
    """The result of the held call, in JSON's types and bytes."""

    run: int
    call: int
    value: Any


class CallRefused(Message):
    """The held call has no result; `error` is one of `REFUSALS`."""

    run: int
    call: int
    error: str
    text: str


class HoldRun(Message):
    """The run is to be frozen: begin no call of it, and say `RunHeld` with this `asked` once no tool works for it."""

    run: int
    asked: int


class FreeRun(Message):
    """Begin calls of the run again; those that are open have `frozen_s` seconds more."""

    run: int
    frozen_s: float


class Serve(Message):
    """To a supervisor in a container, over its stdin: what it is, where it listens, and files for its `~/.aws`."""

    globals_json: str
    environment: dict[str, str]
    aws: dict[str, str]
    socket: str


# Supervisor stream, supervisor to host


class Loaded(Message):
    """The bundle is loaded: `tools` by id, each described; `services` by name, each `ok` or `unreachable (reason)`."""

    tools: dict[str, Any]
    services: dict[str, str]


class LoadFailed(Message):
    """The bundle cannot be loaded; `reason` names file, line and tool. Nothing follows."""

    reason: str


class Place(Message):
    """Where each tool runs, by its id: one of `supervisor.worker.modes.MODES`."""

    modes: dict[str, str]


class Placed(Message):
    """The tools can run there; else `refused` says which cannot and why."""

    refused: str


class Journal(Message):
    """What became of calls of this run, in the order in which they ended: a JSON text."""

    run: int
    records: bytes


class CallHeld(Message):
    """The host is to answer this call within `seconds`. `reason` and `params` are the program's: hostile."""

    run: int
    call: int
    tool: str
    params: dict[str, Any]
    reason: str
    seconds: float


class CallGivenUp(Message):
    """The held call has ended without an answer: its time is over, or its run."""

    run: int
    call: int


class RunLog(Message):
    """A line for the run's infra.log, from `component`; run 0 means no run."""

    run: int
    component: str
    level: str
    text: str


class RunClaim(Message):
    """The program's `Ended`, handed on: a claim, to be believed as little as before."""

    run: int
    claim: Claim


class RunViolated(Message):
    """The program broke the protocol of its tool stream, which is read no further."""

    run: int
    reason: str


class RunHeld(Message):
    """No tool works for this run, until `FreeRun`."""

    run: int
    asked: int


class RunClosed(Message):
    """Nothing more comes of this run."""

    run: int


# Worker stream, supervisor to worker


class Configure(Message):
    """The bundle whose tools you run, and the variables that they may see."""

    globals_json: str
    environment: dict[str, str]


class Work(Message):
    """Run one call. If its tool takes a `ToolContext`, the run's out/ directory travels beside this."""

    id: int
    tool: str
    params: dict[str, Any]
    exec_id: str
    turn: str
    user: str
    deadline: float
    frame_bytes: int


# Worker stream, worker to supervisor


class Output(Message):
    """What the tool prints and logs (`INFO`), or what it raised (`ERROR`)."""

    level: str
    text: str


class Result(Message):
    """The result of the call with this id."""

    id: int
    value: Any


class Failed(Message):
    """The call with this id has no result; `error` is one of `REFUSALS`."""

    id: int
    error: str
    text: str


# Attached stream, both ways: the channels of a container over its one stdin and stdout, see `wire.multiplex`


class Carry(Message):
    """Bytes of a channel."""

    channel: str
    data: bytes


class Room(Message):
    """`count` more bytes of the channel were delivered: as many may be sent again."""

    channel: str
    count: int


class Shut(Message):
    """No more bytes come on the channel."""

    channel: str


class Replaced(Message):
    """From the host: give the program a new stream. From init: bytes of the channel are the new one's from here on."""

    channel: str


# Attached stream, host to init


class Prepare(Message):
    """What the container becomes; `filter` as in `ForkProgram`. Programs see these variables of its environment.

    `hand_over`: whether init hands the workspace to the host. `share_with_group`: whether it opens the run's files to
    its group at the end. `most_tasks`, `most_locks`: what init is to count; None where something better does.
    """

    sealing: Sealing
    filter: bytes
    preloads: list[str]
    environment: list[str]
    hand_over: bool
    share_with_group: bool
    most_tasks: int | None
    most_locks: int | None


class Look(Message):
    """Say `Sealed`, now that the slot has said `Ready` on its control stream."""


class Until(Message):
    """The program runs. Without a `Finish` end with it after *seconds*: the host is then gone and cannot say so."""

    seconds: float


class Terminate(Message):
    """SIGTERM to the program."""


class Finish(Message):
    """End every process but init, send what they left, and say `Finished`."""


# Attached stream, init to host


class Sealed(Message):
    """What the kernel says of the program's process, once that is sealed."""

    facts: ContainerFacts


class Finished(Message):
    """Every process but init is dead. What the container's cgroup counted, -1 for what it does not tell."""

    oom_kills: int
    process_limit_hits: int
    cpu_s: float
    peak_memory_bytes: int
    full_bytes: list[str]
    full_inodes: list[str]
    too_many_locks: bool = False  # init ended everything for them
    unasked: bool = False  # the program ended before `Terminate` or `Finish` had come


CONTROL = (Put, Attached, Go, Joined, Ready, SetupError, StoreError, Started)
BUILD = (BuildInit, ForkProgram, MakeStream, InitReady, StreamMade, BuildFailed, Exited, Warmed)
TOOL = (Call, Log, Ended, Reply, Refused)
SUPERVISOR = (
    *(OpenRun, CloseRun, HoldRun, FreeRun, CallAnswered, CallRefused, Serve, Place),
    *(Loaded, LoadFailed, Placed, Journal, CallHeld, CallGivenUp, RunLog, RunClaim, RunViolated, RunHeld, RunClosed),
)
WORKER = (Configure, Work, Output, Result, Failed)
ATTACHED = (Carry, Room, Shut, Replaced, Prepare, Look, Until, Terminate, Finish, Sealed, Finished)

_INT_FIELD = 1 << 63  # fields go into clocks, tables and databases; only values inside a tree may be longer
_ENVELOPE = frozenset({"v", "t", "blobs"})
_CHOICES = {(kind, "error"): REFUSALS for kind in ("Refused", "CallRefused", "Failed")}


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -_INT_FIELD <= value < _INT_FIELD


def _are_ints(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_is_int, value))


def _is_float(value: object) -> bool:
    # An int counts, but not one that a clock would refuse with OverflowError.
    return _is_int(value) or (isinstance(value, float) and isfinite(value))


def _is_dict_of(value: object, fits: Callable[[object], bool]) -> bool:
    return isinstance(value, dict) and all(map(fits, value.values()))


def _is_str(value: object) -> bool:
    return isinstance(value, str)


def _is_texts(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_is_str, value))


_FITS: dict[str, Callable[[object], bool]] = {
    "Any": lambda value: True,
    "bool": lambda value: isinstance(value, bool),
    "bytes": lambda value: isinstance(value, (bytes, bytearray, memoryview)),
    "dict[str, Any]": lambda value: isinstance(value, dict),
    "dict[str, float]": lambda value: _is_dict_of(value, _is_float),
    "dict[str, int]": lambda value: _is_dict_of(value, _is_int),
    "dict[str, list[int]]": lambda value: _is_dict_of(value, _are_ints),
    "dict[str, list[str]]": lambda value: _is_dict_of(value, _is_texts),
    "dict[str, str]": lambda value: _is_dict_of(value, _is_str),
    "float": _is_float,
    "float | None": lambda value: value is None or _is_float(value),
    "int": _is_int,
    "int | None": lambda value: value is None or _is_int(value),
    "list[dict[str, str]]": lambda value: isinstance(value, list) and all(_is_dict_of(one, _is_str) for one in value),
    "list[int]": _are_ints,
    "list[str]": _is_texts,
    "str": _is_str,
}
#: Values of `core` as fields: each is written as an object with exactly its own fields.
RECORDS: dict[str, type[Record]] = {kind.__name__: kind for kind in (Claim, ContainerFacts, RunContext, Sealing)}
_FITS.update(dict.fromkeys(RECORDS, lambda value: False))  # one that does is not asked: it is packed as a record
_TYPES: dict[str, type[Message]] = {
    kind.__name__: kind for kind in (*CONTROL, *BUILD, *TOOL, *SUPERVISOR, *WORKER, *ATTACHED)
}
_FIELDS: dict[type[Record], tuple[_Field, ...]] = {
    kind: tuple(
        (name, annotation, _FITS[annotation], _CHOICES.get((kind.__name__, name)), RECORDS.get(annotation))
        for name, annotation in kind.fields.items()
    )
    for kind in (*_TYPES.values(), *RECORDS.values())
}
_KEYS = {
    kind: frozenset(name for name, *_ in fields) | (frozenset() if kind in RECORDS.values() else _ENVELOPE)
    for kind, fields in _FIELDS.items()
}


class NotEncodable(ValueError):
    """A value of ours cannot be sent; `path` says where it stands, for example `params.a[3]`."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def encode(message: Message, max_frame: int = MAX_FRAME, max_values: int = MAX_VALUES) -> bytes:
    """The whole frame of *message*. Tuples become lists. Raises `NotEncodable`."""
    kind = type(message)
    packer = Packer(max_frame)
    tree: dict[str, Any] = {"v": VERSION, "t": kind.__name__, **_packed(message, packer)}
    tree["blobs"] = list(map(len, packer.blobs))
    try:
        return encode_frame(render(tree, max_values), packer.blobs, max_frame)
    except (Unfit, ValueError) as exc:
        raise NotEncodable(kind.__name__, str(exc)) from None


def _packed(one: Record, packer: Packer) -> dict[str, Any]:
    """The fields of a message, or of a record in one."""
    tree: dict[str, Any] = {}
    for name, annotation, fits, choices, record in _FIELDS[type(one)]:
        value = getattr(one, name)
        try:
            if record is not None and isinstance(value, record):
                tree[name] = _packed(value, packer)
                continue
            tree[name] = packer.pack(value)
        except Unfit as unfit:
            raise NotEncodable(name + unfit.path, unfit.reason) from None
        except NotEncodable as inner:
            raise NotEncodable(f"{name}.{inner.path}", inner.reason) from None
        if (choices or not fits(value)) and (wrong := _misfit(value, annotation, fits, choices)):
            raise NotEncodable(name, wrong)
    return tree


def decode(header: bytes, blobs: bytes | memoryview = b"", max_values: int = MAX_VALUES) -> Message:
    """The message of one frame. Raises `ProtocolError`, and nothing else, if the bytes are not one message."""
    tree = parse(header, max_values)
    kind = _kind(tree)
    unpacker = unpacker_of(header, tree["blobs"], blobs)
    message = kind(**_unpacked(kind, tree, unpacker))
    unpacker.end()
    return message


def _unpacked(kind: type[Record], tree: dict[str, Any], unpacker: Unpacker) -> dict[str, Any]:
    """The fields of a message, or of a record in one, whose keys are right."""
    values: dict[str, Any] = {}
    for name, annotation, fits, choices, record in _FIELDS[kind]:
        if record is not None:
            inner = tree[name]
            if not isinstance(inner, dict):
                raise ProtocolError(f"{kind.__name__}.{name} must be {annotation}, got {type(inner).__name__}")
            _check_keys(record, inner)
            values[name] = record(**_unpacked(record, inner, unpacker))
            continue
        value = values[name] = unpacker.unpack(tree[name], 0)
        if (choices or not fits(value)) and (wrong := _misfit(value, annotation, fits, choices)):
            raise ProtocolError(f"{kind.__name__}.{name} {wrong}")
    return values


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
    _check_keys(kind, tree)
    return kind


def _check_keys(kind: type, tree: dict[str, Any]) -> None:
    if tree.keys() != _KEYS[kind]:
        if missing := sorted(_KEYS[kind] - tree.keys()):
            raise ProtocolError(f"{kind.__name__} lacks {', '.join(missing)}")
        unknown = sorted(tree.keys() - _KEYS[kind])
        raise ProtocolError(f"{kind.__name__} has no field {brief(unknown[0])}")
