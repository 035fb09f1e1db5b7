"""The built-in context: it is whole, and its script installs what is missing and nothing else."""

import importlib.resources
import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from sandbox_runner.docker.context import Context, Framed, builtin_context
from sandbox_runner.spec import SandboxSpec

PACKAGED = Path(str(importlib.resources.files("sandbox_runner"))) / "builtins" / "docker" / "contexts" / "sandbox_cli"


def test_the_builtin_context_is_whole_and_small() -> None:
    """Every file that the built-in image needs lies beside the code, and nothing else is sent."""
    archive = io.BytesIO()
    Context.of(SandboxSpec()).read(Framed(), archive)
    archive.seek(0)
    with tarfile.open(fileobj=archive) as tar:
        names = sorted(tar.getnames())
    assert names == [
        ".dockerignore",
        "Dockerfile",
        "apt.txt",
        "install.sh",
        "npm.txt",
        "overlay",
        "pip.txt",
    ]


def test_the_packaged_context_is_whole() -> None:
    """At the place, and under the names, by which callers copy and change it; and it can be hashed."""
    archive = io.BytesIO()
    Context.of(SandboxSpec(image_context_path=PACKAGED)).read(Framed(), archive)
    archive.seek(0)
    with tarfile.open(fileobj=archive) as tar:
        names = sorted(tar.getnames())
    assert names == [
        ".dockerignore",
        "Dockerfile",
        "manifests",
        "manifests/apt.txt",
        "manifests/npm-global.txt",
        "manifests/pip.txt",
        "overlays",
        "overlays/manifests",
        "scripts",
        "scripts/install_manifests.sh",
    ]


def test_the_packaged_context_has_what_is_promised() -> None:
    """The program `file`, and one PDM, on a line that begins with its bare name, as callers look for it."""
    assert "file" in (PACKAGED / "manifests" / "apt.txt").read_text().splitlines()
    pinned = [line for line in (PACKAGED / "manifests" / "pip.txt").read_text().splitlines() if line.startswith("pdm")]
    assert [line.partition("==")[0] for line in pinned] == ["pdm", "pdm[locked]"]


def test_the_packaged_context_tells_its_python() -> None:
    """Callers read the version from the tag of the first FROM, and put another image there if it does not suit."""
    lines = (PACKAGED / "Dockerfile").read_text().splitlines()
    image = next(line.split()[1] for line in lines if line.startswith("FROM "))
    assert image.startswith("${BASE_IMAGE:-")
    assert image.rpartition(":")[2].partition("-")[0] == "3.11"


def test_both_contexts_install_alike() -> None:
    """By the same script, which the tests below run."""
    script = (PACKAGED / "scripts" / "install_manifests.sh").read_bytes()
    assert script == (builtin_context() / "install.sh").read_bytes()


def test_an_overlays_manifest_is_one_more(tmp_path: Path) -> None:
    """Each of them may be missing."""
    (tmp_path / "more.txt").write_text("second\n")
    found = 'case "$*" in *update) ;; *) shift 2; echo "$*";; esac'
    more = (str(tmp_path / "more.txt"), str(tmp_path / "not-there.txt"))
    code, said = install(tmp_path, "apt", "first\n", more=more, dpkg_query="exit 1", apt_get=found)
    assert (code, said.strip()) == (0, "install --yes --no-install-recommends first second")
    assert install(tmp_path / "again", "npm", "", more=more[1:]) == (0, "")


def install(tmp_path: Path, kind: str, manifest: str, more: tuple[str, ...] = (), **programs: str) -> tuple[int, str]:
    """Run the built-in context's install.sh with nothing on PATH but sed, rm and *programs*.

    It removes apt's lists, which in a test would be this machine's.
    """
    tools = tmp_path / "bin"
    tools.mkdir(parents=True)
    (tools / "sed").symlink_to("/bin/sed")
    spared = 'case "$*" in */var/lib/apt/lists/*) ;; *) exec /bin/rm "$@";; esac'
    for name, body in {"rm": spared, **programs}.items():
        path = tools / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
    (tmp_path / f"{kind}.txt").write_text(manifest)
    done = subprocess.run(
        ["/bin/sh", str(builtin_context() / "install.sh"), kind, str(tmp_path / f"{kind}.txt"), *more],
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        timeout=20,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["apt", "pip", "npm"])
def test_a_manifest_without_entries_starts_nothing(tmp_path: Path, kind: str) -> None:
    """Comments and empty lines are no entries: such a step needs no program and no network."""
    assert install(tmp_path, kind, "# nothing\n\n   # nor here\n") == (0, "")


@pytest.mark.parametrize(
    ("manifest", "asked"),
    [
        ("here\nhere=1.0  # a comment\n", ""),
        ("here\nabsent\nother=2\n", "install --yes --no-install-recommends absent other=2"),
        ("here=1.1\n", "install --yes --no-install-recommends here=1.1"),
        ("removed\n", "install --yes --no-install-recommends removed"),
    ],
)
def test_apt_is_asked_only_for_what_is_not_there(tmp_path: Path, manifest, asked) -> None:
    """A base image that has every package builds offline; a version that differs is fetched."""
    dpkg = 'case "$4" in here) echo "installed 1.0";; removed) echo "config-files 1.0";; *) exit 1;; esac'
    found = 'case "$*" in *update) ;; *) shift 2; echo "$*";; esac'
    code, said = install(tmp_path, "apt", manifest, dpkg_query=dpkg, apt_get=found)
    assert (code, said.strip()) == (0, asked)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("apt", "apt.txt: this base image has no apt-get to install x with"),
        ("npm", "npm.txt: there is no npm: add npm to apt.txt, or use a base image that has it"),
        ("pip", "pip.txt: no Python that can make an environment: add python3-venv to apt.txt"),
    ],
)
def test_an_installer_that_is_not_there_is_named_with_its_remedy(tmp_path: Path, kind, said) -> None:
    """The last line of the build says what to add where."""
    code, output = install(tmp_path, kind, "x\n")
    assert code == 1
    assert output.splitlines()[-1] == said


def test_npm_installs_the_entries_globally(tmp_path: Path) -> None:
    """Scoped names and versions arrive as they are written."""
    code, said = install(tmp_path, "npm", "@scope/tool@1.2 # why\nother\n", npm='echo "$*"')
    assert code == 0
    assert said.splitlines() == ["install --global --no-audit --no-fund @scope/tool@1.2 other", "cache clean --force"]
