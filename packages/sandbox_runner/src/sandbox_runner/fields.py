"""How a field of a spec may be given: as None for our default, or as any path.

Pure. Which values can be used is `spec`'s to check.
"""

from __future__ import annotations

import os
from dataclasses import MISSING, Field, field, fields
from typing import TYPE_CHECKING, Any, Generic, TypeVar

T = TypeVar("T")


if TYPE_CHECKING:

    class Ours(Generic[T]):
        """A field that may be given as None, for our default, and is never None when it is read."""

        def __get__(self, instance: object, owner: type | None = None) -> T: ...

        def __set__(self, instance: object, value: T | None) -> None: ...

    class PathText:
        """A path, given as text or not, that is text when it is read; or None."""

        def __get__(self, instance: object, owner: type | None = None) -> str | None: ...

        def __set__(self, instance: object, value: str | os.PathLike[str] | None) -> None: ...

else:
    PathText = str | os.PathLike[str] | None

    class Ours:
        """See above: it is there for who reads the types alone."""

        def __class_getitem__(cls, kind: object) -> object:
            return kind | None


def ours(default: object, *, is_shown: bool = True) -> Any:  # noqa: ANN401 - as `dataclasses.field`
    """A field of `Ours` with that default; not *is_shown*: its value may be a secret, and `repr` leaves it out."""
    if isinstance(default, dict):
        return field(default_factory=dict, repr=is_shown)
    return field(default=default, repr=is_shown)


def fill(instance: Any) -> None:  # noqa: ANN401 - any dataclass
    """Put its default into each field of *instance*, which is being made, that was given as None."""
    for one in fields(instance):
        if getattr(instance, one.name) is None and (default := _default(one)) is not None:
            object.__setattr__(instance, one.name, default)


def as_text(instance: Any, name: str) -> None:  # noqa: ANN401 - any dataclass
    """Make the path in the field *name* of *instance*, which is being made, the text that it stands for."""
    given = getattr(instance, name)
    if isinstance(given, os.PathLike):
        object.__setattr__(instance, name, os.fspath(given))


def _default(one: Field[Any]) -> object:
    if one.default_factory is not MISSING:
        return one.default_factory()
    return None if one.default is MISSING else one.default
