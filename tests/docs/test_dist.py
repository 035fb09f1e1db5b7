"""The wheels, as they are built and as a stranger installs them: outside the checkout, as an ordinary user.

Needs pip's index, as `make setup` does: the wheels of the dependencies are fetched by whoever runs the
tests, with that user's own configuration and cache. The ordinary user then installs from folders alone.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.docs.building import EPOCH, build, wheel_of

pytestmark = pytest.mark.any_user

ROOT = Path(__file__).parents[2]
BUNDLE = "examples/bundles/with-isoruntime/"
IMAGE = "deployment/docker/py-code-exec/"
UNTRACKED = shutil.ignore_patterns(".git", ".venv", "dist", "__pycache__", ".*_cache", ".hypothesis")
NEEDED = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))"

#: What a stranger has: isorun, and pytest for the tests that programs run.
WANTED = ("isorun[science,demo]", "pytest")

#: Fetching and installing numpy, pandas and matplotlib takes half a minute, more on a slow line.
slow = pytest.mark.timeout(280)


def source_of(dist: dict[str, Path], project: str) -> Path:
    (archive,) = [path for name, path in dist.items() if name.startswith(f"{project}-") and name.endswith(".tar.gz")]
    return archive


def names_in(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def test_there_is_a_wheel_and_a_source_archive_of_each(dist) -> None:
    """`make dist` makes four files."""
    import isorun

    stems = [f"isorun-{isorun.__version__}", f"sandbox_runner-{isorun.__version__}"]
    assert sorted(dist) == sorted(f"{stem}{end}" for stem in stems for end in ("-py3-none-any.whl", ".tar.gz"))


def test_another_place_gives_the_same_bytes(dist, tmp_path) -> None:
    """The archives of a copy elsewhere, without git, are the same, and its path may have a blank."""
    written = {info.date_time for info in zipfile.ZipFile(wheel_of(dist, "isorun")).infolist()}
    assert written == {time.gmtime(EPOCH)[:6]}  # the commit's time, not that of the build
    copy = shutil.copytree(ROOT, tmp_path / "else where", ignore=UNTRACKED)
    again = build(copy, tmp_path / "again")
    assert {name: path.read_bytes() for name, path in again.items()} == {
        name: path.read_bytes() for name, path in dist.items()
    }


def test_the_source_archive_gives_the_same_wheel(dist, tmp_path) -> None:
    """Everything that the wheel is made of is in the source archive."""
    # Not tarfile: what it wants to be told of trust differs between the Pythons that are supported.
    subprocess.run(["tar", "-xf", str(source_of(dist, "isorun")), "-C", str(tmp_path)], check=True)
    (folder,) = tmp_path.iterdir()
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "again")],
        cwd=folder,
        env=os.environ | {"SOURCE_DATE_EPOCH": str(EPOCH)},
        capture_output=True,
        check=True,
    )
    wheel = wheel_of(dist, "isorun")
    assert (tmp_path / "again" / wheel.name).read_bytes() == wheel.read_bytes()


def test_the_wheel_holds_the_package_and_the_bundle(dist) -> None:
    """Each file of both packages, of the example bundle and of the image is there, and metadata, nothing else."""
    package = {path.relative_to(ROOT / "src").as_posix() for path in files_of(ROOT / "src" / "isorun")}
    bundle = {
        f"isorun/bundles/with-isoruntime/{path.relative_to(ROOT / BUNDLE).as_posix()}"
        for path in files_of(ROOT / BUNDLE)
    }
    image = {f"isorun/images/py-code-exec/{path.name}" for path in files_of(ROOT / IMAGE)}
    source = ROOT / "packages" / "sandbox_runner" / "src"
    carried = {f"isorun/carried/{path.relative_to(source).as_posix()}" for path in files_of(source)}
    names = names_in(wheel_of(dist, "isorun"))
    found = {name for name in names if ".dist-info/" not in name}
    assert found == package | bundle | image | carried | {"isorun_carried.pth"}
    assert "isorun/bundles/with-isoruntime/tools_descriptor.py" in names
    assert "isorun/images/py-code-exec/Dockerfile" in names


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def test_no_archive_names_this_checkout(dist) -> None:
    """No file of a wheel holds the path of the checkout or the name of its owner's home."""
    for project in ("isorun", "sandbox_runner"):
        with zipfile.ZipFile(wheel_of(dist, project)) as wheel:
            for name in wheel.namelist():
                assert str(ROOT).encode() not in wheel.read(name), name


class Installed(NamedTuple):
    """An environment that has isorun from its wheel alone, and the user it belongs to."""

    bin: Path
    empty: Path
    user: dict[str, object]
    environ: dict[str, str]

    def run(self, *argv: str) -> "subprocess.CompletedProcess[str]":
        """A command of that environment, in a folder with nothing in it."""
        return subprocess.run(
            [str(self.bin / argv[0]), *argv[1:]],
            cwd=self.empty,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=120,
            **self.user,
        )


