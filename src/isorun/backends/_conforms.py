"""mypy's proof that every backend still has the shape of `Backend`; nothing of it exists at run time."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isorun.backends.base import Backend
    from isorun.backends.fake import FakeBackend, Script, ScriptedBackend
    from isorun.backends.namespace import NamespaceBackend

    _fake: Backend = FakeBackend()
    _namespace: Backend = NamespaceBackend()
    _scripted: Backend = ScriptedBackend(Script())
