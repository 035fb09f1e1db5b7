"""What cannot run here ends with the command that says why."""

import pickle

import pytest

from isorun.core.errors import IsorunError, Unavailable


@pytest.mark.parametrize("reason", ["bubblewrap is missing", "two\nlines", ""])
def test_it_ends_with_the_command_to_type(reason: str) -> None:
    """Once, also if it was sent to another process; the reason alone is there, too."""
    error = Unavailable(reason)
    assert str(error) == f"{reason}; run `isorun doctor`"
    assert error.reason == reason
    for again in (pickle.loads(pickle.dumps(error)), Unavailable(str(error))):
        assert (str(again), again.reason) == (str(error), reason)


@pytest.mark.parametrize(
    ("reason", "text"), [("no engine", "no engine; run"), ("is it on?", "is it on? run"), ("no.", "no. run")]
)
def test_what_docker_lacks_is_looked_for_with_docker(reason: str, text: str) -> None:
    """Without the option nobody would look at the engine; a sentence that has ended stays one."""
    error = Unavailable(reason, backend="docker")
    assert str(error) == f"{text} `isorun doctor --backend docker`"
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.reason, error.reason) == (str(error), reason, reason)


def test_other_errors_do_not() -> None:
    """They are no matter of the host."""
    assert str(IsorunError("as it is")) == "as it is"
