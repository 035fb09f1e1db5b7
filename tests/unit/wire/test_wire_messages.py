"""Messages: what goes in comes out, and no bytes at all get out of `decode` as anything but a refusal."""

import contextlib
import json
import math
import time
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isorun.wire import values
from isorun.wire.frames import MAX_FRAME, PREFIX_BYTES, Frames, ProtocolError
from isorun.wire.messages import (
    ATTACHED,
    BUILD,
    CONTROL,
    RECORDS,
    TOOL,
    Call,
    ForkProgram,
    InitReady,
    Message,
    NotEncodable,
    Put,
    Refused,
    Reply,
    Sealed,
    Warmed,
    decode,
    decode_packet,
    encode,
)
from isorun.wire.values import CALL_VALUES, MAX_INT_DIGITS, MAX_VALUES
from tests.unit.records import FACTS, SEALING

# Strategies are built on first use, and a loaded machine takes its time over that.
calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

_K = TypeVar("_K")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
KEYS = TEXT | st.sampled_from(["$blob", "$dict", "$", "$x"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)
BY_TYPE = {
    "Any": VALUES,
    "bool": st.booleans(),
    "bytes": st.binary(),
    "dict[str, Any]": st.dictionaries(KEYS, VALUES, max_size=3),
    "dict[str, float]": st.dictionaries(KEYS, st.floats(allow_nan=False, allow_infinity=False)),
    "dict[str, int]": st.dictionaries(KEYS, st.integers(-(2**63), 2**63 - 1)),
    "dict[str, list[int]]": st.dictionaries(KEYS, st.lists(st.integers(-(2**63), 2**63 - 1))),
    "dict[str, list[str]]": st.dictionaries(KEYS, st.lists(TEXT)),
    "dict[str, str]": st.dictionaries(KEYS, TEXT),
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "float | None": st.none() | st.floats(allow_nan=False, allow_infinity=False),
    "int": st.integers(-(2**63), 2**63 - 1),
    "int | None": st.none() | st.integers(-(2**63), 2**63 - 1),
    "list[dict[str, str]]": st.lists(st.dictionaries(KEYS, TEXT), max_size=3),
    "list[int]": st.lists(st.integers(-(2**63), 2**63 - 1)),
    "list[str]": st.lists(TEXT),
    "str": TEXT,
}
WORDS = {(Refused, "error"): "ToolDenied"}


def any_value(kind: type, name: str, annotation: str) -> st.SearchStrategy[Any]:
    """Legal values of that field."""
    if (kind, name) in WORDS:
        return st.just(WORDS[kind, name])
    return any_of(RECORDS[annotation]) if annotation in RECORDS else BY_TYPE[annotation]


def any_of(kind: type[_K]) -> st.SearchStrategy[_K]:
    """Messages or records of this kind with any legal fields."""
    return st.builds(kind, **{name: any_value(kind, name, annotation) for name, annotation in kind.fields.items()})


MESSAGES = st.one_of(*map(any_of, (*CONTROL, *BUILD, *TOOL, *ATTACHED)))


def header(**changes: object) -> bytes:
    """The header of an honest `Reply`, with these keys changed; `...` removes one."""
    tree = {"v": 1, "t": "Reply", "id": 1, "value": None, "blobs": [], **changes}
    return json.dumps({key: value for key, value in tree.items() if value is not ...}).encode()


@calm
@given(MESSAGES)
def test_every_message_comes_back_as_it_went(message) -> None:
    """Any legal message survives the wire, byte for byte in its blobs and with its types."""
    frame = encode(message)
    assert decode_packet(frame) == message
    assert encode(decode_packet(frame)) == frame


@pytest.mark.slow
@calm
@given(VALUES)
def test_types_survive(value) -> None:
    """True does not come back as 1, nor 1.0 as 1."""
    back = decode_packet(encode(Reply(id=1, value=value)))
    assert isinstance(back, Reply)
    assert repr(back.value) == repr(value)


@calm
@given(st.binary(), st.binary(max_size=8))
def test_decode_raises_only_protocol_errors(head, blobs) -> None:
    """Bytes from an executor cannot reach the supervisor as any other exception."""
    with contextlib.suppress(ProtocolError):
        decode(head, blobs)


@calm
@given(MESSAGES, st.data())
def test_a_mutated_frame_raises_only_protocol_errors(message, data) -> None:
    """An honest frame with bytes flipped, cut or doubled is a message or a refusal."""
    frame = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(frame) - 1))
        patch = data.draw(st.binary(max_size=3) | st.sampled_from([b"$blob", b"\\ud800", b"NaN", b"[", b'{"', b"-1"]))
        frame[at : at + data.draw(st.integers(0, 3))] = patch
        frame = frame or bytearray(b"\0")
    with contextlib.suppress(ProtocolError):
        assert isinstance(decode_packet(bytes(frame)), Message)


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["$blob", "$dict", "$", "a"]), inner, max_size=2)
    ),
    max_leaves=8,
)


