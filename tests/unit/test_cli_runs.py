"""`isorun runs`: which run a name stands for, and a table that fits 80 columns."""

from pathlib import Path

import pytest

from isorun.cli import runs
from isorun.cli.show import print_table
from isorun.core.errors import InvalidRequest
from isorun.core.ids import new_exec_id


@pytest.mark.parametrize(
    ("name", "exec_id"),
    [("ab1", "ab1"), ("codegen_ab1", "ab1"), ("ab12", "ab12"), ("codegen_cd", "cd345"), ("none", "none")],
)
def test_a_run_is_named_by_its_id_its_folder_or_a_beginning(tmp_path: Path, name: str, exec_id: str) -> None:
    """A whole id wins over longer ones that begin with it; a name of no run stays as it is."""
    for folder in ("codegen_ab1", "codegen_ab12", "codegen_cd345"):
        (tmp_path / folder).mkdir()
    assert runs._named(tmp_path, name) == exec_id


def test_a_beginning_of_two_runs_is_refused(tmp_path: Path) -> None:
    """Nothing is shown or removed by a guess."""
    for folder in ("codegen_ab1", "codegen_ab2"):
        (tmp_path / folder).mkdir()
    with pytest.raises(InvalidRequest) as caught:
        runs._named(tmp_path, "ab")
    assert (str(caught.value), caught.value.code) == (
        "2 runs begin with ab; give more of the id",
        "ambiguous_exec_id",
    )


@pytest.mark.parametrize(("accepted", "shown"), [("2026-03-04T05:06:07.890Z", "03-04 05:06"), ("", "-"), ("x", "x")])
def test_a_time_is_short(accepted: str, shown: str) -> None:
    """Month, day, hour and minute; what is no time is shown as it is."""
    assert runs._when(accepted) == shown


def test_an_id_stays_whole_in_80_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An id that is cut in two cannot be copied; the program's name gives way."""
    exec_id = new_exec_id()
    monkeypatch.setattr("isorun.cli.show._PIPE_WIDTH", 80)
    row = (exec_id, "contract_failed", "03-04 05:06", "a_long_name_of_a_program.py", "12.3 MiB")
    print_table(("exec_id", "status", "accepted UTC", "program", "size"), [row], whole=("exec_id", "accepted UTC"))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith(f"{exec_id} ") and "03-04 05:06" in line for line in lines)
