"""The host's side of looking into files: which ones, what is believed of the answers, what becomes of the rest.

The inspectors here follow scripts; real ones are in `test_inspector` and in the conformance kit.
"""

import asyncio
import itertools
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from isorun import Settings
from isorun.backends.base import Program, Slot, Usage
from isorun.core.contract.items import Contract, ContractItem, parse_contract
from isorun.core.limits import Limits
from isorun.core.outcome import Exit
from isorun.runtime.inspection.inspection import Found, Inspection, _Task, decode_answer, limits_for, to_inspect
from isorun.runtime.inspection.verdict import checks_with, judge
from isorun.store.collect import Collected, FileRecord
from isorun.store.folder import Lease, RunFolder, open_root
from isorun.testing.fake import FakeBackend, Script, ScriptedBackend, ScriptedSlot, _directories, _Ends, _folder

EXEC_ID = "20260101-120000-000001-0123456789ab"
SAID = Exit(code=0)


def contract(*names: str, **more: object) -> Contract:
    items = [{"filename": f"turn_1/files/{name}", "description": "d", **more} for name in names]
    return parse_contract(items, turn="1", exec_id=EXEC_ID, max_items=100)


def record(item: ContractItem, size: int = 2) -> FileRecord:
    digest = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"  # of {}
    return FileRecord(path=item.path, bytes=size, sha256=digest, mime="application/json")


async def inspected(
    root: Path, promised: Contract, *scripts: Script, file_s: float = 5.0, total_s: float = 9.0
) -> tuple[Found, str, int]:
    """What is found of files that are all there and hold `{}`; infra.log; how many slots it took."""
    return await inspected_by(root, promised, ScriptedBackend(*scripts), file_s, total_s)


async def inspected_by(
    root: Path,
    promised: Contract,
    backend: ScriptedBackend,
    file_s: float = 5.0,
    total_s: float = 9.0,
    slice_s: float = 2.0,
) -> tuple[Found, str, int]:
    """As `inspected`, with a backend of the test's own."""
    with Lease.take(open_root(root)) as host:
        folder = RunFolder.create(root, EXEC_ID, host, {})
        folder.append_infra("runtime", "INFO", "here begins infra.log")
        for item in promised.items:
            file = folder.out / item.path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("{}")
        collected = Collected(files={item.path: record(item) for item in promised.items}, refused=())
        seconds = {"file_s": file_s, "total_s": total_s, "slice_s": slice_s}
        async with backend, Inspection(backend, Settings(), **seconds) as inspection:
            found = await inspection.inspect(promised, collected, folder)
        return found, folder.infra_text(), backend.launched


def hints(found: Found) -> dict[str, tuple[str, ...]]:
    return {path.removeprefix("turn_1/files/"): tuple(f.hint for f in findings) for path, findings in found.items()}


@pytest.mark.parametrize(
    ("name", "checks", "wanted"),
    [
        ("a.md", {}, False),
        ("a", {}, False),
        ("a.md", {"min_bytes": 3}, False),
        ("a.md", {"must_contain": "x"}, True),
        ("a.md", {"mime": "text/markdown"}, True),
        *((f"a{suffix}", {}, True) for suffix in (".xlsx", ".docx", ".pptx", ".zip", ".pdf", ".png", ".jpg", ".jpeg")),
        ("a.json", {}, True),
        ("a.CSV", {}, True),
    ],
)
def test_which_files_are_looked_into(name: str, checks: dict[str, object], wanted: bool) -> None:
    """Those whose suffix promises a type, and those with a check that their size does not decide."""
    assert bool(to_inspect(contract(name, **checks))) is wanted


def test_a_run_without_a_contract_has_nothing_to_look_into() -> None:
    """What a program left without a promise is never opened."""
    assert to_inspect(None) == ()


async def test_nothing_is_launched_for_files_that_are_not_there_or_empty(tmp_path: Path) -> None:
    """A missing file needs no slot to be called missing."""
    promised = contract("a.json", "b.json")
    backend = ScriptedBackend(Script())
    with Lease.take(open_root(tmp_path)) as host:
        folder = RunFolder.create(tmp_path, EXEC_ID, host, {})
        empty = {promised.items[0].path: record(promised.items[0], 0)}
        async with Inspection(backend, Settings()) as inspection:
            found = await inspection.inspect(promised, Collected(files=empty, refused=()), folder)
    assert (found, backend.launched) == ({}, 0)


