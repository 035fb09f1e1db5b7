"""Values that JSON has no form for, in the form that people expect of them: dates as text, sets as lists, and so on.

Asked only for what `Packer` has refused, so that what can be sent is sent unchanged. Nothing here
imports a package: a value of numpy, pandas, polars or pydantic is known by the methods it has.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import ipaddress
import os
import uuid
from collections import deque
from collections.abc import Collection, Mapping, Sequence, Set
from math import isfinite, isnan

from isorun.wire.values import MAX_DEPTH, MAX_VALUES, Unfit

TYPE_CHECKING = False  # typing costs milliseconds of a cold start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_PLAIN = (str, int, bool, type(None))
_BYTES = (bytes, bytearray, memoryview)
_TEXTS = (decimal.Decimal, uuid.UUID, ipaddress.IPv4Address, ipaddress.IPv6Address)
_LISTS = (Sequence, Set, deque)
_FORMED = (datetime.date, datetime.time, datetime.timedelta, os.PathLike, Mapping, *_TEXTS, *_LISTS)
_MISSING = ("NAType", "NaTType")  # of pandas: a value that is not there
_LISTING = ("to_pylist", "tolist", "to_list")  # of pyarrow; of numpy and pandas; of polars
_REMEDIES = (
    ("read", "read it, and give its text or bytes"),
    ("__await__", "await it first"),
    ("__anext__", "make a list of it with [item async for item in ...]"),
    ("__next__", "make a list of it with list(...)"),
    ("__call__", "call it, and give what it returns"),
)
_REMEDY = "give numbers, text, bytes, lists and dicts made of it"


def full_name(kind: type) -> str:
    """Its name with its module: `numpy.bool` is not `bool`."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def refusal(kind: type) -> str:
    """That a *kind* cannot be sent, and what to do."""
    has = {name for base in kind.__mro__ for name in vars(base)}  # hasattr would find what all classes have
    remedy = next((text for method, text in _REMEDIES if method in has), _REMEDY)
    return f"{full_name(kind)} cannot be sent: {remedy}"


def is_known(kind: type) -> bool:
    """Whether values of the class *kind* have a form, known by its methods."""
    if dataclasses.is_dataclass(kind) or _is_model(kind) or issubclass(kind, enum.Enum):
        return False  # a field or a member may be called `item`
    return any(callable(getattr(kind, name, None)) for name in ("item", "to_dicts", *_LISTING)) or _is_table(kind)


def has_form(kind: type) -> bool:
    """Whether values of the class *kind* have a form by what they are: dates, texts, mappings, lists."""
    return kind is Collection or issubclass(kind, _FORMED)


def _is_model(kind: type) -> bool:
    return isinstance(getattr(kind, "model_fields", None), dict) and hasattr(kind, "model_dump")


def _is_table(kind: type) -> bool:
    return hasattr(kind, "columns") and hasattr(kind, "to_dict")


def plain(value: object) -> Any:  # noqa: ANN401 - JSON's types and bytes
    """*value* as JSON's types and bytes. Raises `Unfit` with the place and the remedy."""
    return _Converter().convert(value)


def look(value: object) -> bool:
    """Whether *value* holds what JSON text would lose: bytes, or a NaT; reads nothing that could be used up.

    Raises `Unfit` for what no conversion should begin with: a generator, a value that contains
    itself, more values than a message may have, two keys that would become one.
    """
    return _Looker().look(value)


class _Walk:
    """What is inside what, and how much there was."""

    def __init__(self) -> None:
        self._open: list[int] = []
        self._count = 0

    def _enter(self, value: object) -> None:
        if id(value) in self._open:
            raise Unfit("it contains itself")
        if len(self._open) == MAX_DEPTH:
            raise Unfit(f"nested deeper than {MAX_DEPTH} levels")
        self._open.append(id(value))

    def _take(self) -> None:
        self._count += 1
        if self._count > MAX_VALUES:
            raise Unfit(f"more than {MAX_VALUES} values")

    def _each(self, items: Iterator[tuple[str, object]], do: Callable[[object], Any]) -> Iterator[Any]:
        """What *do* gives for each of *items*, a step of the path and a value."""
        for step, item in items:
            try:
                yield do(item)
            except Unfit as unfit:
                unfit.path = step + unfit.path
                raise


