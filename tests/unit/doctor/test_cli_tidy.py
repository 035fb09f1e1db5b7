"""Which leftovers nobody owns any more."""

import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from isorun.backends.namespace import orphans
from isorun.core.errors import CleanupFailed
from isorun.doctor.tidy import STAGE, TEMPORARY, Tidied, remove_stages, remove_temporary
from isorun.kernel.processes.owner import Owner
from sandbox_runner.namespace.bubblewrap import find_bubblewrap


@pytest.fixture
def dead() -> Owner:
    """A process of this machine that has ended."""
    with subprocess.Popen(["/bin/true"]) as gone:
        started = int(Path(f"/proc/{gone.pid}/stat").read_text().rpartition(")")[2].split()[19])
        gone.wait()
    return replace(Owner.of_this_process(), pid=gone.pid, started=started)


def _stage(place: Path, owner: object) -> Path:
    path = place / f"{STAGE}{owner}-x1_y2z"
    path.mkdir()
    return path


def test_only_the_stage_of_a_dead_host_is_removed(dead: Owner, tmp_path: Path) -> None:
    """A killed host leaves its staging folder; those of the living, here or elsewhere, stay, and so do strangers'."""
    gone = _stage(tmp_path, dead)
    here = Owner.of_this_process()
    for owner in (here, replace(dead, namespace=4711), replace(here, started=here.started), "nobody's"):
        _stage(tmp_path, owner) if not (tmp_path / f"{STAGE}{owner}-x1_y2z").exists() else None
    before = set(tmp_path.iterdir())
    assert remove_stages(tmp_path) == [gone]
    assert set(tmp_path.iterdir()) == before - {gone}


def test_what_is_not_an_empty_folder_stays(dead: Owner, tmp_path: Path) -> None:
    """Only an empty folder is ours for certain: links are not followed, files are not deleted."""
    full = _stage(tmp_path, dead)
    (full / "file").touch()
    (tmp_path / f"{STAGE}{dead}-link").symlink_to(full)
    assert remove_stages(tmp_path) == []
    assert (full / "file").exists()


def test_only_the_temporary_folder_of_a_dead_monitor_is_removed(dead: Owner, tmp_path: Path) -> None:
    """With all in it. A link is neither followed nor removed, and what it leads to stays."""
    gone, stays = (tmp_path / f"{TEMPORARY}{owner}-x1_y2z" for owner in (dead, Owner.of_this_process()))
    for folder in (gone, stays):
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "file").write_text("x")
    link = tmp_path / f"{TEMPORARY}{dead}-link"
    link.symlink_to(stays)
    assert remove_temporary(tmp_path) == [gone]
    assert set(tmp_path.iterdir()) == {stays, link}
    assert (stays / "deep" / "file").exists()


def test_a_number_that_came_again_is_another_process(dead: Owner) -> None:
    """Pids are used again; the start time tells them apart, and a name that is none is nobody's."""
    here = Owner.of_this_process()
    assert here.is_alive
    assert not replace(here, started=here.started - 1).is_alive
    assert not dead.is_alive
    assert Owner.parse(str(here)) == here
    assert [Owner.parse(text) for text in ("", "1-2", "0-2-3", "1-2-3-4", "a-2-3", "1-2-3\n")] == [None] * 6


def test_one_kind_that_cannot_be_cleaned_holds_up_no_other() -> None:
    """A daemon that is away must not keep runs from being removed."""

    def fails() -> list[str]:
        raise CleanupFailed("it stays")

    found = Tidied()
    found.take("removed_containers", fails)
    found.take("removed_runs", lambda: ["a"])
    assert found.gone == {"removed_containers": [], "removed_runs": ["a"]}
    assert found.problems == ["removed containers: it stays"]


@pytest.mark.parametrize("whose", ["dead", "ours", "elsewhere", "nobody", "spoken of"])
def test_the_jail_of_a_dead_host_is_ended_and_no_other(whose: str, dead: Owner) -> None:
    """A host that is killed while bubblewrap starts leaves one that waits for ever; a living host's is not touched.

    In another pid namespace its host may live, whatever has that number here. Who only names a mark is no jail.
    """
    here = Owner.of_this_process()
    owner = {"ours": here, "elsewhere": replace(dead, namespace=4711)}.get(whose, dead)
    mark = "HOME" if whose == "nobody" else f"isorun-owner:{owner}"
    command = [find_bubblewrap(), "--unsetenv", mark, "--dev-bind", "/", "/", "/bin/sleep", "60"]
    if whose == "spoken of":
        command = ["/bin/sh", "-c", "sleep 60; true", "bwrap", "--unsetenv", mark, "end"]
    with subprocess.Popen(command, start_new_session=True) as jail:
        try:
            command_line = Path(f"/proc/{jail.pid}/cmdline")
            while not command_line.read_bytes():
                pass  # the kernel tells it some microseconds after exec
            ended = orphans.end_orphans()
            if whose == "dead":  # it may have been ended by a session beside this one, which looks for the same
                assert jail.wait(10) == -9
            else:
                assert (jail.pid in ended, jail.poll()) == (False, None)
        finally:
            os.killpg(jail.pid, signal.SIGKILL) if jail.poll() is None else None


def test_a_jail_says_whose_it_is() -> None:
    """What the command line holds is read back as the owner."""
    assert orphans.owner_in(f"/a/bwrap\0--unsetenv\0{orphans.new_mark()}\0--uid\0".encode()) == Owner.of_this_process()
    assert orphans.owner_in(b"bwrap\0--unsetenv\0HOME\0") is None