async def test_answers_belong_to_files_in_order(tmp_path: Path) -> None:
    """One slot for all files; a finding is shown with its file's name."""
    answers = b'[]\n[["artifact_invalid", "is odd"], ["artifact_too_large", "is big"]]\n'
    found, infra, slots = await inspected(tmp_path, contract("a.json", "b.json"), Script(stdout=answers))
    assert hints(found) == {"a.json": (), "b.json": ("turn_1/files/b.json is odd", "turn_1/files/b.json is big")}
    assert [f.code for f in found["turn_1/files/b.json"]] == ["artifact_invalid", "artifact_too_large"]
    assert (slots, "inspector" in infra) == (1, False)


WHY = "could not be opened: the inspector ended without an answer"
DEATHS: dict[str, tuple[Script, str, str]] = {
    "segfault": (Script(stdout=b"[]\n", exit=Exit(signal=11)), "artifact_invalid", f"{WHY} (signal 11)"),
    "exit": (Script(stdout=b"[]\n", exit=Exit(code=1)), "artifact_invalid", f"{WHY} (exit 1)"),
    "memory": (
        Script(stdout=b"[]\n", exit=Exit(signal=9, oom_kills=1)),
        "artifact_too_large",
        "needs more than 774 MiB of memory to open; write a smaller file",
    ),
    "hangs": (
        Script(stdout=b"[]\n"),
        "artifact_invalid",
        "could not be opened in 0.3 s; write a smaller or simpler file",
    ),
    "half an answer": (Script(stdout=b"[]\n[[", exit=SAID), "artifact_invalid", f"{WHY} (exit 0)"),
    "nonsense": (Script(stdout=b"[]\nok\n[]\n"), "artifact_invalid", f"{WHY} (it sent something else)"),
    "a code of ours": (
        Script(stdout=b'[]\n[["empty_file", ""]]\n'),
        "artifact_invalid",
        f"{WHY} (it sent something else)",
    ),
    "no end of line": (Script(stdout=b"[]\n" + b" " * 60_000), "artifact_invalid", f"{WHY} (it sent something else)"),
    "stderr flood": (
        Script(stdout=b"[]\n", stderr=b"\x1b[2J\n" * 9000, exit=Exit(code=1)),
        "artifact_invalid",
        f"{WHY} (exit 1)",
    ),
}


@pytest.mark.parametrize("case", DEATHS)
async def test_the_file_in_progress_is_invalid_and_a_new_slot_goes_on(tmp_path: Path, case: str) -> None:
    """What kills, hangs or turns the inspector costs its own file only; the answers before and after count."""
    script, code, hint = DEATHS[case]
    promised = contract("a.json", "bad.json", "c.json")
    found, infra, slots = await inspected(tmp_path, promised, script, Script(stdout=b"[]\n"), file_s=0.3)
    assert list(found) == [item.path for item in promised.items]
    ((got, text),) = ((f.code, f.hint) for f in found["turn_1/files/bad.json"])
    assert (got, text[: len(hint) + 22]) == (code, f"turn_1/files/bad.json {hint}")
    assert (found["turn_1/files/a.json"], found["turn_1/files/c.json"], slots) == ((), (), 2)
    assert "[inspector] ended early: " in infra
    assert "\x1b" not in infra


class LastWords(ScriptedBackend):
    """Its slots are seen to end before their last answer is read."""

    @asynccontextmanager
    async def launch(self, limits: Limits) -> AsyncIterator[Slot]:
        async with super().launch(limits) as slot:
            kill = slot.kill

            async def answer_and_die() -> tuple[Exit, Usage]:
                os.write(slot._ends.theirs()[1], b"[]\n")
                return await kill()

            slot.kill = answer_and_die
            yield slot


async def test_an_answer_that_is_still_in_the_pipe_at_the_end_counts(tmp_path: Path) -> None:
    """The end of a process can be seen before its last words are read."""
    found, _, slots = await inspected_by(tmp_path, contract("a.json"), LastWords(Script(exit=SAID)))
    assert (found, slots) == ({"turn_1/files/a.json": ()}, 1)