@calm
@given(st.dictionaries(st.sampled_from(["id", "value", "t", "v", "blobs", "x"]), JSONISH))
def test_any_json_in_any_field_raises_only_protocol_errors(changes) -> None:
    """Well-formed JSON of the wrong shape is refused like any other bytes."""
    with contextlib.suppress(ProtocolError):
        assert isinstance(decode(header(**changes), b"ab"), Message)


TEXTS = (
    JSONISH.map(json.dumps)
    | st.text(st.sampled_from('{}[]":,\\\\u0019.-eE tfnNaI\\n\\ud83d'), max_size=60)
    | st.integers(0, 10**700).map(lambda number: f'{{"a":{number}}}')
)


@calm
@given(TEXTS | TEXTS.map(lambda text: f'{{"a":{text}}}') | TEXTS.map(lambda text: f'{{"a":{text}}} '))
def test_the_quick_reader_reads_what_the_strict_one_reads(text) -> None:
    """A short header is read by a shorter way: with the same value, or refused with the same words."""

    def read(how) -> str:
        try:
            return repr(how(text))
        except ValueError as error:
            return f"{type(error).__name__}: {error}"

    assert read(values._read) == read(values._IN.decode)


@calm
@given(VALUES)
def test_the_quick_writer_writes_what_json_writes(value) -> None:
    """Headers are written without the encoder that json makes for each: to the letter the same."""
    tree = {"v": 1, "value": values.Packer(MAX_FRAME).pack(value)}
    assert values.render(tree) == values._OUT.encode(tree).encode()


NOT_JSON = "header is not strict JSON: "
HOSTILE = [
    (b"", NOT_JSON + "'Expecting value: line 1 column 1 (char 0)'"),
    (header()[:-1], NOT_JSON),  # truncated
    (header() + b"x", NOT_JSON + "'Extra data"),
    (b"\xff\xfe", NOT_JSON + "\"'utf-8' codec can't decode byte 0xff in position 0: invalid start byte\""),
    (header().decode().encode("utf-16"), NOT_JSON),
    (b"\xef\xbb\xbf" + header(), NOT_JSON),
    (b"[" * 100_000, NOT_JSON + "'maximum recursion depth exceeded"),
    (b'{"a":' * 100_000, NOT_JSON + "'maximum recursion depth exceeded"),
    (header(value=math.nan), NOT_JSON + "'NaN is not a number'"),
    (header(value=-math.inf), NOT_JSON + "'-Infinity is not a number'"),
    (header(value=0).replace(b'"value": 0', b'"value": 1e999'), "a number is too large for a float"),
    (header().replace(b'"id": 1', b'"id": 1, "id": 1'), NOT_JSON + "'duplicate key'"),
    (
        header(value=0).replace(b'"value": 0', b'"value": -' + b"9" * 641),
        NOT_JSON + "'an int of more than 640 digits'",
    ),
    (header(value="x").replace(b'"x"', b'"\\ud800"'), "text with a lone surrogate"),
    (header(value="x").replace(b'"x"', b'{"\\udfff": 1, "b": 1}'), "text with a lone surrogate"),
    (b"[]", "header must be an object, got list"),
    (b"{}", "this side speaks version 1, the peer sent None"),
    (header(v=2), "this side speaks version 1, the peer sent 2"),
    (header(v=True), "this side speaks version 1, the peer sent True"),
    (header(v=1.0), "this side speaks version 1, the peer sent 1.0"),
    (header(t="reply"), "unknown message type 'reply'"),
    (header(t="\x1b[2J\n"), "unknown message type '\\x1b[2J\\n'"),
    (header(t="a" * 1000), "unknown message type '" + "a" * 76 + "..."),
    (header(t=["Reply"]), "unknown message type a list"),
    (header(t=...), "unknown message type None"),
    (header(id=..., value=...), "Reply lacks id, value"),
    (header(blobs=...), "Reply lacks blobs"),
    (header(extra=1), "Reply has no field 'extra'"),
    (header(id=True), "Reply.id must be int, got bool"),
    (header(id="1"), "Reply.id must be int, got str"),
    (header(id=1.0), "Reply.id must be int, got float"),
    (header(id=2**63), "Reply.id must be int, got int"),
    (header(id={"$blob": 0}, blobs=[0]), "Reply.id must be int, got bytes"),
    (header(value={"$blob": 0}), "no blob 0"),
    (header(value={"$blob": -1}, blobs=[0]), "no blob -1"),
    (header(value={"$blob": False}, blobs=[0]), "no blob False"),
    (header(value={"$blob": [0]}, blobs=[0]), "no blob a list"),
    (header(value=[{"$blob": 0}, {"$blob": 0}], blobs=[0]), "blob 0 is used twice"),
    (header(value=[{"$blob": 1}], blobs=[0, 0]), "blob 0 is not used"),
    (header(value={"$x": 0}), "bad escape '$x'"),
    (header(value={"$dict": 0}), "bad escape '$dict'"),
    (header(value={"$dict": {"a": 0}}), "bad escape '$dict'"),
    (header(value={"$dict": {}}), "bad escape '$dict'"),
    (header(blobs=0), "blobs must be a list of lengths"),
    (header(blobs=[True]), "blobs must be a list of lengths"),
    (header(blobs=[1, -1]), "blobs must be a list of lengths"),
    (header(blobs=[10**600]), "blobs of 1000"),
    (header(value=json.loads("[" * 65 + "]" * 65)), "values nested deeper than 64 levels"),
    (header(value=[0] * MAX_VALUES), "header of more than 1000000 values"),
    (
        header(t="Refused", value=..., error="SystemExit", text=""),
        "Refused.error must be one of ToolDenied, ",
    ),
]


