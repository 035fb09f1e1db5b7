"""What the zygote says of its preloads."""

import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import TextIO

import pytest

from isorun.executor.warm import preloads


def test_a_preload_that_fails_is_not_among_those_that_are_loaded() -> None:
    """Each name is told once: with its seconds, or with its reason."""
    loaded, failed = preloads.preload(["json", "nosuch"])
    assert list(loaded) == ["json"]
    assert failed == {"nosuch": "ModuleNotFoundError: No module named 'nosuch'"}


@pytest.mark.parametrize("works", [True, False])
def test_a_rehearsal_leaves_nothing_and_fails_for_itself(
    works: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A slot does with pandas what programs do, keeps no file of it, says nothing, and stands where that fails."""
    used = []

    class DataFrame:
        def __init__(self, columns: object) -> None:
            warnings.warn("not for the program", FutureWarning, stacklevel=1)

        def to_csv(self, file: TextIO) -> None:
            used.append(file.name)
            if not works:
                raise ValueError("a pandas that is broken")

    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=DataFrame))
    monkeypatch.setattr(preloads, "_SCRATCH", str(tmp_path / "scratch"))
    preloads.rehearse()
    assert used == [str(tmp_path / "scratch")]
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_what_is_not_imported_is_not_rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slot without pandas imports none for that."""
    monkeypatch.delitem(sys.modules, "pandas", raising=False)
    preloads.rehearse()
    assert "pandas" not in sys.modules
