"""Which leftover folders nobody owns any more."""

import os
from pathlib import Path

from isorun.cli.tidy import STAGE, remove_all_stages, remove_stages

NOW = 2_000_000_000.0


def _stage(folder: Path, name: str, age_s: float) -> Path:
    path = folder / (STAGE + name)
    path.mkdir()
    os.utime(path, (NOW - age_s, NOW - age_s))
    return path


def test_a_stage_that_no_process_names_is_removed(tmp_path: Path) -> None:
    """A killed host leaves its staging folder; the next cleanup takes it away."""
    dead = _stage(tmp_path, "dead", 3600)
    assert remove_stages(tmp_path, [b"python\0-c\0x"], NOW) == [str(dead)]
    assert not dead.exists()


def test_the_stage_of_a_living_jail_stays(tmp_path: Path) -> None:
    """The command line of a jail names the folder that its mounts come from."""
    alive = _stage(tmp_path, "alive", 3600)
    assert remove_stages(tmp_path, [f"bwrap\0--ro-bind\0{alive}/0\0/usr".encode()], NOW) == []
    assert alive.is_dir()


def test_a_stage_that_was_just_made_stays(tmp_path: Path) -> None:
    """Between the making of the folder and the start of its jail no process names it."""
    fresh = _stage(tmp_path, "fresh", 1)
    assert remove_stages(tmp_path, [], NOW) == []
    assert fresh.is_dir()


def test_what_is_not_an_empty_folder_stays(tmp_path: Path) -> None:
    """Only an empty folder is ours for certain: links are not followed, files are not deleted."""
    full = _stage(tmp_path, "full", 3600)
    (full / "file").touch()
    os.utime(full, (NOW - 3600, NOW - 3600))
    (tmp_path / f"{STAGE}link").symlink_to(full)
    (tmp_path / "other").mkdir()
    assert remove_stages(tmp_path, [], NOW) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{STAGE}full", f"{STAGE}link", "other"]


def test_stages_are_looked_for_in_every_place(tmp_path: Path) -> None:
    """The host that died may have had another TMPDIR than we have."""
    places = [tmp_path / "one", tmp_path / "two"]
    for place in places:
        place.mkdir()
    dead = [_stage(place, "dead", 3600) for place in places]
    assert remove_all_stages([*places, tmp_path / "none"], [], NOW) == [str(path) for path in dead]
