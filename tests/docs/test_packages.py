"""The packages of this repository: what their page says of them is so, and its commands work."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.docs.building import wheel_of
from tests.docs.pages import ROOT, blocks_of

pytestmark = pytest.mark.any_user

PAGE = Path("docs/reference/monorepo-packages.md")
PACKAGE = ROOT / "packages" / "sandbox_runner"
COPIED = ("Makefile", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "src", "packages", "examples", "tests")
CACHES = shutil.ignore_patterns("__pycache__", ".*_cache", ".venv", ".hypothesis")


def projects() -> dict[str, Path]:
    """Every distribution of the checkout by its name: where its pyproject.toml lies."""
    found = [ROOT / "pyproject.toml", *ROOT.glob("packages/*/pyproject.toml")]
    return {tomllib.loads(path.read_text(encoding="utf-8"))["project"]["name"]: path for path in found}


def test_the_table_has_each_package_and_where_its_version_is() -> None:
    """One row for each distribution, none for one that is gone; the file of its version has one."""
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| \[`(.+?)`\].*?\| \[`(.+?)`\]\(.+?\) \| `(\w+)` \|$", text, re.MULTILINE)
    assert {name: ROOT / folder / "pyproject.toml" for name, folder, _, _ in rows} == projects()
    for _, folder, version, status in rows:
        configured = tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]
        assert ROOT / folder / configured["version"]["path"] == ROOT / version
        assert re.search(r'^__version__ = "[\d.]+"$', (ROOT / version).read_text(encoding="utf-8"), re.MULTILINE)
        assert f"\n- `{status}`: " in text


@pytest.mark.timeout(120)  # makes an environment, and fetches a build backend
def test_each_way_to_install_works(tmp_path) -> None:
    """The blocks under "Install …", in a copy of the checkout: after each of them the package is there."""
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=CACHES)
        else:
            shutil.copy(ROOT / name, copy / name)
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    dist = f'make() {{ command make -o .venv/.setup-done BIN={Path(sys.executable).parent} "$@"; }}\n'
    installed = 0
    for block in blocks_of(PAGE):
        if "pip install" not in block.text:
            continue
        shown = "cd / && python -c 'import sandbox_runner as s; print(s.__file__)'; pip -q uninstall -y sandbox_runner"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{dist}{block.text}\n{shown}"],
            cwd=copy,
            env=os.environ | {"PATH": f"{tmp_path}/venv/bin:{os.environ['PATH']}", "HOME": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, f"{block}: {done.stdout}"
        where = "/checkout/packages/sandbox_runner/src/" if "-e packages" in block.text else "/site-packages/"
        assert where in done.stdout.splitlines()[-1], f"{block}: {done.stdout}"
        installed += 1
    assert installed == 3


def test_the_wheel_of_sandbox_runner_is_the_package(dist) -> None:
    """Each file of the package is in its wheel, data files too, and its licence, which is the repository's."""
    with zipfile.ZipFile(wheel_of(dist, "sandbox_runner")) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        (licence,) = [name for name in wheel.namelist() if name.endswith("licenses/LICENSE")]
        assert wheel.read(licence) == (ROOT / "LICENSE").read_bytes()
    source = PACKAGE / "src"
    files = {path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert names == {path.relative_to(source).as_posix() for path in files}
    assert "sandbox_runner/py.typed" in names
    assert (PACKAGE / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_source_archive_of_sandbox_runner_is_a_checkout(dist) -> None:
    """Its source archive has what the commands of a copy of the folder need: sources, tests, scripts, licence."""
    (archive,) = [path for name, path in dist.items() if re.fullmatch(r"sandbox_runner-.*\.tar\.gz", name)]
    listed = subprocess.run(["tar", "-tf", str(archive)], capture_output=True, text=True, check=True).stdout
    names = {name.partition("/")[2] for name in listed.splitlines()}
    assert {"LICENSE", "README.md", "pyproject.toml", "scripts/smoke.py", "tests/conftest.py"} <= names
    assert "src/sandbox_runner/spec.py" in names


def test_both_packages_are_linted_alike() -> None:
    """ruff and mypy hold sandbox_runner to the rules of the repository, in a copy of its folder as well."""
    whole, package = (tomllib.loads(path.read_text(encoding="utf-8"))["tool"] for path in projects().values())
    for rule in ("line-length", "target-version"):
        assert whole["ruff"][rule] == package["ruff"][rule]
    for rule in ("select", "ignore"):
        assert whole["ruff"]["lint"][rule] == package["ruff"]["lint"][rule]
    for rule in ("strict", "python_version", "enable_error_code"):
        assert whole["mypy"][rule] == package["mypy"][rule]
