"""What the scripted model says next, from the messages alone."""

import ast
import json
from typing import Any

import pytest

from isorun.service.agent import told
from isorun.service.agent.script import programs
from isorun.service.agent.script.plays import CAN_PLAY, WHO, Line, next_line
from tests.unit.service.agent.agents import VIEWS

SYSTEM = {"role": "system", "content": "generic_tools.write_pdf"}
FILES = {"a.csv": 3}


def _after(*steps: tuple[str, str], asked: str = "demo", files: dict[str, int] | None = None) -> list[dict[str, Any]]:
    """A conversation in which the programs *steps* were run, each with what the model was told of it."""
    messages = [SYSTEM, told.asked(asked, FILES if files is None else files)]
    for at, (name, answer) in enumerate(steps):
        function = {"name": "f", "arguments": json.dumps({"prog_name": name})}
        messages.append({"role": "assistant", "content": "", "tool_calls": [{"id": str(at), "function": function}]})
        messages.append({"role": "tool", "tool_call_id": str(at), "content": answer})
    return messages


def _name(line: Line) -> str | None:
    return line.call["prog_name"] if line.call else None


_REPORTS = {name: told.report(view, 10_000) for name, view in VIEWS.items()}
_ANALYSED = (("analysis, first draft", _REPORTS["analysis, first draft"]), ("analysis", _REPORTS["analysis"]))
_CHARTED = (*_ANALYSED, ("chart", _REPORTS["chart"]))
_ALL = (*_CHARTED, ("report", _REPORTS["report"]))


@pytest.mark.parametrize("asked", ["What is love?", "hello", "", "database"])
def test_what_it_cannot_play_is_answered_with_what_it_can(asked: str) -> None:
    """And with the settings of a real model. It says that it is a script."""
    line = next_line([SYSTEM, told.asked(asked)])
    assert line == Line(CAN_PLAY)
    assert "a script, not a model" in CAN_PLAY
    assert "ISORUN_MODEL_URL, ISORUN_MODEL and ISORUN_MODEL_KEY" in CAN_PLAY
    assert next_line([]) == line


@pytest.mark.parametrize(
    ("asked", "steps", "then"),
    [
        ("Analyse it", (), "analysis, first draft"),
        ("demo", _ANALYSED[:1], "analysis"),
        ("analyze", _ANALYSED, None),
        ("a chart, please", _ANALYSED, "chart"),
        ("Draw a chart", _CHARTED, None),
        ("write report.pdf", _CHARTED, "report"),
        ("everything", _ALL, None),
    ],
)
def test_each_step_follows_the_one_before(asked: str, steps: Any, then: str | None) -> None:  # noqa: ANN401 - a table
    """As far as was asked for."""
    assert _name(next_line(_after(*steps, asked=asked))) == then


def test_a_later_turn_goes_on_from_what_was_done() -> None:
    """Without a table of its own, and from the beginning with another one."""
    done = [*_after(*_ANALYSED, asked="analyse"), {"role": "assistant", "content": "Done."}]
    assert _name(next_line([*done, told.asked("draw a chart")])) == "chart"
    assert _name(next_line([*done, told.asked("draw a chart", FILES)])) == "chart"
    assert _name(next_line([*done, told.asked("draw a chart", {"b.csv": 9})])) == "analysis, first draft"
    assert _name(next_line([*done, told.asked("analyse again")])) == "analysis, first draft"
    assert _name(next_line([*done, told.asked("here", {"b.csv": 9})])) == "analysis, first draft"
    assert next_line([*done, told.asked("and love?", FILES)]) == Line(CAN_PLAY)


def test_it_says_first_that_it_is_a_script() -> None:
    """Once a turn."""
    assert next_line(_after()).text.startswith(WHO)
    assert WHO not in next_line(_after(*_ANALYSED)).text


def test_it_reads_the_hint_and_the_output() -> None:
    """What it says was said by the check and by the program."""
    hint = VIEWS["analysis, first draft"]["result"]["error"]["hint"]
    assert hint in next_line(_after(*_ANALYSED[:1])).text
    printed = VIEWS["analysis"]["result"]["stdout"].splitlines()
    assert printed[1].startswith("Oslo: 1410")
    assert all(f"- {line}" in next_line(_after(*_ALL)).text for line in printed)


def test_without_a_table_it_makes_a_small_one() -> None:
    """And says so."""
    line = next_line(_after(files={}))
    assert line.call is not None
    assert "You gave me no table" in line.text
    assert 'Path("sales.csv").write_text' in line.call["code"]
    given = next_line(_after()).call
    assert given is not None
    assert "write_text" not in given["code"]
    assert 'Path("a.csv")' in given["code"]


def test_where_matplotlib_is_missing_it_draws_with_pillow() -> None:
    """One repair; a second failure is told."""
    missing = "hint: use other packages\nstatus: failed\n  | ModuleNotFoundError: No module named 'matplotlib'"
    assert _name(next_line(_after(*_ANALYSED, ("chart", missing)))) == "chart by hand"
    line = next_line(_after(*_ANALYSED, ("chart", missing), ("chart by hand", missing)))
    assert line.call is None
    assert line.text == (
        'I cannot go on, because I am a script: the program "chart by hand" did not end well. use other packages'
    )
    done = next_line(_after(*_ANALYSED, ("chart", missing), ("chart by hand", _REPORTS["chart"])))
    assert _name(done) == "report"


@pytest.mark.parametrize("answer", ["status: cancelled", told.NOT_ANSWERED, "Refused, nothing was run: full"])
def test_a_run_that_did_not_end_well_ends_the_play(answer: str) -> None:
    """With the first line of what it was told."""
    line = next_line(_after(("analysis, first draft", answer)))
    assert line.call is None
    assert line.text.endswith(f"did not end well. {answer}")


def test_without_the_tool_for_reports_it_says_so() -> None:
    """Instead of a program that cannot work."""
    messages = [{"role": "system", "content": "nothing"}, *_after(*_CHARTED)[1:]]
    assert next_line(messages).call is None
    assert "not granted generic_tools.write_pdf" in next_line(messages).text
    assert "offers no tool" in next_line(_after(), can_run=False).text


@pytest.mark.parametrize("table", ["a.csv", 'x"); import os; ("', "a\nb'''\"\"\".csv", "{1}.csv", "\\.csv"])
def test_a_name_of_a_table_is_a_name_in_every_program(table: str) -> None:
    """It ends no string: each program has the calls that it has with a plain name."""

    def calls(name: str) -> list[str]:
        made = [programs.analysis(name, sample=True, keeps_promise=kept) for kept in (True, False)]
        trees = [ast.parse(one["code"]) for one in (*made, programs.report(name))]
        return [type(node).__name__ for tree in trees for node in ast.walk(tree)]

    assert calls(table) == calls("a.csv")