@pytest.mark.parametrize(("head", "text"), HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_headers_are_refused_by_name(head, text) -> None:
    """Each way to break the header has its own refusal, short and printable."""
    with pytest.raises(ProtocolError) as caught:
        decode(head)
    assert str(caught.value).startswith(text)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


AS_TREE = {name: getattr(SEALING, name) for name in SEALING.fields}
FORK = ForkProgram(slot=1, sealing=SEALING, filter=b"", cpu=None)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"nproc": ...}, "Sealing lacks nproc"),
        ({"nprocs": 8}, "Sealing has no field 'nprocs'"),
        ({"nproc": "8"}, "Sealing.nproc must be int, got str"),
        ({"data_bytes": True}, "Sealing.data_bytes must be int | None, got bool"),
        ({"without": [1]}, "Sealing.without must be list[str], got list"),
        (None, "ForkProgram.sealing must be Sealing, got NoneType"),
    ],
)
def test_a_record_is_refused_as_a_message_is(changes, text) -> None:
    """Nobody can leave out a ceiling of a slot, add one that nobody reads, or send one of another type."""
    sealing = changes and {key: value for key, value in {**AS_TREE, **changes}.items() if value is not ...}
    blobs = {"filter": {"$blob": 0}, "blobs": [0]}
    tree = {"v": 1, "t": "ForkProgram", "slot": 1, "sealing": sealing, "cpu": None, **blobs}
    with pytest.raises(ProtocolError) as caught:
        decode(json.dumps(tree).encode())
    assert str(caught.value) == text
    # Control: without a change it is the message.
    assert decode(json.dumps({**tree, "sealing": AS_TREE}).encode()) == FORK


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"init": None}, "ContainerFacts.init must be str, got NoneType"),
        ({"fds": 7}, "ContainerFacts.fds must be list[int], got int"),
        ({"fds": [["0"]]}, "ContainerFacts.fds must be list[int], got list"),
        ({"cgroup": {"memory_bytes": "much"}}, "ContainerFacts.cgroup must be dict[str, int], got dict"),
        ({"sizes": {"/tmp": 1}}, "ContainerFacts.sizes must be dict[str, list[int]], got dict"),
        ({"namespaces": []}, "ContainerFacts.namespaces must be dict[str, str], got list"),
    ],
    ids=str,
)
def test_facts_of_another_shape_are_no_message(changes, text) -> None:
    """A container says them, so they may be anything."""
    as_tree = {name: getattr(FACTS, name) for name in FACTS.fields}
    tree = {"v": 1, "t": "Sealed", "facts": {**as_tree, **changes}, "blobs": []}
    with pytest.raises(ProtocolError) as caught:
        decode(json.dumps(tree).encode())
    assert str(caught.value) == text
    assert decode(json.dumps({**tree, "facts": as_tree}).encode()) == Sealed(facts=FACTS)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (FORK.changed(sealing=SEALING.changed(nproc="8")), "sealing.nproc: must be int, got str"),
        (FORK.changed(sealing=SEALING.changed(without=[{1}])), "sealing.without[0]: set cannot be sent"),
        (FORK.changed(sealing=AS_TREE), "sealing: must be Sealing, got dict"),
        (FORK.changed(sealing=FORK), "sealing: ForkProgram cannot be sent"),
    ],
)
def test_a_record_of_ours_with_the_wrong_type_names_its_field(message, text) -> None:
    """A backend that makes it wrong learns where, before anything is sent."""
    with pytest.raises(NotEncodable) as caught:
        encode(message)
    assert str(caught.value) == text


