"""Figures of matplotlib's pyplot that are shown or left open are saved to out/ as figure-1.png, figure-2.png, ….

A program has no screen. A figure that the program has saved since it last drew on it is not saved again. Characters
that the usual font lacks are drawn with another installed font. Nothing here imports matplotlib: pyplot is changed when
the program, or a preload, has imported it.
"""

import functools
import importlib.machinery
import os
import sys
from collections.abc import Callable, Sequence
from types import CodeType, FunctionType, ModuleType
from typing import Any

_PYPLOT = "matplotlib.pyplot"
#: Fonts for what DejaVu lacks: Chinese, Japanese and Korean, then symbols and emoji, then Indic and other scripts.
FALLBACKS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "WenQuanYi Micro Hei", "Droid Sans Fallback"),
    *("Noto Sans Symbols2", "Symbola", "Noto Emoji"),
    *("Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Telugu", "Noto Sans Thai"),
)
#: The code of functions that stand in matplotlib's place. No traceback shows them.
HIDDEN: set[CodeType] = set()


class Figures:
    """The figures of one process, saved to the folder *out*; their names are noted in the file *noted*."""

    def __init__(self, out: str, noted: str) -> None:
        self._out, self._noted = out, noted
        self.pid = os.getpid()  # of the program
        self._undo: list[Callable[[], None]] = []

    def watch(self) -> None:
        """Change pyplot now if it is imported, else as soon as it is."""
        pyplot = sys.modules.get(_PYPLOT)
        if pyplot is None:
            finder = _Finder(self._change)
            sys.meta_path.insert(0, finder)
            self._undo.append(lambda: sys.meta_path.remove(finder))
        else:
            self._change(pyplot)

    def unwatch(self) -> None:
        """Leave pyplot as it was before `watch`. Called before the program starts, or never."""
        while self._undo:
            self._undo.pop()()

    def _change(self, pyplot: ModuleType) -> None:
        self._undo.append(_fall_back(sys.modules["matplotlib"], sys.modules["matplotlib.font_manager"]))
        show_before, save_before = pyplot.show, pyplot.Figure.savefig

        @functools.wraps(pyplot.show)
        def show(*_: object, **__: object) -> None:
            self.save()

        pyplot.show = show  # type: ignore[attr-defined]  # pyplot has it
        figure = pyplot.Figure
        savefig = figure.savefig

        def saved(self: Any, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - the types are matplotlib's
            result = savefig(self, *args, **options)
            self.stale = False  # what matplotlib calls a figure that was not drawn on since
            return result

        # A warning names the first place that is not matplotlib's: this function must be of its module and file.
        code = saved.__code__.replace(co_filename=savefig.__code__.co_filename)
        function = FunctionType(code, savefig.__globals__, savefig.__name__, None, saved.__closure__)
        HIDDEN.add(code)
        figure.savefig = functools.update_wrapper(function, savefig)

        def undo() -> None:
            pyplot.show, figure.savefig = show_before, save_before  # type: ignore[attr-defined]  # as above
            HIDDEN.discard(code)

        self._undo.append(undo)

    def save(self) -> None:
        """Save what is open, has something on it, and was not saved. A child of the program saves nothing."""
        pylab = sys.modules.get("matplotlib._pylab_helpers")
        if pylab is None or os.getpid() != self.pid:
            return
        for manager in pylab.Gcf.get_all_fig_managers():
            figure = manager.canvas.figure
            if figure.axes and figure.stale:
                name = self._free_name()
                figure.savefig(os.path.join(self._out, name))
                with open(self._noted, "a", encoding="utf-8") as file:
                    file.write(f"{name}\n")

    def _free_name(self) -> str:
        taken = set(os.listdir(self._out))
        number = 1
        while (name := f"figure-{number}.png") in taken:
            number += 1
        return name


def _fall_back(matplotlib: Any, font_manager: Any) -> Callable[[], None]:  # noqa: ANN401 - of a package that may be missing
    """Let the usual font fall back on those that are installed; what takes that back."""
    installed = {entry.name for entry in font_manager.fontManager.ttflist}
    there = [name for name in FALLBACKS if name in installed]
    changed: list[Any] = []
    for settings in (matplotlib.rcParams, matplotlib.rcParamsDefault) if there else ():
        if settings["font.family"] == ["sans-serif"]:
            settings["font.family"] = ["sans-serif", *there]
            changed.append(settings)

    def undo() -> None:
        for settings in changed:
            settings["font.family"] = ["sans-serif"]

    return undo


class _Finder:
    """Finds pyplot once, and has it changed when it is loaded."""

    def __init__(self, change: Callable[[ModuleType], None]) -> None:
        self._change = change

    def find_spec(
        self, name: str, path: Sequence[str] | None, _: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        if name != _PYPLOT:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                load(module)
                self._change(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]  # of this one loader
        return spec
