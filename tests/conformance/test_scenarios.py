"""SPEC D: each scenario of the bundle ends as its table says, on every real backend.

The table is the bundle's own (`exec.py`), the one that `isorun scenario` prints;
`tests/unit/cli/test_scenario_pick.py` holds it to the specification. Every run here goes
through the bundle's workflow: bootstrap, run, sync, report, `comm.error`.
"""

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import isorun
from isorun.core.outcome import Code, Status
from isorun.core.result import RunError, RunResult
from tests.conformance.scenes import SCENARIOS, VERDICTS, WORKFLOW, Heard, files_below, settings_below

pytestmark = pytest.mark.timeout(180)  # the first test waits for all scenarios
MESSAGE = "Program error detected in user.log"
_FORK_BOMB = 15
_WAITING = (1, 2, 7, 8)  # three seconds each; the others run one after the other


@dataclass
class Played:
    """The reports and what was heard by scenario, and the canary that the supervisor held."""

    reports: dict[int, Any]
    heard: dict[int, Heard]
    canary: str
    root: Any


async def play_all(root, backend) -> Played:
    settings = settings_below(root)
    played = Played({}, {}, "", root)
    async with WORKFLOW.new_subsystem(settings, backend=backend, pool_size=2) as subsystem:
        played.canary = subsystem.runtime.settings.aws_session_token

        async def play(user: str, *numbers: int) -> None:
            for number in numbers:
                played.heard[number] = Heard()
                flow = WORKFLOW.Workflow(played.heard[number], user_id=user, settings=settings, subsystem=subsystem)
                played.reports[number] = await flow.run(str(number))

        others = [number for number in SCENARIOS if number not in _WAITING]
        await asyncio.gather(play("alice", *others), *(play(f"waits-{number}", number) for number in _WAITING))
    return played


@pytest.fixture(scope="session")
def played(sealed, rt, new_backend, tmp_path_factory) -> Played:
    """Every scenario, once. It asks for `rt` so that a machine without the backend is found out there."""
    return asyncio.run(play_all(tmp_path_factory.mktemp("scenarios"), new_backend()))


@pytest.mark.parametrize("number", SCENARIOS)
def test_every_scenario_ends_as_its_table_says(played, kind, number) -> None:
    """Status, code, counts, notes, comm.error, calls, log and sync are those of the table, behind every wall.

    Under gVisor a fork bomb ends the kernel that it runs on: the table knows that, and nothing else.
    """
    report = played.reports[number]
    assert report.wrong == (), report.text
    assert not report.known or (kind == "gvisor" and number == _FORK_BOMB)


@pytest.mark.parametrize("number", SCENARIOS)
def test_comm_error_is_raised_once_and_for_the_log_alone(played, number) -> None:
    """ERROR lines or a traceback in user.log raise it, with exactly that message; timeouts and denied tools do not."""
    heard, log = played.heard[number].errors, played.reports[number].seen.user_log
    assert [error["message"] for error in heard] == ([MESSAGE] if "Traceback" in log or " ERROR user " in log else [])
    for error in heard:
        result = played.reports[number].result
        assert (error["exec_id"], error["status"]) == (result.exec_id, result.status)
        assert error["lines"] or error["tracebacks"]


def test_the_report_has_its_parts(played) -> None:
    """The status, a tree of the sandbox without logs/, the tails of both logs, ERROR lines, what was synced."""
    text = played.reports[10].text
    assert text.startswith("status: ok\n")
    parts = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert parts[-5:] == [
        "sandbox:",
        "user.log, its end:",
        "infra.log, its end:",
        "ERROR lines:",
        "synced to the workspace:",
    ]
    tree = text.partition("\nsandbox:\n")[2].partition("\nuser.log")[0]
    for name in ("  out/", "  work/", "main.py", "user_code.py", "result.json", "hello-iso-runtime.txt"):
        assert name in tree
    assert "logs/" not in tree
    assert "user.log" not in tree
    assert "[executor] UID=1001 GID=1000" in text
    assert played.heard[10].said == [text]


def test_the_workspace_is_exactly_what_the_scenarios_left(played) -> None:
    """Files of programs and tools, of every run but the one that filled its disk; no log, no record, no link."""
    reports = played.reports
    turn = {number: reports[number].result.turn_id for number in reports}
    hello = [f"out/{turn[number]}/files/hello-iso-runtime.txt" for number in (0, 10, 11, 14, 17, 18)]
    two = [f"out/{turn[4]}/files/first.txt", f"out/{turn[12]}/files/one.txt", f"out/{turn[12]}/files/two.txt"]
    found = files_below(reports[0].space.workspace)
    notes = [path for path in found if path.startswith("out/notes/")]
    assert sorted(set(found) - set(notes)) == sorted(hello + two)
    assert len(notes) == 1
    assert (reports[0].space.workspace / notes[0]).read_text() == "note from iso-runtime"
    assert len(set(turn.values())) == len(turn)
    for number in _WAITING:
        assert files_below(reports[number].space.workspace) == []


def test_the_last_sandbox_keeps_its_logs(played) -> None:
    """What scenario 19 left, logs and result too, is in the user's sandbox until the next run."""
    found = files_below(played.reports[19].space.sandbox)
    assert {"out/logs/user.log", "out/logs/infra.log", "out/result.json", "work/user_code.py", "out/junk-1"} <= set(
        found
    )


