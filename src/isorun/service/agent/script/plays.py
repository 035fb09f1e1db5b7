"""Which line comes next: from the messages of a conversation to what the scripted model says and calls.

Pure, and without memory: what was done is read from the messages, as a real model reads it. The script knows three
steps (analysis, chart, report). It does those that were asked for and are not done yet, mends its first draft after
reading the hint, and says so where it cannot go on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isorun.service.agent.script import programs
from isorun.service.agent.told import FILES

NAME = "scripted-demo"
STEPS = ("analysis", "chart", "report")
_ASKS = {
    "analysis": re.compile(r"\b(analy[sz]|table|csv|data\b|summar|total|add up)", re.IGNORECASE),
    "chart": re.compile(r"\b(chart|plot|draw|graph|picture|diagram)", re.IGNORECASE),
    "report": re.compile(r"\b(report|pdf|demo|everything)", re.IGNORECASE),
}
_TABLE = re.compile(r"^- (.+\.(?:csv|tsv|txt)) \(\d+ bytes\)$", re.IGNORECASE | re.MULTILINE)
_SAMPLE_NAME = "sales.csv"
_SHOWN_LINES = 8

WHO = f"I am {NAME}: a script, not a model. What I say is fixed; the programs are really run. "
CAN_PLAY = (
    f"I am {NAME}: a script, not a model, and I do not understand other questions. I can play this:\n\n"
    '- "Analyse the table": give me a CSV file, or I take a small one of mine.\n'
    '- "Draw a chart" of what was found.\n'
    '- "Write report.pdf" with the chart in it. Asked for first, I do all three.\n\n'
    "For a real model, the operator of this server sets ISORUN_MODEL_URL, ISORUN_MODEL and ISORUN_MODEL_KEY."
)


@dataclass(frozen=True, slots=True)
class Line:
    """What the model says in one answer; *call* holds the arguments of a run, None if it says only *text*."""

    text: str
    call: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class _Ran:
    """A program of the conversation, and what came of it."""

    name: str
    answer: str

    @property
    def step(self) -> str:
        return re.split("[, ]", self.name, maxsplit=1)[0]

    @property
    def ok(self) -> bool:
        return re.search(r"^status: ok$", self.answer, re.MULTILINE) is not None

    @property
    def hint(self) -> str:
        found = re.match(r"hint: (.*)", self.answer)
        return found[1] if found else self.answer.strip().partition("\n")[0]

    @property
    def printed(self) -> list[str]:
        return re.findall(r"^  \| (.*)$", self.answer, re.MULTILINE)[:_SHOWN_LINES]


def next_line(messages: Sequence[Mapping[str, Any]], *, can_run: bool = True) -> Line:
    """What comes after *messages*. *can_run*: whether the request offers a tool that runs programs."""
    asked_at = max((at for at, one in enumerate(messages) if one.get("role") == "user"), default=None)
    if asked_at is None:
        return Line(CAN_PLAY)
    table, given_at = _table(messages)
    last = _wanted(_text(messages[asked_at])) or (STEPS[0] if table and given_at == asked_at else None)
    if last is None:
        return Line(CAN_PLAY)
    if not can_run:
        return Line(f"{WHO}I can play nothing here, because the request offers no tool that runs programs.")
    now = _ran(messages[asked_at:])
    done = {ran.step for ran in _ran(messages[given_at:]) if ran.ok}
    if now and not now[-1].ok:
        return _after_failure(now[-1], table)
    steps = STEPS[: STEPS.index(last) + 1]
    left = [step for step in steps if step not in done]
    if not left and not now:
        left = [last]  # it was done before, and is asked for again
    if not left:
        return Line(_found(now, last))
    may_write = programs.WRITE_PDF in "".join(_text(one) for one in messages if one.get("role") == "system")
    return _step(left[0], table, begins=not now, may_write=may_write)


def can_play(asked: str) -> bool:
    """Whether the script knows what to do about a message."""
    return _wanted(asked) is not None


def _step(step: str, table: str, *, begins: bool, may_write: bool) -> Line:
    who = WHO if begins else ""
    if step == "analysis":
        sample = "" if table else " You gave me no table, so my program writes a small one first."
        text = f"{who}First I add up the table, and promise summary.csv with the columns total and share.{sample}"
        return Line(text, _analysis(table, keeps_promise=False))
    if step == "chart":
        return Line(f"{who}Now a chart of these totals: I promise chart.png.", programs.chart(by_hand=False))
    if not may_write:
        return Line(f"{who}I cannot write the report: programs here are not granted {programs.WRITE_PDF}.")
    text = (
        f"{who}Last comes the report. My program calls the tool {programs.WRITE_PDF}, which runs outside the sandbox."
    )
    return Line(text, programs.report(table or _SAMPLE_NAME))


def _after_failure(ran: _Ran, table: str) -> Line:
    if ran.step == "analysis" and ran.name != "analysis" and "share" in ran.hint:
        text = f'The check says: "{ran.hint}". I promised the column share and left it out, so I add it.'
        return Line(text, _analysis(table, keeps_promise=True))
    if ran.name == "chart" and "matplotlib" in ran.answer:
        text = "matplotlib is missing here, so I draw the bars with Pillow."
        return Line(text, programs.chart(by_hand=True))
    return Line(f'I cannot go on, because I am a script: the program "{ran.name}" did not end well. {ran.hint}')


def _analysis(table: str, *, keeps_promise: bool) -> dict[str, Any]:
    return programs.analysis(table or _SAMPLE_NAME, sample=not table, keeps_promise=keeps_promise)


def _found(now: Sequence[_Ran], last: str) -> str:
    files = {"analysis": "summary.csv", "chart": "chart.png", "report": "report.pdf"}
    made = [files[ran.step] for ran in now if ran.ok]
    lines = next((ran.printed for ran in now if ran.ok and ran.step == "analysis"), [])
    found = "".join(f"\n- {line}" for line in lines)
    more = {
        "analysis": 'Ask me to "draw a chart" next.',
        "chart": 'Ask me to "write report.pdf" next.',
        "report": "That is all that I can play.",
    }[last]
    return f"Done: {', '.join(made)}.{f' The program found:{chr(10)}{found}{chr(10)}{chr(10)}' if found else ' '}{more}"


def _wanted(asked: str) -> str | None:
    """The last of the steps that *asked* speaks of."""
    spoken = asked.partition(FILES)[0]
    return next((step for step in reversed(STEPS) if _ASKS[step].search(spoken)), None)


def _table(messages: Sequence[Mapping[str, Any]]) -> tuple[str, int]:
    """The table that was given last, empty if none was; and since which message it is that one."""
    table = line = ""
    since = 0
    for at, message in enumerate(messages):
        found = _TABLE.search(_text(message).partition(FILES)[2]) if message.get("role") == "user" else None
        if found and found[0] != line:  # a service may list all files each time
            table, line, since = found[1], found[0], at
    return table, since


def _ran(messages: Sequence[Mapping[str, Any]]) -> list[_Ran]:
    answers = {one.get("tool_call_id"): _text(one) for one in messages if one.get("role") == "tool"}
    calls = [call for one in messages for call in one.get("tool_calls") or ()]
    return [_Ran(_name(call), answers[call["id"]]) for call in calls if call.get("id") in answers]


def _name(call: Mapping[str, Any]) -> str:
    arguments = call["function"]["arguments"]
    if isinstance(arguments, str):
        arguments = json.loads(arguments)
    return str(arguments.get("prog_name", ""))


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or ())
