"""`isorun runs`: which run a name stands for, whose it is, and a table that fits 80 columns."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from isorun.cli import runs
from isorun.cli.main import run_command
from isorun.cli.show import print_json_list, print_table
from isorun.core.errors import InvalidRequest
from isorun.core.ids import new_exec_id
from isorun.store.recovery import each_listed


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
    assert runs.when(accepted) == shown


def test_an_id_stays_whole_in_80_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An id that is cut in two cannot be copied; the program's name gives way."""
    exec_id = new_exec_id()
    monkeypatch.setattr("isorun.cli.show._PIPE_WIDTH", 80)
    row = (exec_id, "contract_failed", "03-04 05:06", "a_long_name_of_a_program.py", "12.3 MiB")
    print_table(("exec_id", "status", "accepted UTC", "program", "size"), [row], whole=("exec_id", "accepted UTC"))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith(f"{exec_id} ") and "03-04 05:06" in line for line in lines)


ROW = ("20261129-225954-247616-bf80f9eccb22", "artifact_validation_failed", "promised files that do not open")


@pytest.mark.parametrize("columns", [24, 40, 80, 100, 200])
@pytest.mark.parametrize("names", [("exec_id", "code", "why"), ("", "code", "why")])
def test_no_table_cuts_words_into_pieces(
    columns: int, names: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a narrow terminal a row is a few lines instead; COLUMNS counts in a pipe, too."""
    monkeypatch.setenv("COLUMNS", str(columns))
    print_table(names, [ROW, ("id", "ok", "-")], whole=names[:1])
    shown = capsys.readouterr().out
    if columns >= 80:
        assert max(map(len, shown.splitlines())) <= columns
    for word in " ".join(ROW).split():
        assert word in shown


def test_a_narrow_table_is_a_list(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first cell, then each other one behind its name."""
    monkeypatch.setenv("COLUMNS", "30")
    print_table(("exec_id", "status", "why"), [ROW], whole=("exec_id",))
    assert capsys.readouterr().out == (
        f"{ROW[0]}\n  status:\n    artifact_validation_failed\n  why: promised files that do\n    not open\n"
    )


FINE = {
    "status": "ok",
    "ok": True,
    "exec_id": "r1",
    "usage": {"wall_s": 1.0},
    "isolation": {"level": "full", "limits": "x"},
}
Told = Callable[..., tuple[int, str, str]]


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Told]:
    """`isorun runs` below *tmp_path*: its exit code and what it printed."""
    monkeypatch.setenv("ISORUN_WORKSPACE_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        code = run_command(["runs", *words])
        return code, *capfd.readouterr()

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


def stored(root: Path, result: object = FINE, exec_id: str = "r1") -> Path:
    """The folder of a run whose result.json holds *result*."""
    folder = root / f"codegen_{exec_id}"
    (folder / "out/logs").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"exec_id": exec_id, "accepted": "2026-01-01T00:00:00.000Z"}))
    (folder / "out/result.json").write_text(json.dumps(result))
    (folder / "out/logs/user.log").write_text("printed")
    return folder


def test_a_run_of_ones_own_is_shown(tmp_path: Path, told: Told) -> None:
    """The control of what follows."""
    stored(tmp_path)
    assert told("show", "r1")[:2] == (0, "r1\nok · 1.00 s · isolation full, x\n")
    assert told("logs", "r1")[:2] == (0, "printed")
    assert [row["status"] for row in json.loads(told("ls", "--json")[1])] == ["ok"]


@pytest.mark.root
@pytest.mark.parametrize(
    "command", [("show", "r1"), ("show", "r"), ("logs", "r1"), ("show", "r1", "--json"), ("rm", "r1")]
)
def test_a_run_that_another_user_planted_is_none(tmp_path: Path, told: Told, command: tuple[str, ...]) -> None:
    """In a root for everybody a stranger's folder is not believed, whatever it says."""
    folder = stored(tmp_path)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 12345, 12345)
    code, out, err = told(*command)
    assert code == 2
    assert "there is no run r" in out + err
    assert folder.exists()
    assert told("ls")[1] == f"no runs in {tmp_path}\n"


@pytest.mark.parametrize("name", ["codegen_r1/out", "codegen_r1/out/logs", "codegen_r1/out/logs/user.log"])
def test_no_link_on_the_way_to_a_log_is_followed(tmp_path: Path, told: Told, name: str) -> None:
    """A folder of root's in the place of logs/ is not printed."""
    stored(tmp_path)
    (tmp_path / name).rename(tmp_path / "aside")
    (tmp_path / name).symlink_to(tmp_path / "aside")
    code, out, err = told("logs", "r1")
    assert (code, out) == (2, "")
    assert err.startswith("isorun: logs/user.log of run r1 cannot be read: ")


