"""What a tool returns: written by its declared type, or refused when the bundle loads."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from isorun.core.errors import InvalidRequest
from isorun.executor.calls.agent_io_tools import ToolFailed
from isorun.supervisor.descriptor import load_descriptor
from isorun.supervisor.direct import direct_calls
from isorun.supervisor.registry import load_tools
from tests.bundles import write_bundle

IMPORTS = """
import collections, dataclasses, datetime, decimal, enum, io, ipaddress, pathlib, typing, uuid
import pydantic

class Plain:
    pass
"""
HEAD = f"""{IMPORTS}
import numpy, pandas

class Row(pydantic.BaseModel):
    id: int
    at: datetime.date | None = None

class Named(pydantic.BaseModel):
    inner: int = pydantic.Field(alias="in")
    secret: pydantic.SecretStr = pydantic.SecretStr("s3cret")

class Written(pydantic.BaseModel):
    price: decimal.Decimal
    @pydantic.field_serializer("price", when_used="json")
    def cents(self, price: decimal.Decimal) -> int:
        return int(price * 100)

class Holder(pydantic.BaseModel, arbitrary_types_allowed=True):
    table: pandas.DataFrame

@dataclasses.dataclass(slots=True)
class Point:
    x: float
    raw: bytes = b""

@dataclasses.dataclass
class Line:
    item: str = ""
    to_list: int = 0

class Code:
    @classmethod
    def __get_pydantic_core_schema__(cls, source, handler):
        from pydantic_core import core_schema
        write = core_schema.plain_serializer_function_ser_schema(lambda one: "code")
        return core_schema.no_info_plain_validator_function(lambda one: one, serialization=write)

class Color(enum.Enum):
    RED = "red"