@pytest.fixture(scope="module")
def installed(dist, ordinary_user, require) -> Iterator[Installed]:
    """`pip install --find-links dist isorun[science,demo]` in an empty environment of an ordinary user's."""
    user: dict[str, object] = {}
    if ordinary_user is not None:
        user = {"user": ordinary_user.uid, "group": ordinary_user.gid, "extra_groups": []}
    with tempfile.TemporaryDirectory(prefix="isorun-dist-") as name:
        place = Path(name)
        place.chmod(0o755)  # pytest's own folders are closed to the ordinary user
        home = place / "home"
        home.mkdir()
        shutil.copytree(wheel_of(dist, "isorun").parent, place / "dist")
        if ordinary_user is not None:
            os.chown(home, *ordinary_user)
        made = Installed(home / "venv" / "bin", home / "empty", user, clean_environment(home))
        interpreter = startable(user) or require("user", f"it cannot start {sys.executable}, nor any other Python here")
        subprocess.run([interpreter, "-m", "venv", str(home / "venv")], check=True, cwd=home, env=made.environ, **user)
        fetch(made.bin, place)
        for folder in (place / "dist", place / "wheels"):
            for path in (folder, *folder.iterdir()):
                path.chmod(path.stat().st_mode | 0o055)
        made.empty.mkdir()
        places = ["--find-links", str(place / "dist"), "--find-links", str(place / "wheels")]
        done = made.run("python", "-m", "pip", "install", "-q", "--no-index", *places, *WANTED)
        assert done.returncode == 0, done.stderr
        if ordinary_user is not None:
            os.chown(made.empty, *ordinary_user)
        yield made


def clean_environment(home: Path) -> dict[str, str]:
    """Nothing of this process's environment: no setting, no path to the checkout."""
    return {"HOME": str(home), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "ISORUN_WORKSPACE_ROOT": str(home / "runs")}


def startable(user: dict[str, object]) -> str | None:
    """An interpreter that *user* can start and that can make environments; ours may lie in root's home."""
    for path in (getattr(sys, "_base_executable", sys.executable), "/usr/bin/python3"):
        try:
            tried = subprocess.run([path, "-c", NEEDED], capture_output=True, cwd="/", **user)
        except OSError:
            continue
        if tried.returncode == 0:
            return str(path)
    return None


def fetch(bin_: Path, place: Path) -> None:
    """The dependencies' wheels into place/wheels, in the versions that are pinned, as this process's own user."""
    text = (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")
    pinned = re.findall(r"^[A-Za-z0-9].*?==[^\\\n]*", text, re.MULTILINE)
    constraints = place / "constraints.txt"
    constraints.write_text("\n".join(pinned), encoding="utf-8")
    options = ["-q", "--only-binary", ":all:", "--find-links", str(place / "dist"), "-c", str(constraints)]
    command = [str(bin_ / "python"), "-m", "pip", "download", *options, "-d", str(place / "wheels")]
    done = subprocess.run([*command, *WANTED], cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@slow
@pytest.mark.user
def test_it_is_the_wheel_that_runs(installed) -> None:
    """The environment's isorun lies in the environment."""
    done = installed.run("python", "-c", "import isorun, sandbox_runner as s; print(isorun.__file__, s.__file__)")
    assert all(Path(path).is_relative_to(installed.bin.parent) for path in done.stdout.split()), done.stderr


@slow
@pytest.mark.user
def test_doctor_finds_every_wall(installed, require) -> None:
    """`isorun doctor` runs a sealed program there and exits with 0."""
    done = installed.run("isorun", "doctor")
    if done.returncode == 4:
        require("namespace", done.stdout)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.splitlines()[0] == "every wall stands: programs run sealed here"


@slow
@pytest.mark.user
def test_the_demo_runs(installed) -> None:
    """`isorun demo` finds its data, programs and searches in the wheel, and with its extra what writes a PDF."""
    done = installed.run("isorun", "demo")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "report.pdf" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("every wall held (")


@slow
@pytest.mark.user
def test_scenario_0_runs(installed) -> None:
    """`isorun scenario 0` finds its bundle in the wheel: one file, one note, verdict as expected."""
    done = installed.run("isorun", "scenario", "0", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hello-iso-runtime.txt" in done.stdout
    assert "-note.txt" in done.stdout


TESTS = """
import subprocess
import pytest
Path("pytest.ini").write_text("[pytest]\\nfilterwarnings = error\\n")
Path("test_a.py").write_text("def test_a():\\n    assert 1 + 1 == 2\\n")
command = [sys.executable, "-m", "pytest", "-W", "error", "-v"]
print(int(pytest.main(["-q", "-W", "error"])), subprocess.run(command, capture_output=True).returncode)
"""


@slow
@pytest.mark.user
def test_a_program_runs_tests(installed, require) -> None:
    """pytest inside sees no plug-in of isorun's, and no warning of it ends a test."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "runs_tests.py")
        program.write_text(TESTS)
        program.parent.chmod(0o755)
        done = installed.run("isorun", "run", str(program))
    if done.returncode == 4:
        require("namespace", done.stderr)
    assert done.stdout.splitlines()[-1:] == ["0 0"], done.stdout + done.stderr
    assert "1 passed" in done.stdout
    assert "warning" not in done.stdout


@slow
@pytest.mark.user
def test_nothing_is_left_in_the_folder(installed) -> None:
    """The commands write below the workspace root and the user's data folder, not where they are started."""
    installed.run("isorun", "doctor")
    assert list(installed.empty.iterdir()) == []