def test_out_of_memory_is_told_apart(played, kind) -> None:
    """A kill by the kernel and a MemoryError are both out_of_memory, and the message says which it was.

    gVisor's own kernel is what is killed, so nobody is left to say how much it used.
    """
    error, log = played.reports[5].result.error, played.reports[5].seen.user_log
    if "MemoryError" in log:
        assert error.details["exception"] == "MemoryError"
        assert played.heard[5].errors
    else:
        assert played.reports[5].result.signal == 9
        assert error.message == "killed for exceeding its memory limit of 1 GiB"
        assert not played.heard[5].errors
    if kind != "gvisor":
        assert played.reports[5].result.usage["max_rss_bytes"] > 700 << 20


def test_the_supervisor_held_the_secret_that_was_looked_for(played) -> None:
    """The tool knew the canary's digest, and no file of any run holds the canary."""
    import hashlib
    import json

    record = played.reports[14].result.tool_calls[0]["record"]
    told = json.loads((played.reports[14].result.out_dir / record).read_text())["result"]
    assert told == hashlib.sha256(played.canary.encode()).hexdigest()
    for path in files_below(played.root):
        assert played.canary.encode() not in (played.root / path).read_bytes(), path


def test_control_the_search_finds_a_secret_that_is_there(rt, sealed) -> None:
    """The program of scenario 14, run beside a file that holds what it looks for, says GOT and is wrong."""
    import hashlib

    canary = "isorun-canary-" + "5" * 32
    program = SCENARIOS[14].program.partition("pattern =")[2]
    digest = hashlib.sha256(canary.encode()).hexdigest()
    code = f"import hashlib, re\ndigest = {digest!r}\npattern ={program}"
    for where in ("/workspace/work/here.txt", "/dev/shm/here"):
        planted = f"open({where!r}, 'w').write('isorun-canary-' + '5' * 32)\n"
        result = rt.execute(planted + code, contract=SCENARIOS[14].contract("turn_1"), timeout_s=30)
        assert f"GOT the supervisor's secret in {where}\n" in result.stdout
        seen = VERDICTS.Seen(result=result, user_log=result.stdout, notes=0, comm_error=False, synced=True)
        assert "the program got out" in VERDICTS.wrong_with(SCENARIOS[14], seen)
    in_environment = f"import os\nos.environ['X'] = 'isorun-canary-' + '5' * 32\n{code}"
    assert "GOT the supervisor's secret in the environment\n" in rt.execute(in_environment, turn_id=1).stdout


def test_control_a_verdict_that_is_not_as_expected_is_told(rt, sealed) -> None:
    """Another status, another count, a missing line, and a program that got out are each named."""
    result = rt.execute("print('GOT out')", contract=SCENARIOS[0].contract("turn_1"))
    seen = VERDICTS.Seen(result=result, user_log="GOT out\n", notes=2, comm_error=True, synced=False)
    assert VERDICTS.wrong_with(SCENARIOS[0], seen) == (
        "status: expected 'ok', got 'contract_failed'",
        "code: expected None, got 'missing_output_files'",
        "succeeded: expected 1, got 0",
        "missing: expected 0, got 1",
        "notes: expected 1, got 2",
        "comm_error: expected False, got True",
        "calls: expected (('local_tools.write_note', 'ok'),), got ()",
        "synced: expected True, got False",
        "user.log should hold 'wrote a file and a note'",
        "the program got out",
    )


async def test_unknown_text_gets_the_list(tmp_path) -> None:
    """No scenario is run for text that names none; the list is said, and offered to be clicked."""
    heard = Heard()
    assert await WORKFLOW.Workflow(heard, settings=settings_below(tmp_path)).run("hello") is None
    assert heard.said == ["There is no such scenario. There are:\n" + "\n".join(heard.followups)]
    assert [text.split(".")[0] for text in heard.followups] == [str(number) for number in range(20)]
    assert files_below(tmp_path) == []


async def test_a_workflow_without_a_subsystem_opens_its_own(tmp_path, require) -> None:
    """One message is enough: scenario 0 by its follow-up, its output heard as it came."""
    heard = Heard()
    flow = WORKFLOW.Workflow(heard, user_id="bob", settings=settings_below(tmp_path))
    try:
        report = await flow.run("0. Happy path: a file and a note")
    except isorun.Unavailable as error:
        require("namespace", str(error))
    assert report.wrong == ()
    assert heard.printed == b"wrote a file and a note\n"
    assert heard.followups[3] == "3. Raise"


@pytest.mark.no_backend
def test_a_known_difference_is_one_of_a_kernel_of_its_own_alone(kind: str) -> None:
    """A fork bomb that is killed is wrong on the host's kernel; on its own it is not, while every wall held."""
    bomb = SCENARIOS[_FORK_BOMB]

    def seen(runtime: str, *, status: str = "killed", says: str = "forking", level: str = "full") -> object:
        error = RunError(code=Code.SIGNAL, message="ended by signal 9")
        lost = RunResult.unseen(exec_id="x", turn_id="t", prog_name="", out_dir=Path("/x"), error=error, timings={})
        isolation = {"level": level, "walls": {"runtime": runtime} if runtime else {}}
        result = replace(lost, status=Status(status), isolation=isolation, missing=("a",))
        return VERDICTS.Seen(result=result, user_log=says, notes=0, comm_error=False, synced=True)

    assert VERDICTS.wrong_with(bomb, seen("runsc")) == ()
    assert VERDICTS.known_ending(bomb, seen("runsc")).startswith("a fork bomb ends the kernel")
    for other in (
        seen("runc"),
        seen("crun"),
        seen(""),
        seen("runsc", status="ok"),
        seen("runsc", says="forking\nGOT out"),
        seen("runsc", says=""),
        seen("runsc", level="weakened"),
    ):
        assert VERDICTS.wrong_with(bomb, other)
        assert VERDICTS.known_ending(bomb, other) == ""
    assert VERDICTS.wrong_with(SCENARIOS[1], seen("runsc"))
