"""What JSON has no form for, as it is sent all the same, and what is said of the rest."""

import collections
import datetime
import decimal
import enum
import io
import pathlib
import types
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy
import pandas
import pydantic
import pytest

from isorun.wire.conversion import look, plain
from isorun.wire.values import MAX_DEPTH, MAX_VALUES, Unfit

REMEDY = "give numbers, text, bytes, lists and dicts made of it"


class Size(enum.Enum):
    """An Enum whose values are no text."""

    SMALL = decimal.Decimal("0.5")


@dataclass
class Point:
    """A dataclass."""

    x: int
    label: object = None


class Row(pydantic.BaseModel):
    """A model."""

    at: datetime.time


class Rows(pydantic.RootModel[list[Row]]):
    """A model that is a list."""


class Named(pydantic.BaseModel):
    """A model whose field has another name outside, and a field that is called as a method of numpy."""

    inner: int = pydantic.Field(alias="in")
    item: str = ""


@dataclass
class Line:
    """A dataclass with such a field."""

    item: str = ""
    tolist: int = 0


class Attrs:
    """What attrs would make."""

    __attrs_attrs__ = (types.SimpleNamespace(name="a"),)

    def __init__(self) -> None:
        self.a = {1}


FORMS: dict[str, tuple[object, Any]] = {
    "np.int64": (numpy.int64(3), 3),
    "np.uint8": (numpy.uint8(200), 200),
    "np.float32": (numpy.float32(1.5), 1.5),
    "np.bool_": (numpy.bool_(True), True),
    "np.datetime64": (numpy.datetime64("2024-01-02T03:00", "ns"), "2024-01-02T03:00:00"),
    "np.timedelta64": (numpy.timedelta64(90, "s"), "P0DT90S"),
    "np.datetime64 that is missing": (numpy.datetime64("NaT"), None),
    "array of dates": (numpy.array(["2024-01-02"], "datetime64[ns]"), ["2024-01-02T00:00:00"]),
    "array": (numpy.eye(2, dtype=int), [[1, 0], [0, 1]]),
    "Timestamp": (pandas.Timestamp("2024-01-02"), "2024-01-02T00:00:00"),
    "Timestamp with a zone": (pandas.Timestamp("2024-01-02", tz="UTC"), "2024-01-02T00:00:00+00:00"),
    "NaT and NA": ([pandas.NaT, pandas.NA], [None, None]),
    "Categorical": (pandas.Categorical(["a", "b"]), ["a", "b"]),
    "Index": (pandas.Index([1, 2]), [1, 2]),
    "a row": (pandas.DataFrame({"a": [1]}).to_dict("records"), [{"a": 1}]),
    "date": (datetime.date(2024, 1, 2), "2024-01-02"),
    "timedelta below zero": (datetime.timedelta(seconds=-1.5), "-P0DT1.5S"),
    "Decimal": (decimal.Decimal("1E+2"), "1E+2"),
    "UUID": (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    "Path": (pathlib.PurePosixPath("a/b"), "a/b"),
    "Enum": (Size.SMALL, "0.5"),
    "dataclass": (Point(1, {2}), {"x": 1, "label": [2]}),
    "model": (Row(at=datetime.time(3)), {"at": "03:00:00"}),
    "model by alias": (Named(**{"in": 3}), {"in": 3, "item": ""}),
    "model that is a list": (Rows([Row(at=datetime.time(3))]), [{"at": "03:00:00"}]),
    "a field called item": ([Line("x")], [{"item": "x", "tolist": 0}]),
    "attrs": (Attrs(), {"a": [1]}),
    "set": ({3, 1, 2}, [1, 2, 3]),
    "set without an order": ({None}, [None]),
    "frozenset": (frozenset("b"), ["b"]),
    "range": (range(3), [0, 1, 2]),
    "deque": (collections.deque([{1}]), [[1]]),
    "keys of a dict": ({"a": 1}.keys(), ["a"]),
    "MappingProxyType": (types.MappingProxyType({"a": 1}), {"a": 1}),
    "keys": (
        {2: 1, 2.5: 2, None: 3, True: 4, datetime.date(2024, 1, 2): 5, numpy.int64(7): 6, Size.SMALL: 7},
        {"2": 1, "2.5": 2, "None": 3, "true": 4, "2024-01-02": 5, "7": 6, "0.5": 7},
    ),
    "bytes among others": ([b"x", bytearray(b"y"), {1}], [b"x", bytearray(b"y"), [1]]),
}


@pytest.mark.parametrize("case", FORMS)
def test_it_has_a_form(case: str) -> None:
    """JSON's types and bytes, and no others: what is a number stays one, what is missing is None."""
    value, expected = FORMS[case]
    made = plain(value)
    assert (made, type(made)) == (expected, type(expected))


UNFIT: dict[str, tuple[object, str, str]] = {
    "object": ({"a": [object()]}, ".a[0]", f"object cannot be sent: {REMEDY}"),
    "class of a package": ([numpy.clongdouble(1)], "[0]", f"numpy.clongdouble cannot be sent: {REMEDY}"),
    "complex": ({"a b": 1j}, "['a b']", f"complex cannot be sent: {REMEDY}"),
    "function": ([len], "[0]", "builtin_function_or_method cannot be sent: call it, and give what it returns"),
    "lambda": ([lambda: 1], "[0]", "function cannot be sent: call it, and give what it returns"),
    "iterator": ([iter([])], "[0]", "list_iterator cannot be sent: make a list of it with list(...)"),
    "file": ([io.BytesIO()], "[0]", "_io.BytesIO cannot be sent: read it, and give its text or bytes"),
    "NaN": ([numpy.float64("nan")], "[0]", "nan cannot be sent: use None for a number that is missing"),
    "NaN in an array": (
        numpy.array([1, numpy.nan]),
        "[1]",
        "nan cannot be sent: use None for a number that is missing",
    ),
    "infinite in a table": (
        pandas.DataFrame({"a": [float("inf")]}),
        "[0].a",
        "inf cannot be sent: use None, or a text such as 'inf'",
    ),
    "key": ({(1, 2): 3}, "", "keys must be str, got tuple: make a list of pairs of it"),
    "keys": ({1: 2, numpy.int64(1): 3, "1": 4}, "", "two keys become '1': keys must be str, and differ as text"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_it_has_none_and_the_remedy_is_told(case: str) -> None:
    """The place, the whole name, what to do."""
    value, path, reason = UNFIT[case]
    with pytest.raises(Unfit) as raised:
        plain(value)
    assert (raised.value.path, raised.value.reason) == (path, reason)


def _deep() -> object:
    made: object = {1}
    for _ in range(MAX_DEPTH):
        made = [made]
    return made


def _cyclic() -> object:
    point = Point(1)
    point.label = [point]
    return point


_WIDE = [[0] * 1000] * 1000


@pytest.mark.parametrize("walk", [plain, look])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (_deep(), f"nested deeper than {MAX_DEPTH} levels"),
        (_cyclic(), "it contains itself"),
        ([_WIDE] * 1000, f"more than {MAX_VALUES} values"),
    ],
)
def test_a_walk_has_an_end(walk: Callable[[object], object], value: object, reason: str) -> None:
    """A list that stands a thousand times in the next is refused at the bound, by both walks."""
    with pytest.raises(Unfit) as raised:
        walk(value)
    assert raised.value.reason == reason


def test_a_look_uses_nothing_up() -> None:
    """A generator that is refused has not been begun, so its author can still read it."""
    given = (n for n in [1])
    with pytest.raises(Unfit):
        look({"a": [given]})
    assert list(given) == [1]