def test_a_folder_of_a_run_that_is_a_link_is_none(tmp_path: Path, told: Told) -> None:
    """It could lead to somebody else's."""
    stored(tmp_path).rename(tmp_path / "aside")
    (tmp_path / "codegen_r1").symlink_to(tmp_path / "aside")
    assert told("show", "r1")[0] == told("logs", "r1")[0] == 2


def test_a_fifo_in_the_place_of_a_result_is_refused(tmp_path: Path, told: Told) -> None:
    """Nobody waits for a writer."""
    path = stored(tmp_path) / "out/result.json"
    path.unlink()
    os.mkfifo(path)
    assert told("show", "r1")[::2] == (2, "isorun: result.json of run r1 is not a file\n")


ODD = {
    "a list": [],
    "no status": {"ok": True},
    "a status of none": {**FINE, "status": "fine"},
    "a list for a status": {**FINE, "status": []},
    "text for a number": {**FINE, "usage": {"wall_s": "x"}},
    "true for a number": {**FINE, "usage": {"wall_s": True}},
    "text for usage": {**FINE, "usage": "x"},
    "a list for an error": {**FINE, "error": []},
    "an error without a text": {**FINE, "error": {"code": "x"}},
    "a number for a message": {**FINE, "error": {"code": "x", "message": 5}},
    "numbers for notices": {**FINE, "notices": [1]},
    "an object for notices": {**FINE, "notices": {"a": 1}},
    "text for artifacts": {**FINE, "artifacts": "abc"},
    "artifacts without a size": {**FINE, "artifacts": [{"path": "a", "sha256": ""}]},
    "a list for a path": {**FINE, "artifacts": [{"path": [], "bytes": 1, "sha256": ""}]},
    "a number for a folder": {**FINE, "out_dir": 5},
    "an object for a level": {**FINE, "isolation": {"level": {}, "limits": None}},
}


@pytest.mark.parametrize("result", ODD.values(), ids=ODD)
def test_a_result_of_odd_types_is_damaged(tmp_path: Path, told: Told, result: object) -> None:
    """It is no internal error of ours, in the list either."""
    stored(tmp_path, result)
    assert told("show", "r1") == (2, "", "isorun: the result.json of run r1 is damaged\n")
    (row,) = json.loads(told("ls", "--json")[1])
    assert row["status"] == "damaged"


@pytest.mark.parametrize("data", [b"", b"{", b"[" * 100_000, b"\xff", b"1" * 10_000, b"null"])
def test_a_result_that_is_no_json_is_damaged(tmp_path: Path, told: Told, data: bytes) -> None:
    """Nor is this."""
    (stored(tmp_path) / "out/result.json").write_bytes(data)
    assert told("show", "r1")[::2] == (2, "isorun: the result.json of run r1 is damaged\n")


CUT = "the last 50 of 52 runs; --all shows the rest"


def test_a_long_list_is_cut_and_says_how_many_there_are(told: Told, tmp_path: Path) -> None:
    """The last 50 by default; all of them, or another number, if you ask; nothing is said where nothing is left out."""
    for number in range(50):
        stored(tmp_path, exec_id=f"r{number}")
    assert len(told("ls")[1].splitlines()) == 2 + 50
    stored(tmp_path, exec_id="r50")
    stored(tmp_path, {**FINE, "status": "failed"}, exec_id="r51")
    assert told("ls")[1].splitlines()[-1] == CUT
    assert "--all" not in told("ls", "--all")[1]
    assert len(told("ls", "--all")[1].splitlines()) == 2 + 52
    assert told("ls", "--limit", "3")[1].splitlines()[-1] == CUT.replace("50", "3")
    code, _, said = told("ls", "--all", "--limit", "3")
    assert (code, "--all and --limit contradict each other" in said) == (2, True)
    only = told("ls", "--limit", "1", "--status", "failed")[1].splitlines()[-1]
    assert only == "the last 1 with status failed of 52 runs; --all shows the rest"


def test_json_has_every_run_in_one_list(told: Told, tmp_path: Path) -> None:
    """Also where there is none; a number bounds it."""
    assert told("ls", "--json")[1] == "[]\n"
    for number in range(52):
        stored(tmp_path, exec_id=f"r{number}")
    assert len(json.loads(told("ls", "--json")[1])) == 52
    assert [run["exec_id"] for run in json.loads(told("ls", "--json", "--limit", "2")[1])] == ["r9", "r8"]


def test_a_run_is_told_when_it_has_been_looked_into(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of ten thousand the first is there at once; the shape is that of any list."""
    printed: list[str] = []

    def values() -> Iterator[dict[str, int]]:
        for number in range(2):
            yield {"number": number}
            printed.append(capsys.readouterr().out)

    print_json_list(values())
    assert printed == ['[{"number": 0}', ', {"number": 1}']
    assert capsys.readouterr().out == "]\n"
    for exec_id in ("a", "b"):
        stored(tmp_path, exec_id=exec_id)
    found = each_listed(tmp_path)
    assert next(found).exec_id == "b"
    (tmp_path / "codegen_a").rename(tmp_path / "gone")
    assert list(found) == []
