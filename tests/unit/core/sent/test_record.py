"""Frozen values without generated code: what a dataclass does, a `Record` does."""

from __future__ import annotations

import pytest

from isorun.core.sent.record import Record


class Point(Record):
    """Of three, one with a default."""

    x: int
    y: int
    name: str = "p"


class Other(Record):
    """The same fields."""

    x: int
    y: int
    name: str = "p"


class Empty(Record):
    """No fields."""


def test_it_has_its_fields() -> None:
    """Given by keyword, in the order of the class, defaults where nothing is given."""
    point = Point(y=2, x=1)
    assert (point.x, point.y, point.name) == (1, 2, "p")
    assert repr(point) == "Point(x=1, y=2, name='p')"
    assert repr(Empty()) == "Empty()"
    assert Point.fields == {"x": "int", "y": "int", "name": "str"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"x": 1}, r"Point: missing fields \['y'\], unknown fields \[\]"),
        ({"x": 1, "y": 2, "z": 3}, r"Point: missing fields \[\], unknown fields \['z'\]"),
        ({"x": 1, "z": 2}, r"Point: missing fields \['y'\], unknown fields \['z'\]"),
    ],
)
def test_wrong_fields_are_named(values: dict[str, int], message: str) -> None:
    """Whatever is missing or too much."""
    with pytest.raises(TypeError, match=message):
        Point(**values)
    with pytest.raises(TypeError):
        Point(1, 2)


def test_it_cannot_be_changed() -> None:
    """Neither a field nor a name that it has not."""
    point = Point(x=1, y=2)
    with pytest.raises(AttributeError, match="Point is frozen: x cannot be set"):
        point.x = 3
    with pytest.raises(AttributeError, match="Point is frozen: z cannot be set"):
        point.z = 3
    with pytest.raises(AttributeError, match="Point is frozen: x cannot be deleted"):
        del point.x
    assert not hasattr(point, "__dict__")
    assert point.changed(x=3) == Point(x=3, y=2)
    assert point == Point(x=1, y=2)


def test_it_is_equal_by_type_and_values() -> None:
    """And equal values are one in a set."""
    assert Point(x=1, y=2) != Other(x=1, y=2)
    assert Point(x=1, y=2) != Point(x=1, y=3)
    assert Point(x=1, y=2) != (1, 2, "p")
    assert len({Point(x=1, y=2), Point(x=1, y=2, name="p"), Empty(), Empty()}) == 2


def test_a_record_with_fields_has_no_subclasses() -> None:
    """They would lose its fields."""
    with pytest.raises(TypeError, match="Point3: a record with fields has no subclasses"):
        type(Point)("Point3", (Point,), {"__annotations__": {"z": "int"}})