class _Looker(_Walk):
    def look(self, value: object) -> bool:
        self._take()
        if isinstance(value, _BYTES) or type(value).__name__ in _MISSING:
            return True
        if isinstance(value, float):
            _finite(value)
        if isinstance(value, (*_PLAIN, float)):
            return False
        if isinstance(value, dict):
            named(value)
            return self._inside(value, zip(map(_step, value), value.values(), strict=True))
        if isinstance(value, (list, tuple, set, frozenset)):
            return self._inside(value, _numbered(value))
        if hasattr(type(value), "__next__") or hasattr(type(value), "__anext__"):
            raise Unfit(refusal(type(value)))
        if (fields := fields_of(value)) is not None:
            return self._inside(value, ((f".{name}", item) for name, item in fields.items()))
        return False

    def _inside(self, value: object, items: Iterator[tuple[str, object]]) -> bool:
        self._enter(value)
        found = [has for has in self._each(items, self.look) if has]
        self._open.pop()
        return bool(found)


class _Converter(_Walk):
    def convert(self, value: object) -> object:
        self._take()
        if isinstance(value, enum.Enum) and not isinstance(value, (str, int)):
            return self.convert(value.value)
        if isinstance(value, (*_PLAIN, *_BYTES)):
            return value
        if isinstance(value, float):
            return _finite(value)
        if isinstance(value, (dict, list, tuple)):
            return self._container(value)
        if type(value).__name__ in _MISSING:
            return None
        if (text := as_text(value)) is not None:
            return text
        return self._container(opened(value))

    def _container(self, value: object) -> object:
        if not isinstance(value, (dict, list, tuple)):
            return self.convert(value)
        self._enter(value)
        made: object
        if isinstance(value, dict):
            items = named(value)
            made = dict(zip(items, self._each(((_step(k), v) for k, v in items.items()), self.convert), strict=True))
        else:
            made = list(self._each(_numbered(value), self.convert))
        self._open.pop()
        return made


def _numbered(items: Any) -> Iterator[tuple[str, object]]:  # noqa: ANN401 - what can be iterated
    return ((f"[{number}]", item) for number, item in enumerate(items))


def _step(key: object) -> str:
    return f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r:.80}]"


def _finite(value: float) -> float:
    if isfinite(value):
        return value
    if isnan(value):
        raise Unfit(f"{value} cannot be sent: use None for a number that is missing")
    raise Unfit(f"{value} cannot be sent: use None, or a text such as '{value}'")


def named(items: Mapping[Any, object]) -> dict[str, Any]:
    """*items* with text for keys: `1` becomes "1". Raises `Unfit` for a key without a text, or if two become one."""
    made: dict[str, Any] = {}
    for key, item in items.items():
        name = _name(key)
        if name in made:
            raise Unfit(f"two keys become {name!r}: keys must be str, and differ as text")
        made[name] = item
    return made


def _name(key: object) -> str:
    if isinstance(key, enum.Enum):
        key = key.value
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, bool):
        return {None: "None", True: "true", False: "false"}[key]  # as pydantic has it
    if isinstance(key, (int, float)):
        return str(key)
    if hasattr(type(key), "item") and not isinstance(key := opened(key), (dict, list, tuple)):
        return _name(key)
    if (text := as_text(key)) is not None:
        return text
    raise Unfit(f"keys must be str, got {full_name(type(key))}: make a list of pairs of it")