def test_blobs_must_be_exactly_those_announced() -> None:
    """No byte behind the header is left over or missing."""
    for blobs in (b"", b"a", b"abc"):
        with pytest.raises(ProtocolError, match=rf"^blobs of 2 bytes announced, {len(blobs)} sent$"):
            decode(header(value={"$blob": 0}, blobs=[2]), blobs)
    assert decode(header(value={"$blob": 0}, blobs=[2]), b"ab") == Reply(id=1, value=b"ab")


def test_a_packet_is_exactly_one_frame() -> None:
    """An empty packet, half a frame and a frame with a tail are refused."""
    frame = encode(InitReady(slot=1))
    assert decode_packet(frame) == InitReady(slot=1)
    for packet, text in [
        (b"", "an empty packet"),
        (frame[:-1], f"the stream ended {len(frame) - 1} bytes into a frame"),
        (frame + b"x", "the stream ended 1 bytes into a frame"),
    ]:
        with pytest.raises(ProtocolError) as caught:
            decode_packet(packet)
        assert str(caught.value) == text


def test_a_table_of_ten_thousand_rows_can_be_sent_by_a_program() -> None:
    """Five columns each: what a program may send is far below what may be sent at all, and enough for this."""
    call = Call(id=1, tool="t", params={"rows": [[1.5, "x", None, True, 7]] * 10_000}, reason="", timeout_s=None)
    frame = encode(call, max_values=CALL_VALUES)
    assert decode(frame[PREFIX_BYTES:], max_values=CALL_VALUES) == call
    call = Call(id=1, tool="t", params={"rows": [0] * CALL_VALUES}, reason="", timeout_s=None)
    with pytest.raises(NotEncodable, match=r"^Call: more than 65536 values$"):
        encode(call, max_values=CALL_VALUES)


@pytest.mark.slow
def test_the_ceiling_on_values_is_exact_on_both_sides() -> None:
    """What may be sent may be read: one value more is neither."""
    envelope = 6  # the header's bracket and four commas, and the bracket of `blobs`
    fits: list[object] = [0] * (MAX_VALUES - envelope)
    assert decode_packet(encode(Reply(id=1, value=fits))) == Reply(id=1, value=fits)
    with pytest.raises(NotEncodable, match=r"^Reply: more than 1000000 values$"):
        encode(Reply(id=1, value=[*fits, 0]))
    with pytest.raises(ProtocolError, match=r"^header of more than 1000000 values$"):
        decode(header(value=[*fits, 0]))


