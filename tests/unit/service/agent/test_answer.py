"""An answer put together of chunks, as different servers send them. Nothing that a server sends raises but `Broken`."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isorun.service.agent.answer import MAX_CALLS, Answer, Broken, Gathering


def _gathered(*deltas: dict[str, Any], finish: str | None = "stop") -> Answer:
    gathering = Gathering()
    for delta in deltas:
        gathering.add({"choices": [{"delta": delta, "finish_reason": None}]})
    gathering.add({"choices": [{"delta": {}, "finish_reason": finish}]})
    return gathering.answer()


def _call(*, index: int | None = None, id: str | None = None, **function: object) -> dict[str, Any]:
    known = {"index": index, "id": id}
    return {"tool_calls": [{**{key: value for key, value in known.items() if value is not None}, "function": function}]}


_ONE = (("f", {"a": 1}),)
_TWO = (("f", {"a": 1}), ("g", {"b": 2}))
_CASES: dict[str, tuple[tuple[dict[str, Any], ...], tuple[tuple[str, Any], ...]]] = {
    "as OpenAI sends it": (
        (
            _call(index=0, id="x", name="f", arguments=""),
            _call(index=0, arguments='{"a":'),
            _call(index=0, arguments=" 1}"),
        ),
        _ONE,
    ),
    "two, interleaved": (
        (
            _call(index=0, id="x", name="f", arguments='{"a":'),
            _call(index=1, id="y", name="g", arguments='{"b":'),
            _call(index=0, arguments=" 1}"),
            _call(index=1, arguments=" 2}"),
        ),
        _TWO,
    ),
    "without an index": (
        (
            _call(id="x", name="f", arguments='{"a": 1}'),
            _call(id="y", name="g", arguments='{"b"'),
            _call(arguments=": 2}"),
        ),
        _TWO,
    ),
    "the id with every piece": ((_call(id="x", name="f", arguments='{"a"'), _call(id="x", arguments=": 1}")), _ONE),
    "without index and id": ((_call(name="f", arguments='{"a": 1}'), _call(name="g", arguments='{"b": 2}')), _TWO),
    "the same tool twice, without ids": (
        (_call(name="f", arguments='{"a": 1}'), _call(name="f", arguments='{"a": 1}')),
        (*_ONE, *_ONE),
    ),
    "the name with every piece": ((_call(name="f", arguments='{"a"'), _call(name="f", arguments=": 1}")), _ONE),
    "always the same index": (
        (
            _call(index=0, id="x", name="f", arguments='{"a": 1}'),
            _call(index=0, id="y", name="g", arguments='{"b": 2}'),
        ),
        _TWO,
    ),
    "arguments as an object": (
        (_call(index=0, id="x", name="f", arguments={"a": 1}), _call(id="y", name="g", arguments={"b": 2})),
        _TWO,
    ),
    "an index with the first piece alone": (
        (
            _call(index=0, id="x", name="f", arguments='{"a": 1}'),
            _call(index=1, id="y", name="g", arguments='{"b"'),
            _call(arguments=": 2}"),
        ),
        _TWO,
    ),
    "empty ids": (
        (_call(index=0, id="", name="f", arguments='{"a": 1}'), _call(index=1, id="", name="g", arguments='{"b": 2}')),
        _TWO,
    ),
}


@pytest.mark.parametrize(("deltas", "calls"), _CASES.values(), ids=_CASES)
def test_calls_are_the_same_however_they_are_sent(deltas: tuple[Any, ...], calls: tuple[Any, ...]) -> None:
    """Name and arguments of each call; every call has an id of its own."""
    answer = _gathered(*deltas)
    assert tuple((call.name, json.loads(call.arguments)) for call in answer.calls) == calls
    assert len({call.id for call in answer.calls}) == len(calls)
    assert all(call.id for call in answer.calls)


def test_two_calls_with_one_id_get_two() -> None:
    """Each answer to a call names one of them."""
    calls = _gathered(_call(index=0, id="x", name="f"), _call(index=1, id="x", name="g")).calls
    assert [call.name for call in calls] == ["f", "g"]
    assert calls[0].id != calls[1].id


def test_finish_reason_stop_with_calls_keeps_the_calls() -> None:
    """The calls count, not the word at the end."""
    assert [call.name for call in _gathered(_call(index=0, id="x", name="f"), finish="stop").calls] == ["f"]


def test_text_in_parts_and_reasoning() -> None:
    """Text may be a list of parts; reasoning is kept beside it, and sent back with calls only."""
    answer = _gathered(
        {"reasoning_content": "hm"},
        {"reasoning": "m"},
        {"content": [{"type": "text", "text": "a"}, {"type": "thinking", "thinking": "no"}]},
        {"content": "b"},
        {"content": None},
    )
    assert (answer.text, answer.reasoning) == ("ab", "hmm")
    assert answer.message() == {"role": "assistant", "content": "ab"}
    assert _gathered({"reasoning": "m"}, _call(index=0, name="f")).message()["reasoning_content"] == "m"


def test_usage_without_choices_is_no_fault() -> None:
    """Nor are choices that are empty."""
    gathering = Gathering()
    assert gathering.add({"usage": {"prompt_tokens": 3, "completion_tokens": "x"}}) == ""
    assert gathering.add({"choices": [], "usage": None}) == ""
    assert gathering.answer().usage == {"prompt_tokens": 3}
    assert not gathering.ended


def test_a_whole_message_is_an_answer() -> None:
    """From a server that sends no stream."""
    gathering = Gathering()
    assert gathering.add({"choices": [{"message": {"content": "all"}, "finish_reason": "length"}]}) == "all"
    assert gathering.ended
    assert gathering.answer().cut


def test_a_letter_in_two_pieces_is_one() -> None:
    """JSON may split an emoji between two chunks; what no store can hold is replaced."""
    gathering = Gathering()
    shown = [
        gathering.add({"choices": [{"delta": {"content": piece}}]}) for piece in ("a\ud83d", "\ude00b", "\0", "\ude00")
    ]
    assert shown == ["a", "😀b", "\ufffd", "\ufffd"]
    assert gathering.answer().text == "a😀b\ufffd\ufffd"


@pytest.mark.parametrize(
    "chunk",
    [
        [],
        "x",
        None,
        {},
        {"choices": 1},
        {"choices": "x"},
        {"choices": [1]},
        {"choices": [{"delta": {"tool_calls": [1]}}]},
    ],
)
def test_what_is_no_chunk_is_refused(chunk: object) -> None:
    """With a text that says what was wrong."""
    with pytest.raises(Broken, match=r"chunk|choice|call"):
        Gathering().add(chunk)


def test_calls_are_bounded() -> None:
    """An answer has at most so many."""
    with pytest.raises(Broken, match=f"more than {MAX_CALLS} tool calls"):
        _gathered(*(_call(index=at, name="f") for at in range(MAX_CALLS + 1)))


_KEYS = (
    "choices",
    "delta",
    "message",
    "content",
    "tool_calls",
    "function",
    "index",
    "id",
    "name",
    "arguments",
    "usage",
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=4),
    max_leaves=12,
)
_DELTA = st.dictionaries(st.sampled_from(_KEYS), _JSON, max_size=4)


@pytest.mark.slow
@given(st.lists(_JSON | st.builds(lambda delta: {"choices": [{"delta": delta}]}, _DELTA), max_size=4))
def test_any_chunks_make_an_answer_or_are_broken(chunks: list[Any]) -> None:
    """And an answer is JSON's values, in valid Unicode."""
    gathering = Gathering()
    try:
        for chunk in chunks:
            gathering.add(chunk)
    except Broken:
        return
    json.dumps(gathering.answer().message(), ensure_ascii=False).encode()
