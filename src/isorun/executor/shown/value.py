"""The value of a program's last line, if that is an expression: kept as a notebook keeps it.

The value's text, and the forms of it that a notebook would show, are written to files beside the program. The host
takes them as they are, and opens none.
"""

import ast
import os
import re
import types
from typing import Any

#: What the last expression is bound to, until it is taken away again.
NAME = "__isorun_value__"
#: A form, its file's ending, and its MIME type.
FORMS = (
    ("_repr_html_", "html", "text/html"),
    ("_repr_svg_", "svg", "image/svg+xml"),
    ("_repr_png_", "png", "image/png"),
)
TEXT = "txt"
MOST_TEXT = 64 << 10
MOST_FORM = 512 << 10
_FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
# The last lines of most programs, which have no value: it is not worth a millisecond to find that out.
_PLAIN = re.compile(rb"print\([^;]*\)|[A-Za-z_][\w.]*(\[[^]=]*\])? *=[^=;][^;]*")
_LONG = 1000  # items of a list that are shown


def compiled(source: bytes, path: str, *, keep: bool) -> types.CodeType:
    """The code of *source*; with *keep* it binds the value of its last expression to `NAME`."""
    tree: Any = source
    if keep and not _PLAIN.fullmatch(source.rstrip().rpartition(b"\n")[2]):
        tree = compile(source, path, "exec", flags=_FLAGS | ast.PyCF_ONLY_AST, dont_inherit=True)
        _bind_last(tree)
    return compile(tree, path, "exec", flags=_FLAGS, dont_inherit=True)  # type: ignore[no-any-return]  # compile with these flags gives a code object


def _bind_last(tree: ast.Module) -> None:
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr):
        return
    if len(tree.body) == 1 and isinstance(last.value, ast.Constant) and isinstance(last.value.value, str):
        return  # a docstring
    bound = ast.Assign(targets=[ast.Name(NAME, ast.Store())], value=last.value)
    tree.body[-1] = ast.fix_missing_locations(ast.copy_location(bound, last))


def keep(value: object, at: str) -> None:
    """Write the text of *value* and its other forms to files that begin with *at*; nothing for None."""
    if value is None:
        return
    _write(f"{at}.{TEXT}", _text(value).encode("utf-8", "replace")[:MOST_TEXT])
    for name, ending, _ in FORMS:
        form = getattr(type(value), name, None)
        shown = form(value) if callable(form) else None
        data = shown.encode("utf-8", "replace") if isinstance(shown, str) else shown
        if isinstance(data, bytes) and len(data) <= MOST_FORM:
            _write(f"{at}.{ending}", data)


def _text(value: object) -> str:
    """As `repr`, but of a long list, or a long text, its beginning: all of it could be more than memory holds."""
    if type(value) not in (list, tuple, set, frozenset, dict, str, bytes) or len(value) <= _LONG:  # type: ignore[arg-type]  # these have a length
        return repr(value)
    import reprlib  # for a long value only

    short = reprlib.Repr()
    short.maxlist = short.maxtuple = short.maxset = short.maxfrozenset = short.maxdict = _LONG
    short.maxstring = short.maxother = MOST_TEXT
    return short.repr(value)


def _write(path: str, data: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)
