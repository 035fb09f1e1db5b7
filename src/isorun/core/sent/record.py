"""Frozen values whose classes are quick to make, for what every cold start imports.

`dataclasses` writes and compiles the methods of each class, 0.4 ms for one, and a cold `isorun run` needs the 43
kinds of `wire.messages` in the host and again in the sealed processes. Here the methods are written once, and read the
names of the fields. Decision 0015 has the figures. Everywhere else a dataclass is right.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing costs milliseconds of a cold start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar, Self, dataclass_transform
else:

    def dataclass_transform(**options: bool) -> Callable[[type], type]:
        """What a type checker is told; nothing when it runs."""
        return lambda made: made


_set = object.__setattr__


@dataclass_transform(kw_only_default=True, frozen_default=True)
class _RecordType(type):
    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> _RecordType:
        if any(getattr(base, "fields", None) for base in bases):
            raise TypeError(f"{name}: a record with fields has no subclasses")
        fields = dict(body.get("__annotations__", {}))
        defaults = {field: body.pop(field) for field in fields if field in body}
        own = {"__slots__": tuple(fields), "fields": fields, "_defaults": defaults}
        return super().__new__(cls, name, bases, {**body, **own})


class Record(metaclass=_RecordType):
    """A value with the annotated fields of its class: given by keyword, equal by type and values, never changed.

    As a dataclass that is frozen, keyword-only and has slots; but a class with fields has no subclasses.
    `fields`: the text of each annotation by its name, in order.
    """

    if TYPE_CHECKING:
        fields: ClassVar[dict[str, str]]
        _defaults: ClassVar[dict[str, object]]

    def __init__(self, **values: object) -> None:
        if len(values) != len(self.fields):
            values = self._completed(values)
        try:
            for name, value in values.items():
                _set(self, name, value)
        except AttributeError:
            self._completed(values)
            raise

    def _completed(self, values: dict[str, object]) -> dict[str, object]:
        completed, names = {**self._defaults, **values}, self.fields.keys()
        if completed.keys() != names:
            missing, unknown = sorted(names - completed.keys()), sorted(completed.keys() - names)
            raise TypeError(f"{type(self).__name__}: missing fields {missing}, unknown fields {unknown}")
        return completed

    def changed(self, **values: object) -> Self:
        """The same with other *values*."""
        return type(self)(**{**{name: getattr(self, name) for name in self.fields}, **values})

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} cannot be deleted")

    def _values(self) -> tuple[object, ...]:
        return tuple([getattr(self, name) for name in self.fields])

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.fields)})"
