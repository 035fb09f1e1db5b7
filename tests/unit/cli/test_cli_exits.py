"""The exit code of every error of ours."""

from isorun.cli.exits import EXIT, exit_code
from isorun.core import errors
from isorun.core.errors import IsorunError, SetupFailed
from isorun.core.result import RunFailed


def _below(kind: type) -> set[type]:
    return {kind}.union(*map(_below, kind.__subclasses__()))


def test_every_error_has_an_exit_code() -> None:
    """The table is total; RunFailed is a run's outcome, which the CLI never raises. A kind of one has that one's.

    What the service raises of its own it answers over HTTP, and none of it reaches the command line.
    """
    found = {kind for kind in _below(IsorunError) if kind.__module__.startswith("isorun.")}
    ours = {kind for kind in found if not kind.__module__.startswith("isorun.service.")}
    assert {kind for kind in ours if not issubclass(kind, tuple(EXIT))} == {IsorunError, RunFailed}
    assert set(EXIT) == {kind for kind in ours if IsorunError in kind.__bases__} - {RunFailed}


def test_exit_codes_are_those_of_the_table() -> None:
    """Programs that call the CLI rely on these numbers."""
    named = {kind.__name__: code for kind, code in EXIT.items()}
    assert named == {"InvalidRequest": 2, "Unavailable": 4, "SetupFailed": 70, "CleanupFailed": 71, "Misused": 70}
    assert exit_code(SetupFailed("step", "reason")) == 70
    assert exit_code(errors.Unavailable("no")) == 4