"""
REMEDY = "give numbers, text, bytes, lists and dicts made of it"
PLAIN = f"isorun_bundle.x.Plain cannot be sent: {REMEDY}"
NO_NUMBER = "use None for a number that is missing"
#: How the result is declared, what the tool returns, and what a program gets.
SENT: dict[str, tuple[str, str, Any]] = {
    "a model": ("Row", "Row(id=1, at=datetime.date(2024, 1, 2))", {"id": 1, "at": "2024-01-02"}),
    "a list of models": ("list[Row]", "[Row(id=1)]", [{"id": 1, "at": None}]),
    "a model or None": ("Row | None", "Row(id=1)", {"id": 1, "at": None}),
    "a model behind Any": ("typing.Any", "{'row': Row(id=1)}", {"row": {"id": 1, "at": None}}),
    "by alias, as it is given": ("Named", "Named(**{'in': 3})", {"in": 3, "secret": "**********"}),
    "in JSON mode": ("Written", "Written(price='1.25')", {"price": 125}),
    "a serializer in the hint": (
        "list[typing.Annotated[decimal.Decimal, pydantic.PlainSerializer(float)]]",
        "[decimal.Decimal('0.5')]",
        [0.5],
    ),
    "a dataclass with bytes": ("Point", "Point(1.5, b'\\xff')", {"x": 1.5, "raw": b"\xff"}),
    "a dataclass that is not declared": ("dict", "{'at': Point(1.0)}", {"at": {"x": 1.0, "raw": b""}}),
    "date": ("datetime.date", "datetime.date(2024, 1, 2)", "2024-01-02"),
    "datetime": ("datetime.datetime", "datetime.datetime(2024, 1, 2, 3)", "2024-01-02T03:00:00"),
    "timedelta": ("datetime.timedelta", "datetime.timedelta(hours=1)", "PT1H"),
    "Decimal": ("decimal.Decimal", "decimal.Decimal('1.10')", "1.10"),
    "UUID": ("uuid.UUID", "uuid.UUID(int=3)", "00000000-0000-0000-0000-000000000003"),
    "Enum": ("Color", "Color.RED", "red"),
    "an address": ("ipaddress.IPv4Address", "ipaddress.IPv4Address('10.0.0.1')", "10.0.0.1"),
    "set": ("set[int]", "{1}", [1]),
    "set behind dict": ("dict", "{'a': {2, 1}, 'raw': b'x'}", {"a": [1, 2], "raw": b"x"}),
    "deque": ("collections.deque", "collections.deque([1, 2])", [1, 2]),
    "Path": ("pathlib.Path", "pathlib.Path('a/b')", "a/b"),
    "int keys": ("dict[int, str]", "{1: 'a'}", {"1": "a"}),
    "DataFrame": (
        "pandas.DataFrame",
        "pandas.DataFrame({'a': [1, 2], 'b': [0.5, float('nan')]})",
        [{"a": 1, "b": 0.5}, {"a": 2, "b": None}],
    ),
    "DataFrame of dates": (
        "pandas.DataFrame",
        "pandas.DataFrame({'t': pandas.to_datetime(['2024-01-02', None])})",
        [{"t": "2024-01-02T00:00:00"}, {"t": None}],
    ),
    "a table in a model": ("Holder", "Holder(table=pandas.DataFrame({'a': [1]}))", {"table": [{"a": 1}]}),
    "tables in a dict": ("dict[str, pandas.DataFrame]", "{'t': pandas.DataFrame({'a': [1]})}", {"t": [{"a": 1}]}),
    "an index with a name": (
        "pandas.DataFrame",
        "pandas.DataFrame({'a': [1, 2], 'b': [3, 4]}).set_index('a')",
        [{"a": 1, "b": 3}, {"a": 2, "b": 4}],
    ),
    "an index of texts": ("pandas.DataFrame", "pandas.DataFrame({'a': [1]}, index=['x'])", [{"index": "x", "a": 1}]),
    "rows that were chosen": ("pandas.DataFrame", "pandas.DataFrame({'a': [1, 2]})[1:]", [{"a": 2}]),
    "a Series by label": ("pandas.Series", "pandas.Series(['x', 'x', 'y']).value_counts()", {"x": 2, "y": 1}),
    "a label twice": (
        "pandas.Series",
        "pandas.Series([1, 2], index=['x', 'x'], name='n')",
        [{"index": "x", "n": 1}, {"index": "x", "n": 2}],
    ),
    "Timestamp": ("list[pandas.Timestamp]", "[pandas.Timestamp('2024-01-02')]", ["2024-01-02T00:00:00"]),
    "range": ("range", "range(2)", [0, 1]),
    "Collection": ("collections.abc.Collection[Row]", "[Row(id=1)]", [{"id": 1, "at": None}]),
    "Iterable": ("typing.Iterable[Row]", "(Row(id=1),)", [{"id": 1, "at": None}]),
    "a class that pydantic writes": ("list[Code]", "[Code()]", ["code"]),
    "Series": ("pandas.Series", "pandas.Series([1, 2])", [1, 2]),
    "array": ("numpy.ndarray", "numpy.array([[1, 2]])", [[1, 2]]),
    "numpy scalars": ("dict[str, int]", "{'n': numpy.int64(3), 'b': numpy.bool_(True)}", {"n": 3, "b": True}),
    "sent before: unchanged": ("Row", "{'id': 'not a row'}", {"id": "not a row"}),
    "sent before: a tuple": ("tuple[int, bytes]", "(1, b'x')", [1, b"x"]),
    "sent before: TypedDict": ("typing.TypedDict('T', {'a': int})", "{'a': 1}", {"a": 1}),
}
#: As above, with what the program is told.
REFUSED: dict[str, tuple[str, str, str]] = {
    "NaN": ("float", "float('nan')", f"value: nan cannot be sent: {NO_NUMBER}"),
    "NaN in a model": ("Point", "Point(float('nan'))", f"value.x: nan cannot be sent: {NO_NUMBER}"),
    "infinite": ("list", "[float('-inf')]", "value[0]: -inf cannot be sent: use None, or a text such as '-inf'"),
    "generator": (
        "typing.Any",
        "(n for n in range(3))",
        "value: generator cannot be sent: make a list of it with list(...)",
    ),
    "an object": (
        "list",
        "[Plain()]",
        f"value[0]: {PLAIN}",
    ),
    "complex of numpy": (
        "typing.Any",
        "{'z': numpy.clongdouble(1)}",
        f"value.z: numpy.clongdouble cannot be sent: {REMEDY}",
    ),
    "a file": (
        "dict",
        "{'f': io.StringIO()}",
        "value.f: _io.StringIO cannot be sent: read it, and give its text or bytes",
    ),
    "two keys that become one": (
        "dict",
        "{1: 'a', '1': 'b'}",
        "value: two keys become '1': keys must be str, and differ as text",
    ),
    "columns of one name": (
        "pandas.DataFrame",
        "pandas.DataFrame([[1, 2]], columns=['a', 'a'])",
        "value: two columns of the table have the same name: rename one",
    ),
    "NaT": ("list", "[pandas.NaT, b'x', {1}, Plain()]", f"value[3]: {PLAIN}"),
    "itself": ("typing.Any", "(l := [{1}], l.append(l))[0]", "value[1]: it contains itself"),
}  # fmt: skip


CASES = {**SENT, **REFUSED}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a program gets of each case, from one bundle: the result, or the text of the failure."""
    folder = tmp_path_factory.mktemp("results")
    tools = (
        f'\n@isorun.tool\ndef f{number}() -> {hint}:\n    """F."""\n    return {value}\n'
        for number, (hint, value, _) in enumerate(CASES.values())
    )
    bundle = write_bundle(folder / "bundle", x=HEAD + "".join(tools))

    async def call_all() -> dict[str, Any]:
        given: dict[str, Any] = {}
        async with direct_calls(bundle, folder, dict(os.environ)) as calls:
            for number, case in enumerate(CASES):
                try:
                    given[case] = await calls.call(f"x.f{number}")
                except ToolFailed as failure:
                    given[case] = str(failure)
        return given

    return asyncio.run(call_all())


