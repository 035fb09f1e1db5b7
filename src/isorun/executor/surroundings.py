"""What a program finds around it beside its own names: its tools, and where logging, figures and stacks are changed.

Most programs want the same. That is made while the slot waits (`make`); at `Go` the others get theirs instead
(`suit`), with nothing left of the usual. Nothing here may depend on a program, nor run anything of it.
"""

import faulthandler
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from isorun.core.sent.context import RunContext
from isorun.executor import output, rules, stack
from isorun.executor.calls import proxies
from isorun.executor.calls.tool_stream import ToolStream
from isorun.executor.shown import figures

_Wanted = tuple[str, bool, bool, Mapping[str, Sequence[str]], Mapping[str, Sequence[str]]]
USUAL_TOOLS = {"exec_tools": list(rules.EXEC_TOOLS)}
#: Log mode, whether stacks are without the loader, whether figures are saved, the tools by alias, what is said of them.
USUAL: _Wanted = ("include_logging", True, True, USUAL_TOOLS, {})


def wanted(context: RunContext) -> _Wanted:
    """Of what is made ahead, what the program of *context* gets."""
    return (context.log_mode, context.traceback_remap, context.save_figures, context.tools, context.about)


class Surroundings:
    """The surroundings of the one program of this process. *noted*: see `figures.Figures`."""

    def __init__(self, views: stack.Views, out: str, noted: str) -> None:
        self._views, self._out, self._noted = views, out, noted
        self._undo: list[Callable[[], object]] = []
        self._made: _Wanted | None = None
        self._below = 0
        self.figures: figures.Figures | None = None
        self.tools: dict[str, ModuleType] = {}  # by alias

    def make(self, what: _Wanted, stream: ToolStream) -> None:
        """Make *what*, in an interpreter that has none of it."""
        log_mode, remap, save_figures, tools, about = what
        self._log(log_mode, stream)
        if save_figures:
            self.figures = figures.Figures(self._out, self._noted)
            self.figures.watch()
            self._undo.append(self.figures.unwatch)
        if remap:
            self._views.install()
            self._undo.append(self._views.remove)
            faulthandler.enable(file=rules.TRACE, all_threads=False)  # the host prints it, without the frames below
            self._undo.append(lambda: faulthandler.enable(file=rules.STDERR, all_threads=False))
        self.tools = proxies.install(tools, about)
        self._made = what

    def suit(self, context: RunContext, stream: ToolStream) -> bool:
        """Leave what was made, or make what the program of *context* wants in its place, and say so."""
        what, made = wanted(context), self._made
        if what == made:
            return False
        for alias in self.tools:
            del sys.modules[alias]
        if made is not None and what[:3] == made[:3]:  # most runs that are granted tools want nothing else otherwise
            self.tools, self._made = proxies.install(context.tools, context.about), what
            return True
        while self._undo:
            self._undo.pop()()
        self.figures = None
        self.make(what, stream)
        self.stand_on(self._below)
        return True

    def stand_on(self, below: int) -> None:
        """Let a RecursionError come at the depth that it has outside: *below* frames of ours are under a program's."""
        self._below = below
        if self._made is not None and self._made[1]:
            self._undo.append(stack.charge_nothing_for(below))
        else:
            sys.setrecursionlimit(sys.getrecursionlimit() + below)

    def _log(self, mode: str, stream: ToolStream) -> None:
        changed: Any = {name: getattr(logging, name) for name in ("lastResort", "basicConfig")}
        output.log_the_rest(mode, stream)

        def undo() -> None:
            for name, value in changed.items():
                setattr(logging, name, value)

        self._undo.append(undo)
