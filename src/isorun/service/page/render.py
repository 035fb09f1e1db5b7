"""Pages as responses: the templates, what they are told, and the headers that keep a page to itself."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from isorun.core.text import one_line, printable
from isorun.service.page import shelf, words

#: It is one user's, and the next look must show what has happened since. Whatever else guards a page is guard.py's.
HEADERS = {"cache-control": "no-store"}


@cache
def environment() -> Environment:
    """The templates. Every value is escaped, and a name without a value is an error."""
    made = Environment(
        loader=PackageLoader("isorun.service.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"printable": printable, "line": one_line, "size": words.size, "moment": words.moment}
    made.globals |= {"address": shelf.address, "tone": words.tone, "static": shelf.version()}
    return made


def html(template: str, values: Mapping[str, Any]) -> str:
    """The text of *template* with *values*."""
    return environment().get_template(template).render(values)


def page(template: str, values: Mapping[str, Any], status: int = 200) -> HTMLResponse:
    """*template* with *values*, as a response."""
    return HTMLResponse(html(template, values), status, HEADERS)
