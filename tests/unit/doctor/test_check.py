"""A remedy is the text that people read, and what a machine can do of it."""

import json
from dataclasses import asdict

import pytest

from isorun.backends.remedy import Command, Export, Remedy, actions_of, by
from isorun.doctor import check as checks
from isorun.doctor.check import Row, check, failed, fine, not_applicable

OPEN, NAME = Command.of("chmod", "o+r", "/a b"), Export("ISORUN_CGROUP_PARENT", "isorun")


@check("a file")
def probe(*, there: bool | None) -> checks.Finding:
    if there is None:
        return not_applicable("nobody asked")
    return fine("it is there") if there else failed("it is not there", by(OPEN))


def test_a_check_gives_the_row_of_its_name() -> None:
    """Each of the three that a probe can say; what does not apply is no failure."""
    assert probe(there=True) == Row("a file", True, "it is there")
    assert probe(there=None) == Row("a file", True, "does not apply: nobody asked")
    assert probe(there=False) == Row("a file", False, "it is not there", "chmod o+r '/a b'")


def test_the_json_of_a_row_has_the_text_of_its_remedy() -> None:
    """What can be carried out is for `--fix`; who reads the JSON reads a text, as before."""
    told = {"name": "a file", "ok": False, "detail": "it is not there", "remedy": "chmod o+r '/a b'"}
    assert json.loads(json.dumps(asdict(probe(there=False)))) == told


def test_a_remedy_that_is_a_text_alone_has_no_action() -> None:
    """Nothing is guessed from words."""
    assert Row("a", False, "b", "chmod 0600 /etc/shadow").actions == ()
    assert probe(there=False).actions == (OPEN,)


def test_the_actions_of_several_remedies_are_done_once_each() -> None:
    """Three controllers lack one group: it is made once."""
    one = Remedy(f"{OPEN}; then: {NAME}", OPEN, NAME)
    assert actions_of(one, "a text", one, by(OPEN)) == (OPEN, NAME)


@pytest.mark.parametrize(
    ("has", "command"),
    [
        (("apt-get", "dnf"), (Command.of("apt-get", "install", "--yes", "bubblewrap", as_root=True),)),
        (("dnf",), (Command.of("dnf", "install", "--assumeyes", "bubblewrap", as_root=True),)),
        ((), ()),
    ],
)
def test_a_package_is_installed_by_what_the_machine_has(has, command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text names every way; the action is the one that can be carried out here."""
    monkeypatch.setattr(checks.shutil, "which", lambda name: name if name in has else None)
    remedy = checks.install("install it", "bubblewrap")
    assert (remedy, remedy.actions) == ("install it", command)


def test_what_is_typed_is_quoted() -> None:
    """A path with a blank stays one word of the shell."""
    assert str(Export("ISORUN_WORKSPACE_ROOT", "/a b")) == "export ISORUN_WORKSPACE_ROOT='/a b'"
