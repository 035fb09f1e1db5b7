"""What a notebook's cell has beside a plain program: its last value is shown, and so are matplotlib's figures.

Both become files of the run: `last-value.txt` and `figure-N.png`. The module that writes them is an input of the run,
and works inside of the walls. The code is looked at here as one short line, never as a whole.
"""

import ast
import re

VALUE, HTML, MODULE = "last-value.txt", "last-value.html", "isorun_cell"
_MOST_LINE = 400
#: Of the environment of such a run: matplotlib's way to show figures.
ENVIRONMENT = {"MPLBACKEND": f"module://{MODULE}"}
#: The module, as the program can import it.
SOURCE = f'''"""Shows figures and a last value, for clients that expect a notebook."""

import os

_OUT = os.environ.get("OUTPUT_DIR", ".")
_MOST = 200_000


def show(value):
    if value is not None:
        _write("{VALUE}", repr(value))
        as_html = getattr(value, "_repr_html_", None)
        if callable(as_html) and not isinstance(value, type) and isinstance(text := as_html(), str):
            _write("{HTML}", text)


def _write(name, text):
    with open(os.path.join(_OUT, name), "w", encoding="utf-8", errors="replace") as file:
        file.write(text[:_MOST])


def __getattr__(name):
    # Looked up by matplotlib alone: a program without it does not pay for it.
    if name not in ("FigureCanvas", "FigureManager"):
        raise AttributeError(name)
    import atexit

    from matplotlib.backend_bases import FigureManagerBase
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    class Manager(FigureManagerBase):
        shown = 0

        @classmethod
        def pyplot_show(cls, *args, **kwargs):
            from matplotlib import pyplot

            for number in pyplot.get_fignums():
                cls.shown += 1
                pyplot.figure(number).savefig(os.path.join(_OUT, f"figure-{{cls.shown}}.png"))
            pyplot.close("all")

    class Canvas(FigureCanvasAgg):
        manager_class = Manager

    atexit.register(Manager.pyplot_show)
    globals().update(FigureCanvas=Canvas, FigureManager=Manager)
    return globals()[name]
'''
_CONTINUED = re.compile(r"\\\s*\Z")


def shown(code: str) -> str:
    """*code*, so that the value of its last line is shown, if that line is an expression and nothing else."""
    body, newline, last = code.rstrip().rpartition("\n")
    if not _is_expression(last) or _CONTINUED.search(body):
        return code
    return f'{body}{newline}__import__("{MODULE}").show(({last}))\n'


def _is_expression(line: str) -> bool:
    # A line that ends a bracket of an earlier line does not parse alone. One that ends a text of three quotes may.
    if not line or len(line) > _MOST_LINE or line[0] in " \t\f" or "#" in line or "'''" in line or '"""' in line:
        return False
    try:
        compile(line, "", "eval", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
