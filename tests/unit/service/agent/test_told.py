"""What the model is told: what you ask, what became of a run, and a history that any server takes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isorun.core.limits import Limits
from isorun.model import prompt_text
from isorun.service.agent import told
from tests.unit.service.agent.agents import BROKEN, KEPT


def test_the_prompt_names_the_tools_that_are_offered() -> None:
    """Not the one that `isorun.model` names by itself."""
    about = prompt_text(Limits(), "3.11", [], {})
    assert "the tool run_python" in about
    text = told.system_prompt(about, ["a", "b"])
    assert "run_python" not in text
    assert "Python programs with the tool a or b." in text


def test_the_names_of_files_are_told_on_a_line_each() -> None:
    """A name cannot begin a line of its own."""
    asked = told.asked("go\udc80", {"a.csv": 3, "b\n- c.csv (1 bytes)": 5})
    assert asked["content"] == f"go\ufffd\n\n{told.FILES}\n- a.csv (3 bytes)\n- b\\n- c.csv (1 bytes) (5 bytes)"
    assert asked["text"] == "go\ufffd"
    assert told.asked("go")["content"] == "go"


def test_a_report_is_the_whole_where_there_is_room() -> None:
    """Hints first, each once, then the report of the run as it is."""
    hint = BROKEN["result"]["error"]["hint"]
    assert BROKEN["result"]["items"][0]["hints"] == [hint]
    assert told.report(BROKEN, 10_000) == f"hint: {hint}\n{BROKEN['result']['report_text']}"
    assert told.report(KEPT, 10_000) == KEPT["result"]["report_text"]


@pytest.mark.parametrize(
    "view",
    [
        {"id": "e", "status": "cancelled", "result": None},
        {
            "id": "e",
            "status": "lost",
            "result": {"report_text": "", "error": {"message": "the host\nfell", "hint": ""}},
        },
    ],
)
def test_a_run_without_a_report_has_its_status(view: dict[str, Any]) -> None:
    """With the reason on one line, if there is one."""
    message = "\nthe host\\nfell" if view["result"] else ""
    assert told.report(view, 1000) == f"status: {view['status']}{message}"


def test_a_hint_is_one_line() -> None:
    """Names of files in it are the program's own."""
    view = {
        "status": "failed",
        "result": {"error": {"message": "m", "hint": "a\nstatus: ok"}, "report_text": "status: failed"},
    }
    assert told.report(view, 1000) == "hint: a\\nstatus: ok\nstatus: failed"


@given(st.text(max_size=300), st.integers(1, 300))
def test_a_cut_text_is_never_longer(text: str, most: int) -> None:
    """And a short one is not cut."""
    cut = told.cut(text, most)
    assert len(cut) <= most
    assert cut == text or len(text) > most


def test_a_cut_text_keeps_both_ends() -> None:
    """The status stands first, what was printed last."""
    cut = told.cut("a" * 1000 + "b" * 1000, 400)
    assert cut.startswith("a" * 200)
    assert cut.endswith("b" * 100)
    assert "2000 characters" in cut


def _call(*ids: str) -> dict[str, Any]:
    calls = [{"id": one, "type": "function", "function": {"name": "f", "arguments": "{}"}} for one in ids]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def _tool(one: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": one, "content": "t"}


_USER = {"role": "user", "content": "u"}
_SAID = {"role": "assistant", "content": "s"}


def _shape(messages: list[dict[str, Any]]) -> str:
    marks = {"user": "u", "assistant": "a", "tool": "t"}
    ours = {told.NOT_ANSWERED: "n", told.STOPPED: "s"}
    return "".join(ours.get(one["content"], marks[one["role"]]) for one in messages)


@pytest.mark.parametrize(
    ("history", "shape"),
    [
        ([], ""),
        ([_USER, _call("a"), _tool("a"), _SAID], "uata"),
        ([_USER, _call("a", "b"), _tool("a")], "uatns"),
        ([_USER, _call("a"), _USER, _SAID], "uansua"),
        ([_USER, _USER, _SAID, _SAID, _SAID], "usua"),
        ([_USER, _call("a"), _SAID], "uana"),
        ([_USER, _tool("x"), _call("a"), _tool("a"), _tool("a")], "uats"),
        ([_tool("x")], ""),
    ],
)
def test_every_call_has_its_answer_and_every_answer_its_call(history: list[dict[str, Any]], shape: str) -> None:
    """A turn may have ended anywhere."""
    assert _shape(told.sound(history, 10_000)) == shape


def test_texts_in_a_row_become_one() -> None:
    """What was broken off, and why: nothing of it is lost."""
    told_of_it = {"role": "assistant", "content": "It broke.", "ended": "model"}
    assert told.sound([_USER, _SAID, told_of_it], 100)[1:] == [{"role": "assistant", "content": "s\n\nIt broke."}]


def test_a_long_history_loses_its_oldest_turns_whole() -> None:
    """Half a turn would be an answer without a question."""
    turn = [_USER, _call("a"), _tool("a"), _SAID]  # five characters
    assert _shape(told.sound(turn * 3, 15)) == "uata" * 3
    assert _shape(told.sound(turn * 3, 14)) == "uata" * 2
    assert told.sound(turn * 3, 4) == []