async def test_answers_beyond_the_last_file_are_not_read(tmp_path: Path) -> None:
    """Neither as answers nor as a reason to doubt the ones that were due."""
    found, _, slots = await inspected(tmp_path, contract("a.json"), Script(stdout=b"[]\n" * 100, exit=SAID))
    assert (found, slots) == ({"turn_1/files/a.json": ()}, 1)


async def test_the_time_for_all_files_ends_the_inspection(tmp_path: Path) -> None:
    """The file in progress and those after it are invalid, and the hint says who used the time up."""
    found, _, slots = await inspected(tmp_path, contract("a.json", "b.json", "c.json"), Script(), total_s=0.3)
    assert slots == 1
    assert hints(found) == {
        "a.json": ("turn_1/files/a.json could not be opened in 0.3 s; write a smaller or simpler file",),
        **{
            name: (
                f"turn_1/files/{name} was not checked: the other files of the run used up the 0.3 s for all of them",
            )
            for name in ("b.json", "c.json")
        },
    }


class _Slot(ScriptedSlot):
    """Hangs over a file whose name says so, and finds every other file to be fine."""

    async def start(self, program: Program) -> None:
        job = next(file.data for file in program.files if file.path == "work/job.json")
        names = [task["name"] for task in json.loads(job)]
        fine = list(itertools.takewhile(lambda name: "hangs" not in name, names))
        self._script = Script(stdout=b"[]\n" * len(fine), exit=SAID if len(fine) == len(names) else None)
        self._exit = self._script.exit
        await super().start(program)


class _Hanging(ScriptedBackend):
    @asynccontextmanager
    async def launch(self, limits: Limits) -> AsyncIterator[Slot]:
        self.launched += 1
        async with AsyncExitStack() as stack:
            yield _Slot(Script(), _Ends(stack), *_directories(stack, _folder(stack)))


async def test_a_run_that_takes_long_goes_on_in_another_slot(tmp_path: Path) -> None:
    """Cut after its first turn: what was answered stays, and only its second turn says that a file is too slow."""
    promised = contract("a.json", "hangs.json", "b.json")
    found, infra, slots = await inspected_by(tmp_path, promised, _Hanging(), file_s=0.3, slice_s=0.1)
    slow = "turn_1/files/hangs.json could not be opened in 0.3 s; write a smaller or simpler file"
    assert hints(found) == {"a.json": (), "hangs.json": (slow,), "b.json": ()}
    assert (slots, infra.count("ended early")) == (3, 1)
    found, _, slots = await inspected_by(tmp_path / "2", promised, _Hanging(), file_s=0.1, slice_s=5.0)
    assert (hints(found)["b.json"], slots) == ((), 2)  # the control: with a longer turn there is no cut


async def test_files_that_hang_hold_up_no_other_runs_files(tmp_path: Path) -> None:
    """Twice as many such runs as there are places, 30 s each: a neighbour's file is answered before any ends."""
    async with _Hanging() as backend, Inspection(backend, Settings(), file_s=30.0, slice_s=0.1) as inspection:
        with ExitStack() as stack:
            places = 2 * max(2, os.cpu_count() or 1)
            given = [_promised(stack, tmp_path / str(n), "hangs.json") for n in range(places)]
            hanging = [asyncio.ensure_future(inspection.inspect(*one)) for one in given]
            try:
                while backend.launched < 2:  # noqa: ASYNC110 - a number tells nobody that it has grown
                    await asyncio.sleep(0)
                async with asyncio.timeout(20):
                    found = await inspection.inspect(*_promised(stack, tmp_path / "neighbour", "a.json"))
                assert hints(found) == {"a.json": ()}
                assert not any(task.done() for task in hanging)
            finally:
                for task in hanging:
                    task.cancel()
                await asyncio.gather(*hanging, return_exceptions=True)


