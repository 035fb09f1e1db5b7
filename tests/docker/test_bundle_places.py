"""A bundle loads in the supervisor's container from wherever it loads on the host, or the reason is said."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import isorun
from tests.bundles import write_bundle
from tests.docker.test_faults import opened  # noqa: F401 - a fixture

pytestmark = [pytest.mark.root, pytest.mark.timeout(200)]
_SUMS = '''
import neighbour

@isorun.tool
def add(a: int, b: int) -> int:
    """Add."""
    return neighbour.plus(a, b)
'''
_CALL = "print(await sums.add(a=40, b=2))"
_NONE = {"PY_CODE_EXEC_NETWORK_MODE": "none"}


@pytest.fixture
def bundle() -> Iterator[Path]:
    """In a folder that everybody may enter, and read."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    made = write_bundle(folder / "mine", sums=_SUMS)
    (made / "neighbour.py").write_text("def plus(a, b):\n    return a + b\n")
    yield made
    shutil.rmtree(folder)


def called(opened, bundle: Path) -> str:  # noqa: F811 - the fixture
    with opened(_NONE, bundle=bundle) as runtime:
        return runtime.execute(_CALL, timeout_s=20).raise_for_status().stdout


def test_a_path_with_two_dots_is_its_folder(opened, bundle: Path, monkeypatch) -> None:  # noqa: F811 - the fixture
    """Also relative to the folder of the process, and behind a link."""
    (bundle.parent / "other").mkdir()
    (bundle.parent / "link").symlink_to(bundle)
    monkeypatch.chdir(bundle.parent / "other")
    for path in (bundle.parent / "other" / ".." / "mine", Path("../mine"), bundle / "tools" / "..", Path("../link")):
        assert called(opened, path) == "42\n", path


def test_a_folder_below_one_that_only_root_may_enter_is_mounted_past_it(opened, bundle: Path) -> None:  # noqa: F811 - the fixture
    """As every checkout in root's home: in the container it lies where everybody may go."""
    bundle.parent.chmod(0o700)
    assert called(opened, bundle) == "42\n"


@pytest.mark.parametrize("shut", [".", "tools", "tools_descriptor.py", "tools/sums.py"])
def test_what_the_supervisor_may_not_read_is_named(opened, bundle: Path, shut: str) -> None:  # noqa: F811 - the fixture
    """By its path on the host, with the user and a remedy that helps."""
    (bundle / shut).chmod(0o700 if (bundle / shut).is_dir() else 0o600)
    with pytest.raises(isorun.InvalidRequest) as caught:
        called(opened, bundle)
    said = str(caught.value)
    assert f"uid 1001 cannot read {bundle}/" in said
    remedy = said[said.index("(chmod") + 1 : said.index(")", said.index("(chmod"))]
    assert remedy == f"chmod -R o+rX {bundle}"
    subprocess.run(remedy.split(), check=True)
    assert called(opened, bundle) == "42\n"


def test_another_folder_in_its_place_is_found_before_anything_runs(opened, bundle: Path) -> None:  # noqa: F811 - the fixture
    """HOST_BUNDLES_PATH that leads elsewhere: with other tools, with none, and to nothing."""
    for name, found in (("others", "another"), ("empty", "no")):
        other = bundle.parent / name / "mine"
        other.mkdir(parents=True)
        if found == "another":
            (other / "tools_descriptor.py").write_text("TOOLS = [{'alias': 'x', 'module': 'json'}]")
        environ = _NONE | {"AGENTIC_BUNDLES_ROOT": str(bundle.parent), "HOST_BUNDLES_PATH": str(other.parent)}
        environ |= {"HOST_EXEC_WORKSPACE_PATH": str(opened_root(opened))}
        with pytest.raises(isorun.InvalidRequest, match=f"with {found} tools_descriptor.py.*HOST_BUNDLES_PATH"):
            opened(environ, bundle=bundle).__enter__()
    environ |= {"HOST_BUNDLES_PATH": "/nonexistent/bundles"}
    with pytest.raises(isorun.Unavailable, match="no folder /nonexistent/bundles/mine: set HOST_BUNDLES_PATH"):
        opened(environ, bundle=bundle).__enter__()


def opened_root(opened) -> Path:  # noqa: F811 - the fixture
    """The folder of the runs that `opened` uses, which is the host's own here."""
    runtime = opened()
    root = Path(runtime.settings.workspace_root)
    root.mkdir(exist_ok=True)
    return root


def test_a_bundle_that_raises_is_told_by_the_owners_path(opened, bundle: Path) -> None:  # noqa: F811 - the fixture
    """Not by the container's, where nobody can look."""
    (bundle / "tools" / "sums.py").write_text("import isorun\nraise ValueError('on purpose')\n")
    with pytest.raises(isorun.InvalidRequest, match=f"{bundle}/tools/sums.py.*on purpose"):
        called(opened, bundle)


@pytest.mark.parametrize("production", [False, True])
def test_doctor_loads_the_bundle_that_is_set_where_it_will_run(
    executor_image: str, bundle: Path, tmp_path: Path, production: bool
) -> None:
    """One that root may read and the supervisor may not is a failed row, and the exit code says so."""
    environ = {
        **_NONE,
        "PY_CODE_EXEC_IMAGE": executor_image,
        "ISORUN_BUNDLE": str(bundle),
        "ISORUN_WORKSPACE_ROOT": str(tmp_path / "root"),
    }
    words = ["doctor", "--backend", "docker", "--json", *(["--production"] if production else [])]

    def row() -> tuple[int, dict[str, object]]:
        command = [sys.executable, "-m", "isorun", *words]
        done = subprocess.run(command, env=os.environ | environ, capture_output=True, text=True, timeout=150)
        return done.returncode, {check["name"]: check for check in json.loads(done.stdout)["host"]}["bundle"]

    if not production:
        assert row()[0] == 0
    (bundle / "tools" / "sums.py").chmod(0o600)
    code, check = row()
    assert (code, check["ok"]) == (4, False)
    assert f"uid 1001 cannot read {bundle}/tools/sums.py" in str(check["detail"])


@pytest.mark.parametrize("network", ["nonet", "host   # Supervisor needs it"])
def test_a_network_that_is_none_is_a_setting_to_correct(opened, bundle: Path, network: str) -> None:  # noqa: F811 - the fixture
    """Exit 2: the setting is named, and the comment that another reader left in it."""
    with pytest.raises(isorun.InvalidRequest, match=f"PY_CODE_EXEC_NETWORK_MODE={network}: "):
        opened({"PY_CODE_EXEC_NETWORK_MODE": network}, bundle=bundle).__enter__()
