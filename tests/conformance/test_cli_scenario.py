"""`isorun scenario` as a user runs it: what it shows, what it exits with, and what it says of a wrong verdict.

Root's half of CI runs one scenario by the command; how each of them ends on root's backends is `test_scenarios`.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from isorun.cli.scenes.scenario import scenario as command
from isorun.core.errors import InvalidRequest
from tests.conformance.scenes import SCENARIOS, files_below

pytestmark = pytest.mark.timeout(120)


def isorun(root: Path, *words: str, columns: int = 80) -> "subprocess.CompletedProcess[str]":
    """The command, with everything it keeps below *root*."""
    environment = os.environ | {
        "ISORUN_WORKSPACE_ROOT": str(root / "runs"),
        "ISO_RUNTIME_USER_WORKSPACE_ROOT": str(root / "workspace"),
        "ISO_RUNTIME_SANDBOX_ROOT": str(root / "sandbox"),
        "COLUMNS": str(columns),
        "PYTHONUTF8": "1",
    }
    arguments = [sys.executable, "-m", "isorun.cli.main", "scenario", *words]
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=110)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> "subprocess.CompletedProcess[str]":
    return isorun(tmp_path_factory.mktemp("all"), "--all", columns=150)


@pytest.mark.any_user
def test_all_of_them_are_as_expected(everything) -> None:
    """Exit 0, nothing on stderr, and the last line counts the verdicts."""
    assert (everything.returncode, everything.stderr) == (0, ""), everything.stdout
    assert everything.stdout.splitlines()[-1] == "20 of 20 verdicts as expected"


@pytest.mark.any_user
@pytest.mark.parametrize("number", SCENARIOS)
def test_a_row_has_the_expected_verdict_beside_the_real_one(everything, number) -> None:
    """The closing table has one row for each scenario, with both verdicts, the time and the mark."""
    rows = everything.stdout.partition("What was seen")[2].splitlines()
    own = next(row.split() for row in rows if row.split()[:1] == [str(number)])
    expected = str(SCENARIOS[number].expected)
    assert own[-1] == "✔"
    assert " ".join(own).count(expected.split(",")[0]) >= 2


@pytest.mark.any_user
def test_output_and_report_are_shown(everything) -> None:
    """Each scenario's own heading, its output as it came, comm.error, both verdicts, and its report."""
    for part in (
        "0. Happy path: a file and a note ──",
        "  │ wrote a file and a note",
        "  │ RuntimeError: this program always fails",
        "  comm.error: Program error detected in user.log (as it must)",
        "  ✔ expected contract_failed · missing_output_files, 1 succeeded, 1 missing",
        "    real     contract_failed · missing_output_files, 1 succeeded, 1 missing after ",
        "    runtime failure: timeout: exceeded its timeout of 3 s",
        "      hint: the program has no network",
        "  │ … ",
    ):
        assert part in everything.stdout
    assert everything.stdout.count("comm.error: Program error detected in user.log") >= 8


def test_one_scenario_shows_its_whole_report(tmp_path) -> None:
    """The tree, the end of the program's log, what was synced, and where everything is; in 80 columns.

    Of a run that ended as it must, what the host noted is not shown: a planted credential there would alarm a reader.
    """
    done = isorun(tmp_path, "0", "--user", "carol")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    for part in ("sandbox:", "user.log, its end:", "what the host did:", "synced to the workspace:", "2 files, "):
        assert part in done.stdout
    for part in ("AWS credentials", "redis=", "[solver.codegen]"):
        assert part not in done.stdout
    assert "AWS credentials: present" in (tmp_path / "sandbox/carol/out/logs/infra.log").read_text()
    assert f"workspace {tmp_path}/workspace/carol" in done.stdout
    kept = files_below(tmp_path / "workspace/carol")
    assert [path.split("/")[1][:5] for path in kept] == ["notes", "turn_"]
    folders = [line for line in done.stdout.splitlines() if line.startswith(("workspace /", "sandbox   /"))]
    assert max(len(line) for line in done.stdout.splitlines() if line not in folders) <= 80