def as_text(value: object) -> str | None:
    """The text of what JSON writes as a text: dates, times, numbers with all their digits, ids, paths; else None."""
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return _duration(value)
    if isinstance(value, _TEXTS):
        return str(value)
    if isinstance(value, os.PathLike):
        path = os.fspath(value)
        return path if isinstance(path, str) else os.fsdecode(path)
    return None


def _duration(value: datetime.timedelta) -> str:
    """As ISO 8601 has it, which is what pydantic writes and reads."""
    whole = abs(value)
    fraction = f".{whole.microseconds:06}".rstrip("0") if whole.microseconds else ""
    return f"{'-' if value < datetime.timedelta() else ''}P{whole.days}DT{whole.seconds}{fraction}S"


def opened(value: Any) -> Any:  # noqa: ANN401 - values of any package
    """One step of the way: the dict, list or number that *value* is, or holds. Raises `Unfit`."""
    kind = type(value)
    if _is_model(kind):
        return value.model_dump(by_alias=True)  # as its author has it written, and as it is read again
    if (fields := fields_of(value)) is not None:
        return fields
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Set):
        return _in_order(value)
    if isinstance(value, _LISTS):
        return list(value)
    if is_known(kind):
        made = _of_package(value)
        if type(made) is not kind:
            return made
    raise Unfit(refusal(kind))


def fields_of(value: Any) -> dict[str, Any] | None:  # noqa: ANN401 - values of any package
    """The fields of a dataclass, a pydantic model or an attrs object; None for anything else."""
    kind = type(value)
    if dataclasses.is_dataclass(kind):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(kind)}
    if _is_model(kind):
        return {**vars(value), **(getattr(value, "__pydantic_extra__", None) or {})}
    if hasattr(kind, "__attrs_attrs__"):
        return {field.name: getattr(value, field.name) for field in kind.__attrs_attrs__}
    return None


def _in_order(items: Set[Any]) -> list[Any]:
    try:
        return sorted(items)  # the same set is the same list, also in another process
    except TypeError:
        return list(items)


def _of_package(value: Any) -> Any:  # noqa: ANN401 - values of any package
    if _is_table(type(value)):
        return _records(value)
    if hasattr(value, "index") and hasattr(value, "to_frame") and hasattr(value, "tolist"):
        return _series(value)
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind in ("m", "M"):  # nanoseconds would become an int
        value = value.astype(f"{kind}8[us]")
    for name in _LISTING:
        if hasattr(value, name):
            return getattr(value, name)()
    return value.item() if hasattr(value, "item") else value


def _has_labels(index: Any) -> bool:  # noqa: ANN401 - of pandas
    """Whether *index* says more than the number of the row: it has a name, or is made of texts or dates."""
    return any(name is not None for name in index.names) or index.dtype.kind not in ("i", "u")


def _series(value: Any) -> Any:  # noqa: ANN401 - of pandas
    """A list, or a dict by label as `value_counts()` has them; records where a label stands twice or has parts."""
    if not _has_labels(value.index):
        return [_cell(item) for item in value.tolist()]
    if not value.index.is_unique or hasattr(value.index, "levels"):
        return _records(value.reset_index())
    return dict(zip(value.index.tolist(), map(_cell, value.tolist()), strict=True))


def _records(frame: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - a DataFrame of pandas or polars
    """One dict per row; an index with labels is a column; a missing cell becomes None."""
    if hasattr(frame, "to_dicts"):
        return [{name: _cell(item) for name, item in row.items()} for row in frame.to_dicts()]
    if _has_labels(frame.index):
        frame = frame.reset_index()
    columns = list(frame.columns)
    if len(set(columns)) != len(columns):
        raise Unfit("two columns of the table have the same name: rename one")
    return [{name: _cell(item) for name, item in row.items()} for row in frame.to_dict(orient="records")]


def _cell(value: Any) -> Any:  # noqa: ANN401 - of a table
    return None if isinstance(value, float) and isnan(value) else value