@pytest.mark.slow
@pytest.mark.parametrize("unit", [b'"', b'\\"', b'"\\"', b'{"a":0},', b"{},", b',"', b'"\\\\",'])
def test_counting_the_values_takes_one_pass(unit) -> None:
    """A full frame of quotes, escapes or brackets is refused in linear time and little memory."""
    marks = b"," * (MAX_VALUES + 1)  # at the end, where a quote left open can hide them
    junk = unit * ((MAX_FRAME - len(marks)) // len(unit)) + marks
    start = time.process_time()
    with pytest.raises(ProtocolError):
        decode(junk)
    assert time.process_time() - start < 10  # 0.1 to 1 s; a second look at each quote takes hours


def test_text_full_of_commas_is_one_value() -> None:
    """The ceiling on values counts values, not the punctuation of a long text."""
    message = Reply(id=1, value=',[{"\\' * (MAX_VALUES // 2))
    assert decode_packet(encode(message)) == message


def cyclic() -> list[object]:
    """A list that holds itself."""
    made: list[object] = []
    made.append(made)
    return made


def nested(depth: int) -> object:
    """That many lists inside each other."""
    made: object = 0
    for _ in range(depth):
        made = [made]
    return made


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({1}, "params.a[3]: set cannot be sent"),
        (object(), "params.a[3]: object cannot be sent"),
        (math.nan, "params.a[3]: nan cannot be sent"),
        (-math.inf, "params.a[3]: -inf cannot be sent"),
        ({1: 2}, "params.a[3]: keys must be str, got int"),
        ({"b": {"c d": {1}}}, "params.a[3].b['c d']: set cannot be sent"),
        ({"b": "\udc80"}, "params.a[3].b: text with a lone surrogate cannot be sent"),
        ({"\udc80": 1}, "params.a[3]: text with a lone surrogate cannot be sent"),
        (cyclic(), "params.a[3][0]: it contains itself"),
        (nested(63), "params.a[3]" + "[0]" * 62 + ": nested deeper than 64 levels"),
        (10**MAX_INT_DIGITS, "params.a[3]: an int of more than 640 digits cannot be sent"),
        (bytes(MAX_FRAME), f"params.a[3]: the frame would exceed {MAX_FRAME} bytes here"),
        ("\0" * (MAX_FRAME // 2), "Call: frame of "),
        ([0] * MAX_VALUES, "Call: more than 1000000 values"),
    ],
)
def test_what_cannot_be_sent_names_its_path(value, text) -> None:
    """The author of a call learns which value was at fault."""
    with pytest.raises(NotEncodable) as caught:
        encode(Call(id=1, tool="t", params={"a": [1, 2, 3, value]}, reason="", timeout_s=None))
    assert str(caught.value).startswith(text)
    assert str(caught.value).startswith(f"{caught.value.path}: ")


def test_a_shared_value_that_multiplies_is_stopped_early() -> None:
    """Twenty short lists that stand for 10**20 values cost no more than one frame."""
    value: object = 0
    for _ in range(20):
        value = [value] * 10
    with pytest.raises(NotEncodable, match=r"the frame would exceed 10000 bytes here$"):
        encode(Reply(id=1, value=value), max_frame=10_000)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (InitReady(slot=True), "slot: must be int, got bool"),
        (InitReady(slot="1"), "slot: must be int, got str"),
        (Put(path="a", data="x", append=False, mode=0), "data: must be bytes, got str"),
        (Warmed(python="3", preloads={"a": "b"}, failed={}), "preloads: must be dict[str, float], got dict"),
        (Refused(id=1, error="Boom", text=""), "error: must be one of ToolDenied, "),
    ],
)
def test_a_field_of_ours_with_the_wrong_type_is_our_error(message, text) -> None:
    """Our own mistake is found before it is sent, and is not blamed on the peer."""
    with pytest.raises(NotEncodable) as caught:
        encode(message)
    assert str(caught.value).startswith(text)


def test_the_limits_themselves_pass() -> None:
    """64 levels, 640 digits and any bytes-like value are sent; tuples arrive as lists."""
    value = [nested(63), 10**MAX_INT_DIGITS - 1, -(10**MAX_INT_DIGITS) + 1, "é\u2028\U0001f600"]
    assert decode_packet(encode(Reply(id=1, value=value[0]))) == Reply(id=1, value=value[0])
    assert decode_packet(encode(Reply(id=1, value=value[1:]))) == Reply(id=1, value=value[1:])
    sent = Reply(id=1, value=(bytearray(b"a"), memoryview(b"bb"), (1,)))
    assert decode_packet(encode(sent)) == Reply(id=1, value=[b"a", b"bb", [1]])


def test_messages_cannot_be_changed() -> None:
    """A message that was checked stays as it was checked."""
    with pytest.raises(AttributeError):
        InitReady(slot=1).slot = 2


def test_a_whole_stream_of_messages_is_read_back() -> None:
    """Frames and messages fit together."""
    sent = [InitReady(slot=n) for n in range(5)]
    frames = Frames()
    frames.feed(b"".join(map(encode, sent)))
    got = []
    while (frame := frames.next()) is not None:
        got.append(decode(*frame))
    assert got == sent