@pytest.mark.any_user
def test_json_holds_expected_real_and_the_whole_result(tmp_path) -> None:
    """One object; the result is the run's own, and the program is there to read."""
    done = isorun(tmp_path, "3", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    one = told["scenarios"][0]
    assert (told["ok"], told["rounds"], one["number"], one["wrong"], one["comm_error"]) == (True, 1, 3, [], True)
    assert one["expected"] == one["real"] == "failed, 1 missing, comm.error"
    assert one["result"]["error"]["message"] == "the program raised RuntimeError: this program always fails"
    assert one["program"] == SCENARIOS[3].program


@pytest.mark.any_user
def test_rounds_are_counted(tmp_path, monkeypatch, capsys) -> None:
    """--repeat prints a line for each run, and the table says how many of each were as expected."""
    _only(monkeypatch, tmp_path, 0, 12)
    assert command(all_=True, repeat=3) == 0
    shown = capsys.readouterr().out
    assert shown.count("0. Happy path: a file and a note: ok, 1 succeeded, 1 note") == 3
    assert shown.count("✔ 2/3 ") == 2
    assert shown.count(" 3/3\n") == 2
    assert shown.splitlines()[-1] == "6 of 6 verdicts as expected"


@pytest.mark.any_user
def test_a_verdict_that_is_not_as_expected_is_told_and_fails(tmp_path, monkeypatch, capsys) -> None:
    """The wrong fact is named, the mark is a cross, the last line says NOT ALL, and the exit code is 1."""
    _only(monkeypatch, tmp_path, 0, 3)
    wanted = replace(SCENARIOS[3], expected=replace(SCENARIOS[3].expected, status="ok"))
    monkeypatch.setitem(SCENARIOS, 3, wanted)
    assert command(all_=True) == 1
    shown = capsys.readouterr().out
    assert "wrong    status: expected 'ok', got 'failed'" in shown
    assert "✘" in shown
    assert shown.splitlines()[-1] == "1 of 2 verdicts as expected: NOT ALL"
    assert command(all_=True, repeat=2, json_output=True) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


@pytest.mark.any_user
def test_all_keeps_nothing_of_its_own_rounds_and_everything_of_a_users(tmp_path, monkeypatch, capsys) -> None:
    """Without --user each round begins with an empty workspace; with it, nothing is ever removed."""
    _only(monkeypatch, tmp_path, 0, 12)
    assert command(all_=True, repeat=2) == command(all_=True, repeat=2, user="carol") == 0
    files = {user: files_below(tmp_path / "workspace" / user) for user in ("scenarios", "carol")}
    assert {user: len(found) for user, found in files.items()} == {"scenarios": 4, "carol": 8}
    assert command("0", user="carol") == 0
    assert "and 4 earlier turns in out/" in capsys.readouterr().out


@pytest.fixture(autouse=True)
def whole_list() -> Iterator[None]:
    """The list is one for all tests of the process: what a test takes out of it comes back where it was."""
    before = dict(SCENARIOS)
    yield
    SCENARIOS.clear()
    SCENARIOS.update(before)


def _only(monkeypatch, root: Path, *numbers: int) -> None:
    """The table as if these were all the scenarios; everything is kept below *root*."""
    for number in list(SCENARIOS):
        if number not in numbers:
            monkeypatch.delitem(SCENARIOS, number)
    monkeypatch.setenv("ISORUN_WORKSPACE_ROOT", str(root / "runs"))
    monkeypatch.setenv("ISO_RUNTIME_USER_WORKSPACE_ROOT", str(root / "workspace"))
    monkeypatch.setenv("ISO_RUNTIME_SANDBOX_ROOT", str(root / "sandbox"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_it_at_once(tmp_path, number) -> None:
    """Exit 130, without a word and without waiting for a supervisor that was cancelled with us."""
    environment = os.environ | {
        "ISORUN_WORKSPACE_ROOT": str(tmp_path / "runs"),
        "ISO_RUNTIME_USER_WORKSPACE_ROOT": str(tmp_path / "workspace"),
        "ISO_RUNTIME_SANDBOX_ROOT": str(tmp_path / "sandbox"),
        "PYTHONUNBUFFERED": "1",
    }
    arguments = [sys.executable, "-m", "isorun.cli.main", "scenario", "2"]
    with subprocess.Popen(
        arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout:
            if "about to work very hard" in line:
                break
        process.send_signal(number)
        assert process.communicate(timeout=30) == ("", None)
    assert process.returncode == 130


@pytest.mark.any_user
def test_list_starts_nothing(tmp_path) -> None:
    """`list`, and no word at all, print each scenario with its expected verdict; as JSON too."""
    done = isorun(tmp_path, "list", columns=150)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == isorun(tmp_path, columns=150).stdout
    for scenario in SCENARIOS.values():
        assert scenario.title in done.stdout
    told = json.loads(isorun(tmp_path, "list", "--json").stdout)
    assert [one["number"] for one in told] == list(range(20))
    assert files_below(tmp_path) == []


@pytest.mark.any_user
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("99",), 2, "isorun: there is no scenario '99'; `isorun scenario list` shows them\n"),
        (("3", "--all"), 2, "isorun: name one scenario, or --all, not both\n"),
        (("3", "--repeat", "2"), 2, "isorun: --repeat goes with --all, up to 1000\n"),
        (("0", "--user", "../x"), 2, None),
    ],
)
def test_a_slip_is_one_line(tmp_path, words, code, message) -> None:
    """Exit 2, one line that says what to do, and no run."""
    done = isorun(tmp_path, *words)
    assert done.returncode == code
    assert done.stderr.count("\n") == 1
    if message:
        assert done.stderr == message
    else:
        assert "user_id must be 1 to 128 characters" in done.stderr
    assert files_below(tmp_path / "workspace") == []


@pytest.mark.any_user
def test_no_scenario_is_an_error_of_its_own() -> None:
    """In Python too, with a code."""
    with pytest.raises(InvalidRequest) as caught:
        command("unheard-of")
    assert caught.value.code == "no_scenario"
