"""More inputs than the workspace may have files: refused by name, before anything is started."""

from dataclasses import replace
from pathlib import Path

import pytest

import isorun

MOST = 60
LIMITS = replace(isorun.Limits(), workspace_inodes=MOST)
COUNT = "import os; print(len(os.listdir('.')))"


def files(count: int, name: str = "f{}") -> dict[str, bytes]:
    return {name.format(number): b"x" for number in range(count)}


def test_as_many_inputs_as_fit_reach_the_program(own, sealed: str) -> None:
    """Each takes two: itself, and a link beside the program; in a folder only the folder has a link."""
    with own(limits=LIMITS) as rt:
        assert rt.execute(COUNT, inputs=files(25), timeout_s=10).stdout == "25\n"
        assert rt.execute(COUNT, inputs=files(48, "folder/f{}"), timeout_s=10).stdout == "1\n"


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"inputs": files(30)}, id="files"),
        pytest.param({"inputs": files(60, "folder/f{}")}, id="a folder"),
        pytest.param({"inputs": files(20, "f{0}/f")}, id="a folder each"),
        pytest.param({"inputs": files(1, "/".join("d" * 60))}, id="folders in folders"),
        pytest.param(
            {
                "inputs": files(20),
                "contract": [{"filename": f"turn_1/files/{n}/x", "description": "x"} for n in range(20)],
            },
            id="with the folders of promised files",
        ),
        pytest.param({"inputs": files(5), "limits": {"workspace_inodes": 10}}, id="a limit of the run's own"),
    ],
)
@pytest.mark.no_backend
def test_more_inputs_than_fit_are_refused(own, given: dict[str, object], kind: str) -> None:
    """The error names the ceiling, and no folder of a run is left."""
    with own(limits=LIMITS) as rt:
        with pytest.raises(isorun.InvalidRequest, match=r"may have [0-9]+ \(ISORUN_MAX_WORKSPACE_INODES\)") as caught:
            rt.execute("pass", timeout_s=10, **given)
        assert caught.value.code == "too_many_inputs"
        assert list(rt.root.glob("codegen_*")) == []


@pytest.mark.no_backend
def test_a_folder_to_start_from_counts_too(own, tmp_path: Path, kind: str) -> None:
    """It has no links beside the program."""
    for number in range(60):
        (tmp_path / f"{number}").touch()
    with own(limits=LIMITS) as rt, pytest.raises(isorun.InvalidRequest, match="ISORUN_MAX_WORKSPACE_INODES"):
        rt.execute("pass", timeout_s=10, start_from=tmp_path)


@pytest.mark.no_backend
def test_a_run_without_inputs_is_not_refused(own, kind: str) -> None:
    """However few files it may have."""
    with own(limits=replace(isorun.Limits(), workspace_inodes=1)) as rt:
        assert rt.execute("print(1)", timeout_s=10).ok