@pytest.mark.parametrize("case", SENT)
def test_a_result_is_written_by_its_type(results: dict[str, Any], case: str) -> None:
    """Models, dates, tables and numbers of numpy come as JSON's types, bytes as bytes, and the rest unchanged."""
    assert results[case] == SENT[case][2]


@pytest.mark.parametrize("case", REFUSED)
def test_a_result_that_has_no_form_says_what_to_do(results: dict[str, Any], case: str) -> None:
    """The place, the whole name of the type, the remedy."""
    assert results[case] == f"the tool's result cannot be sent: {REFUSED[case][2]}"


FILE = "return the file's text or bytes, or write it with ToolContext.open_output and return its path"
NEVER: dict[str, tuple[str, str]] = {
    "generator": ("typing.Generator[int, None, None]", "return a list"),
    "iterator in a dict": ("dict[str, typing.Iterator[int]]", "return a list"),
    "async generator": ("collections.abc.AsyncIterator[int]", "return a list"),
    "coroutine": ("collections.abc.Coroutine[typing.Any, typing.Any, int]", "return a list"),
    "file": ("typing.TextIO", FILE),
    "binary file": ("io.BytesIO | None", FILE),
    "function": ("typing.Callable[[], int]", "return a value that was made, not what makes it"),
    "a class of its own": ("list[Plain]", "return a dataclass, a pydantic model, or a dict made of it (Una"),
}  # fmt: skip


@pytest.mark.parametrize("case", NEVER)
def test_a_type_that_can_never_be_sent_is_refused_at_load(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With file, line, tool, type and remedy; no call is made first."""
    hint, remedy = NEVER[case]
    source = IMPORTS + f'\n@isorun.tool\ndef f() -> {hint}:\n    """F."""\n'
    bundle = write_bundle(tmp_path / "bundle", x=source)
    line = 1 + source.splitlines().index("@isorun.tool") + 1
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "isorun_bundle.x", sys)  # so that it is taken out again
    with pytest.raises(InvalidRequest) as raised:
        load_tools(load_descriptor(bundle))
    told = str(raised.value)
    assert told.startswith(f"{bundle}/tools/x.py:{line}: x.f: its result, "), told
    assert f"can never be sent: {remedy}" in told


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_tool_with_a_yield_is_refused_at_load(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it declares, its call gives a generator."""
    bundle = write_bundle(tmp_path / "bundle", x=f'@isorun.tool\n{kind} f():\n    """F."""\n    yield 1\n')
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "isorun_bundle.x", sys)
    with pytest.raises(InvalidRequest, match=r"x\.py:2: x\.f: it has a yield, .*: return a list$"):
        load_tools(load_descriptor(bundle))


async def test_the_schema_has_the_result_and_the_defaults_of_enums(tmp_path: Path) -> None:
    """What the type of the result says, as it is written; a default of any type that has a form."""
    bundle = write_bundle(
        tmp_path / "bundle",
        x=HEAD
        + "\n@isorun.tool\n"
        + "def f(color: Color = Color.RED, day: datetime.date = datetime.date(2024, 1, 2)) -> list[Row | Line]:\n"
        + '    """F."""\n    return []\n',
    )
    async with direct_calls(bundle, tmp_path, dict(os.environ)) as calls:
        told = calls.tools["x.f"]
    parameters = told["parameters"]["properties"]
    assert (parameters["color"]["default"], parameters["day"]["default"]) == ("red", "2024-01-02")
    assert set(told["result"]["$defs"]) == {"Line", "Row"}
    assert (told["result"]["type"], set(told["result"]["$defs"]["Row"]["properties"])) == ("array", {"id", "at"})
