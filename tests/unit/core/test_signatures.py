"""A tool as one line of Python, made of its schemas."""

import ast
import dataclasses
import datetime
import enum
import inspect
import uuid
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import pydantic
import pytest

import isorun
from isorun.core.signatures import about, description, signature
from isorun.executor.calls.proxies import Tool
from isorun.supervisor import registry
from isorun.supervisor.tool import Marks


class Color(enum.Enum):
    """Of a parameter with a default."""

    RED = "red"
    BLUE = "blue"


class Row(pydantic.BaseModel):
    """A model."""

    id: int
    at: datetime.date | None = None


@dataclasses.dataclass
class Tree:
    """A type that refers to itself."""

    value: int
    below: "list[Tree]"


def nothing() -> None:
    """F."""


def scalars(a: int, b: float, c: bool = True, d: str | None = None, e: bytes = b"") -> bytes:
    """F."""
    return b""


def named(color: Color = Color.RED, kind: Literal["x", "y"] = "x", day: datetime.date | None = None) -> Color:
    """F."""
    return Color.RED


def nested(rows: list[Row], by: dict[str, list[int]], pair: tuple[int, str], key: uuid.UUID) -> dict[str, Row]:
    """F."""
    return {}


def recursive(tree: Tree) -> list[Tree]:
    """F."""
    return []


def anything(value: Any, ctx: isorun.ToolContext, least: Annotated[int, pydantic.Field(ge=1)] = 1):  # type: ignore[no-untyped-def]  # noqa: ANN201, ANN401 - a tool without a hint
    """F."""


LINES: list[tuple[Callable[..., Any], str]] = [
    (nothing, "() -> None"),
    (scalars, "(*, a: int, b: float, c: bool = True, d: str | None = None, e: bytes = ...) -> bytes"),
    (
        named,
        "(*, color: Literal['red', 'blue'] = 'red', kind: Literal['x', 'y'] = 'x', day: date | None = None)"
        " -> Literal['red', 'blue']",
    ),
    (nested, "(*, rows: list[Row], by: dict[str, list[int]], pair: list, key: UUID) -> dict[str, Row]"),
    (recursive, "(*, tree: Tree) -> list[Tree]"),
    (anything, "(*, value: Any, least: int = 1) -> Any"),
]


def _described(function: Callable[..., Any]) -> Mapping[str, Any]:
    return registry.make_tool("x.f", function, Marks(), "x.py:1").described()


@pytest.mark.parametrize(("function", "line"), LINES)
def test_the_line_is_what_the_author_wrote(function: Callable[..., Any], line: str) -> None:
    """The context is not in it, an Enum is its values, and it is Python."""
    assert signature(_described(function)) == line
    ast.parse(f"def f{line}: ...")
    assert str(inspect.signature(Tool("x", "f", [line, "F."]))) == line  # type: ignore[arg-type]  # it is callable


def test_the_description_has_the_fields_of_objects() -> None:
    """A model's name in the line says nothing to who cannot see the class."""
    assert description(_described(nested)) == "F.\n\nRow: {'id': int, 'at': str | None}"


def test_what_is_told_has_a_bound() -> None:
    """Two hundred tools with long docstrings are not sent to every run: the first are told, cut, the others named."""
    one = {"description": "x" * 5000, "parameters": {}, "result": {}, "returns": ""}
    found = about({f"a.t{number}": one for number in range(200)})
    assert list(found) == [f"a.t{number}" for number in range(10)]
    assert {len(text) for _, text in found.values()} == {1500}


def test_a_tool_of_which_nothing_is_told_has_no_signature_of_its_own() -> None:
    """It is callable as before."""
    assert "params" in inspect.signature(Tool("x", "f")).parameters  # type: ignore[arg-type]  # it is callable
