"""ATTACKS, artifacts: a folder that runs are saved to, in which somebody has put links.

A program cannot reach the folder. Who can is another user, or an earlier program whose files were unpacked there. The
controls copy the same files as `shutil.copytree` does.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import isorun
from tests.escapes.attacking import attack

pytestmark = pytest.mark.usefixtures("unharmed")
CODE = "import os; os.makedirs('sub'); open('a', 'w').write('theirs'); open('sub/b', 'w').write('theirs')"


def _file(to: Path, outside: Path) -> None:
    (to / "a").symlink_to(outside / "a")


def _dangling(to: Path, outside: Path) -> None:
    (to / "a").symlink_to(outside / "new")


def _hard(to: Path, outside: Path) -> None:
    (to / "a").hardlink_to(outside / "a")


def _folder(to: Path, outside: Path) -> None:
    (to / "sub").symlink_to(outside)


@pytest.mark.parametrize("plant", [_file, _dangling, _hard, _folder])
def test_a_link_in_the_folder_leads_no_copy_out_of_it(
    sealed: isorun.SyncRuntime, tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    """A link in a file's place is replaced; one in a folder's place is told by name. Nothing beyond it changes."""

    def planted(name: str) -> tuple[Path, Path]:
        to, outside = tmp_path / name / "to", tmp_path / name / "outside"
        to.mkdir(parents=True)
        outside.mkdir()
        for file in ("a", "b"):
            (outside / file).write_text("mine")
        plant(to, outside)
        return to, outside

    def texts(folder: Path) -> dict[str, str]:
        return {path.name: path.read_text() for path in folder.iterdir()}

    untouched = {"a": "mine", "b": "mine"}
    to, outside = planted("naive")
    (tmp_path / "out/sub").mkdir(parents=True)
    for file in ("out/a", "out/sub/b"):
        (tmp_path / file).write_text("theirs")
    shutil.copytree(tmp_path / "out", to, dirs_exist_ok=True)
    assert texts(outside) != untouched  # the control

    to, outside = planted("safe")
    if plant is _folder:
        with pytest.raises(isorun.SetupFailed, match=r"^save_to: sub/b: a folder on its way is a link"):
            attack(sealed, CODE, save_to=to)
    else:
        assert attack(sealed, CODE, save_to=to).ok
        assert (to / "sub/b").read_text() == "theirs"
    assert texts(outside) == untouched
    assert not (to / "a").is_symlink()
    assert (to / "a").read_text() == "theirs"