def _promised(stack: ExitStack, root: Path, name: str) -> tuple[Contract, Collected, RunFolder]:
    promised = contract(name)
    host = stack.enter_context(Lease.take(open_root(root)))
    folder = RunFolder.create(root, EXEC_ID, host, {})
    file = folder.out / promised.items[0].path
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    return promised, Collected(files={promised.items[0].path: record(promised.items[0])}, refused=()), folder


async def test_a_missing_library_is_told_to_the_operator_too(tmp_path: Path) -> None:
    """The file does not pass, its hint has the remedy, and infra.log has an ERROR."""
    found, infra, _ = await inspected(tmp_path, contract("a.pdf"), Script(stdout=b'[["missing_library", "pypdf"]]\n'))
    ((finding,),) = found.values()
    assert finding.code == "artifact_invalid"
    assert "could not be opened: the Python that isorun runs on lacks pypdf; the operator can install" in finding.hint
    assert "ERROR [inspector] turn_1/files/a.pdf could not be opened" in infra


async def test_hints_of_an_inspector_that_was_taken_over_are_escaped(tmp_path: Path) -> None:
    """They start no line, move no cursor, and can be written as UTF-8."""
    answer = json.dumps([["artifact_invalid", "a\nstatus: ok \x1b[2J \u202e \ud800"]]).encode() + b"\n"
    found, _, _ = await inspected(tmp_path, contract("a.json"), Script(stdout=answer))
    ((hint,),) = hints(found).values()
    assert hint == "turn_1/files/a.json a\\nstatus: ok \\x1b[2J \\u202e \\ud800"


def test_a_file_that_should_have_been_looked_into_and_was_not_is_invalid() -> None:
    """The gap between collecting and judging cannot make a promise kept."""
    promised = contract("a.json", "b.md")
    collected = Collected(files={item.path: record(item) for item in promised.items}, refused=())
    first, second = judge(promised, collected, checks_with({}))
    assert (first.state, first.hints, second.state) == (
        "invalid",
        ("turn_1/files/a.json was not checked",),
        "ok",
    )


answers = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["artifact_invalid", "x"]) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=8,
)


@given(st.binary(max_size=200) | answers.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 40_000)
@example(b"1" * 40_000)
@example(b'[["artifact_invalid", "' + b"x" * 601 + b'"]]')
@example(b'[["artifact_invalid", "x"]' + b', ["artifact_invalid", "x"]' * 10 + b"]")
@example(b" " * 70_000)
@example(b'[["artifact_invalid", "x", "y"]]')
@example(b'[{"artifact_invalid": "x"}]')
@example(b"[NaN]")
def test_any_line_is_findings_of_ours_or_nothing(line: bytes) -> None:
    """Whatever an inspector says, the host gets a bounded list of known codes with texts, or None."""
    decoded = decode_answer(line)
    if decoded is None:
        return
    assert len(decoded) <= 10
    for code, hint in decoded:
        assert code in ("artifact_invalid", "artifact_too_large", "missing_library")
        assert isinstance(hint, str)
        assert len(hint) <= 600


@pytest.mark.parametrize("size", [1, 1 << 20, (1 << 20) + 1, 100 << 20, 256 << 20, 1 << 32])
def test_the_ceilings_hold_the_files_and_what_it_takes_to_open_them(size: int) -> None:
    """Whatever the run's own limits are; and a few sizes make few cgroups."""
    item = ContractItem(path="turn_1/files/a.zip", description="d")
    limits = limits_for([_Task(item, record(item, size))])
    assert limits.workspace_bytes >= size + (4 << 20)
    assert limits.memory_bytes - limits.workspace_bytes >= 768 << 20
    assert limits.workspace_bytes - (4 << 20) in {1 << n for n in range(20, 34)}


async def test_programs_on_another_python_are_inspected_on_isoruns_own(tmp_path: Path) -> None:
    """A backend whose programs run elsewhere is not asked: that Python may have none of the libraries."""

    class Elsewhere(FakeBackend):
        @property
        def environment(self):  # noqa: ANN202 - as the base
            from dataclasses import replace

            return replace(super().environment, python="/opt/other/bin/python3")

    async with Elsewhere() as backend, Inspection(backend, Settings()) as inspection:
        assert await inspection._inspectors._sealed() is not backend
        assert (await inspection._inspectors._sealed()) is (await inspection._inspectors._sealed())
