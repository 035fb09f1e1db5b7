"""What is made ahead for most programs leaves nothing behind where a program wants something else."""

import inspect
import logging
import socket
import sys
import traceback
import warnings

import pytest

from isorun.core.sent.context import RunContext
from isorun.executor import stack
from isorun.executor.calls.tool_stream import ToolStream
from isorun.executor.shown import figures
from isorun.executor.surroundings import USUAL, Surroundings, wanted
from tests.unit.forked import in_child
from tests.unit.records import CONTEXT

_PLACES = (
    *((logging, name) for name in ("lastResort", "basicConfig")),
    *((traceback, "walk_stack"), (inspect, "getouterframes"), (warnings, "_showwarnmsg")),
)
PLAIN = CONTEXT.changed(log_mode="print_only", traceback_remap=False, save_figures=False)


def _usual() -> RunContext:
    mode, remap, saved, tools, about = USUAL
    changed = {"log_mode": mode, "traceback_remap": remap, "save_figures": saved}
    return CONTEXT.changed(**changed, tools=tools, about=about)


def _surroundings() -> tuple[Surroundings, ToolStream]:
    views = stack.Views((), lambda name: False)
    return Surroundings(views, "/nowhere", "/nowhere/noted"), ToolStream(socket.socketpair()[0].detach())


def _state(around: Surroundings) -> list[object]:
    """What a program could tell the usual by."""
    changed = [id(getattr(module, name)) for module, name in _PLACES]
    aliases = sorted(name for name in ("exec_tools", "mine", "agent_io_tools") if name in sys.modules)
    finders = [type(finder).__name__ for finder in sys.meta_path if type(finder).__name__ == "_Finder"]
    handlers = sum(handler() is not None for handler in vars(logging)["_handlerList"])
    return [changed, aliases, finders, handlers, sorted(around.tools), around.figures is None]


@pytest.mark.parametrize(
    "other",
    [
        PLAIN,
        PLAIN.changed(tools={"mine": ["do"]}, about={"mine.do": ["()", "does"]}),
        _usual().changed(save_figures=False, traceback_remap=False, tools={}),
    ],
    ids=["plain", "own tools", "no tools"],
)
def test_nothing_of_the_usual_is_left(other: RunContext) -> None:
    """Made at once or in the place of the usual, the same is there."""

    def made(*, first_the_usual: bool) -> list[object]:
        around, stream = _surroundings()
        if first_the_usual:
            around.make(USUAL, stream)
        around.suit(other, stream)
        if other.log_mode == "include_logging":
            for name in ("lastResort", "basicConfig"):  # made anew each time: their ids say nothing
                setattr(logging, name, None)
        return _state(around)

    assert in_child(lambda: made(first_the_usual=True)) == in_child(lambda: made(first_the_usual=False))


def test_the_usual_is_kept_for_whoever_wants_it() -> None:
    """A program that wants the usual gets what was made ahead; tools that it is told of are made for it."""

    def kept() -> list[object]:
        around, stream = _surroundings()
        around.make(USUAL, stream)
        before, proxies = _state(around), around.tools
        again = around.suit(_usual(), stream)
        granted = around.suit(_usual().changed(about={"exec_tools.execute_code_python": ["()", "x"]}), stream)
        return [again, _state(around) == before, granted, around.tools is proxies]

    assert in_child(kept) == [False, True, True, False]


def test_what_is_wanted_is_all_that_a_context_can_change() -> None:
    """A field that one day changes what is made ahead is not forgotten in the comparison."""
    made_at_go = {"exec_id", "turn", "contract", "directories", "keep_value", "frame_bytes", "frame_values", "cpus"}
    made_at_go |= {"stdin", "given"}
    assert len(wanted(CONTEXT)) == len(USUAL) == len(CONTEXT.fields.keys() - made_at_go)


def test_pyplot_is_as_it_was() -> None:
    """Also where it was imported before: its functions, and the fonts it looks in."""

    def same() -> list[bool]:
        from matplotlib import pyplot, rcParams
        from matplotlib.figure import Figure

        def look() -> list[object]:
            return [pyplot.show, Figure.savefig, list(rcParams["font.family"]), set(figures.HIDDEN)]

        before = look()
        around, stream = _surroundings()
        around.make(USUAL, stream)
        changed = look()
        around.suit(PLAIN, stream)
        return [changed[:2] != before[:2], look() == before]

    assert in_child(same) == [True, True]
