"""From the engine's word to an ending: who ended a container is named; a failure of ours is none."""

from dataclasses import replace

import pytest

from isorun.backends.docker.ending import AWAY, Word, exit_of
from isorun.core.outcome import Code, Exit, Status, Stop, classify

_OUTSIDE = "the container was ended from outside: "


def inspected(restarts: int = 0, **state: object) -> Word:
    """What the engine says of a container in that state."""
    return Word(inspected={"State": {"Running": False, "ExitCode": 0, **state}, "RestartCount": restarts})


KILLED, LOST = (Status.KILLED, Code.SIGNAL), (Status.LOST, Code.SANDBOX_LOST)


@pytest.mark.parametrize(
    ("word", "reason", "ending"),
    [
        (inspected(ExitCode=137), f"{_OUTSIDE}exit 137, not out of memory", KILLED),
        (inspected(ExitCode=143), f"{_OUTSIDE}exit 143, not out of memory", KILLED),
        (replace(inspected(ExitCode=137), memory_was_full=True), "", (Status.OUT_OF_MEMORY, Code.OUT_OF_MEMORY)),
        (Word(), f"{_OUTSIDE}it was removed (docker rm)", KILLED),
        (inspected(Running=True, Paused=True), f"{_OUTSIDE}it was paused (docker pause)", KILLED),
        (inspected(1, Running=True), f"{_OUTSIDE}the engine restarted it", KILLED),
        (inspected(Restarting=True), f"{_OUTSIDE}the engine restarted it", KILLED),
        (inspected(Running=True), f"{AWAY}, and came back", LOST),
        (Word(away="the Docker engine does not answer"), AWAY, LOST),
    ],
)
def test_an_ending_from_outside_has_its_word_and_its_reason(
    word: Word, reason: str, ending: tuple[Status, Code]
) -> None:
    """And our own reason to end the run comes before it."""
    exit_ = exit_of(word, has_own_kernel=False)
    assert exit_ is not None
    assert (exit_.outside, classify(exit_, None, None)) == (reason, ending)
    assert classify(exit_, Stop.DEADLINE, None) == (Status.TIMED_OUT, Code.TIMEOUT)


def test_where_a_program_can_end_its_own_kernel_nobody_outside_is_blamed() -> None:
    """Under gVisor a signal to init arrives."""
    assert exit_of(inspected(ExitCode=137), has_own_kernel=True) == Exit(signal=9)


@pytest.mark.parametrize("code", [0, 1, 70, 128, 255])
def test_a_container_that_ended_by_itself_is_no_ending_of_its_run(code: int) -> None:
    """init does not end before its last word: then it failed, unless a kernel of its own went with it."""
    assert exit_of(inspected(ExitCode=code), has_own_kernel=False) is None
    assert exit_of(inspected(ExitCode=code), has_own_kernel=True) == Exit(signal=9)


def test_nothing_is_over_that_may_still_run() -> None:
    """A daemon that is away says nothing of it, and what is paused waits."""
    assert Word().is_over
    assert inspected(ExitCode=137).is_over
    assert not Word(away="no answer").is_over
    assert not inspected(Running=True).is_over
    assert not inspected(Running=True, Paused=True).is_over
