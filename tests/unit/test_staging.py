"""Where root stages what the jail must see, and what this machine must have for the jail."""

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

import isorun
from isorun.backends import doctor, jail
from isorun.kernel.libc import has_contexts


@pytest.fixture
def shut(tmp_path: Path) -> Path:
    """A folder that is open itself, below one that only its owner may enter."""
    (tmp_path / "shut/open").mkdir(parents=True)
    (tmp_path / "shut").chmod(0o700)
    (tmp_path / "shut/open").chmod(0o777)
    return tmp_path / "shut/open"


def test_a_place_below_a_shut_folder_is_passed_over(shut: Path) -> None:
    """The unprivileged uid could not reach the sources there; the next place is taken."""
    assert jail.choose_staging_place([shut, Path("/tmp")]) == Path("/tmp")


def test_without_any_place_tmpdir_is_named(shut: Path) -> None:
    """The operator is told which setting to change."""
    with pytest.raises(isorun.Unavailable) as caught:
        jail.choose_staging_place([shut])
    said = f"others may not enter {shut}: set TMPDIR to a folder that everybody can reach (o+x)"
    assert str(caught.value) == said


def test_a_place_that_does_not_exist_is_passed_over(tmp_path: Path) -> None:
    """Not every machine has all of them."""
    assert jail.choose_staging_place([tmp_path / "none", Path("/tmp")]) == Path("/tmp")


def test_the_staging_folder_lies_where_it_was_chosen(shut: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With TMPDIR below a shut folder the folder is made elsewhere, and cleanup looks there too."""
    monkeypatch.setattr(tempfile, "tempdir", str(shut))
    with jail._staging_directory() as made:
        assert not made.startswith(str(shut))
        assert Path(made).parent in jail.staging_places()
    assert jail.staging_places()[0] == shut


@pytest.mark.root
def test_a_program_runs_with_tmpdir_in_a_shut_folder(shut: Path, tmp_path: Path, monkeypatch, require) -> None:
    """Root with a private TMPDIR gets a jail like everybody else."""
    monkeypatch.setattr(tempfile, "tempdir", str(shut))
    try:
        result = isorun.run("print(6 * 7)", settings=isorun.Settings(), timeout_s=10, workspace_root=tmp_path / "root")
    except isorun.Unavailable as error:
        if "Permission denied" in str(error) or "TMPDIR" in str(error):
            raise
        require("namespace", str(error))
    assert result.stdout == "42\n"
    assert os.listdir(shut) == []


def test_a_c_library_without_makecontext_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Doctor says it before a start fails for it; glibc has it."""
    assert has_contexts()
    assert not has_contexts(SimpleNamespace())
    check = doctor.check_libc(contexts=False)
    assert not check.ok
    assert check.detail.endswith(": no makecontext")
    assert check.remedy == "a Python that runs on glibc; musl (Alpine) has none"
    assert doctor.check_libc(contexts=True).detail.startswith("glibc 2.")


def test_the_jail_is_not_started_on_a_c_library_without_makecontext() -> None:
    """The reason is ours to give: inside, it would be an AttributeError of the template."""
    with pytest.raises(isorun.Unavailable) as caught:
        jail.require_contexts(SimpleNamespace())
    assert str(caught.value) == (
        "init needs glibc: this C library has no makecontext; use a Python that runs on glibc (musl has none)"
    )


def test_setup_compiles_what_the_jail_cannot() -> None:
    """Without bytecode each new jail would compile isorun again: its file system is read-only."""
    recipe = (Path(__file__).parents[2] / "Makefile").read_text()
    installed = recipe.index("-e packages/sandbox_runner -e .")
    assert recipe.index("-m compileall -q -x demo_programs src packages") > installed
