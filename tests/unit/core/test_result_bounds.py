"""What is done after a run is bounded: no program makes the host count, fold or write without end."""

import json
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

import isorun
from isorun.core import report
from isorun.core.contract.items import Contract, ContractItem
from isorun.core.outcome import Code, Exit
from isorun.core.report import error_lines, report_text, tracebacks, tree
from isorun.core.result import MAX_READ, MAX_STORED, Few, Item, RunError, RunResult, _pieces, as_json
from isorun.core.text import visible_json
from isorun.runtime.inspection.verdict import judge
from isorun.store.collect import Collected, FileRecord
from isorun.store.recovery import listing
from isorun.testing.fake import Script
from tests.unit.results import result
from tests.unit.runtime.test_runtime_scripted import ENDINGS, outcome, runtime

INODES = 9_900
SLOW = "\u0390"  # one letter of two bytes that folds to three
TAG = "\U000e0041"  # four bytes, ten characters once it is escaped


def work(function: Callable[[], object]) -> int:
    """How many calls, of Python's functions and of C's, *function* makes: its work, whatever the machine does."""
    count = 0

    def note(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def collected(*paths: str) -> Collected:
    return Collected(
        files={path: FileRecord(path=path, bytes=1, sha256="0" * 64, mime="text/plain") for path in paths}, refused=()
    )


def contract(*paths: str) -> Contract:
    return Contract(turn="t", items=tuple(ContractItem(path=path, description="d") for path in paths))


PROMISED = tuple(f"turn_t/files/{SLOW * 100}{n}" for n in range(100))
STRAYS = {
    "alike in nothing": [f"{SLOW * 100}{n}" for n in range(1000, 1000 + INODES)],
    "one name but for its case": [f"{n}/{SLOW * 100}{n % 100}" for n in range(INODES)],
    "deep folders": [f"{'a/' * 400}{n}/{SLOW * 50}0" for n in range(INODES)],
    "below what is promised": [f"{PROMISED[0]}/{n}" for n in range(INODES)],
}


@pytest.mark.parametrize("strays", STRAYS.values(), ids=STRAYS)
def test_a_hundred_broken_promises_among_all_the_files_there_can_be(strays) -> None:
    """Each stray is folded once, and a bound of them: not once for each promise."""
    promises, found = contract(*PROMISED), collected(*strays)
    assert work(lambda: judge(promises, found)) < 200_000


def test_the_nearest_of_many_is_still_found() -> None:
    """The bound does not cost an honest program its hint."""
    found = collected("report.md", *(f"data/{n}.csv" for n in range(500)))
    (verdict,) = judge(contract("turn_t/files/report.md"), found)
    assert verdict.hints == ("found out/report.md, promised turn_t/files/report.md",)


LOGS = {
    "blank lines behind a fatal error": "Fatal Python error: x" + "\n" * (1 << 20),
    "fatal errors and blank lines": "Fatal Python error: x\n\n\n\n" * 40_000,
    "threads behind a fatal error": "Fatal Python error: x\n" + "Thread 0x\n" * 100_000,
    "headers of tracebacks": "Traceback (most recent call last):\n" * 30_000,
    "chains": f"Traceback (most recent call last):\nE: x\n\n{report._CHAINS[0]}\n\n" * 8_000,
    "syntax errors without an end": '  File "x", line 1\n    x\n' * 40_000,
    "a group": "  + Exception Group Traceback (most recent call last):\n" + "  | x\n" * 150_000,
    "frames": "Traceback (most recent call last):\n" + "  x\n" * 250_000,
    "errors": "ERROR x\n" * 130_000,
    "times": "2025-01-01 00:00:00 - " + "a" * 200 + "\n" * 1000,
}


@pytest.mark.slow
@pytest.mark.parametrize("log", LOGS.values(), ids=LOGS)
def test_no_log_costs_more_than_its_lines(log) -> None:
    """A few calls a line, and of a bounded number of lines; what comes out is bounded, too."""
    assert work(lambda: (tracebacks(log), error_lines(log))) < 12 * report.MAX_SCANNED_LINES
    assert sum(map(len, tracebacks(log))) <= report.MAX_TRACEBACK_CHARS


def test_tracebacks_of_what_grows_when_it_is_shown() -> None:
    """Twenty tracebacks of two hundred lines, each character of which is ten when escaped."""
    log = "\n".join(["Traceback (most recent call last):", *[f"  {TAG * 40}"] * 198, "E: x"] * 40)
    found = tracebacks(log)
    assert 0 < sum(map(len, found)) <= report.MAX_TRACEBACK_CHARS
    assert found[-1].endswith("E: x")


def test_a_tree_of_all_the_files_there_can_be() -> None:
    """Only the first lines are made; of deep folders, too."""
    deep = [f"{'ab/' * 330}{n}" for n in range(INODES)]
    assert work(lambda: tree(deep)) < 30 * INODES
    assert len(tree(deep)) < (report.MAX_TREE_LINES + 1) * 600
    assert tree(["b", "a/b", "a-", "logs/x", "out/logs/y", "log"]) == "a/\n  b\na-\nb\nlog"


def test_a_report_has_an_end() -> None:
    """A thousand promises that are broken in ten ways each, and every list full."""
    paths = tuple(f"{n}{TAG * 250}" for n in range(1000))
    codes, hints = ("artifact_invalid",), ("h" * 2000,) * 50
    full = result(
        prog_name="p",
        status=isorun.Status.CONTRACT_FAILED,
        items=tuple(Item(path=path, state="invalid", codes=codes, hints=hints) for path in paths),
        missing=paths,
        succeeded=paths,
        user_log_tail="\x00" * 100_000,
        workspace_diff={"created": paths, "modified": paths, "deleted": paths},
        notices=paths,
    )
    text = report_text(full)
    assert len(text) <= report.MAX_REPORT_CHARS + 100
    assert text.splitlines()[-1].endswith(" more lines")


def test_a_report_says_what_its_lists_leave_out() -> None:
    """The count is of the files, not of what was kept of their list."""
    text = report_text(
        result(workspace_diff={"created": ("a",), "modified": (), "deleted": ()}), left_out=(8_900, 0, 3)
    )
    assert text == "status: ok\nrun: e\ncreated:\n  - a\n  … 8900 more\ndeleted:\n  … 3 more\n"


@pytest.mark.parametrize(
    ("paths", "kept"), [(["a"] * 5000, 1000), (["x" * 1000] * 500, 262), (["\ud800" * 300] * 500, 291), ([], 0)]
)
def test_a_list_of_paths_is_bounded_by_count_and_bytes(paths, kept) -> None:
    """What is left out is counted."""
    few = Few(paths)
    assert (len(few.paths), few.left_out) == (kept, len(paths) - kept)


NAMES = {
    "folded": f"{SLOW * 120}/{SLOW * 120}/{SLOW * 120}/{SLOW * 120}/",
    "unseen": f"{TAG * 60}/{TAG * 60}/{TAG * 60}/{TAG * 60}/",
    "quoted": f"{chr(34) * 240}/{chr(34) * 240}/{chr(34) * 240}/{chr(34) * 240}/",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
async def test_a_run_that_left_all_the_files_it_can_is_ok(tmp_path: Path, name: str) -> None:
    """Long names, as many as there are inodes: the result is small, says what it leaves out, and can be read again."""
    files = {f"{name}{n}": b"" for n in range(INODES)}
    done = await outcome(tmp_path, Script(files=files, exit=Exit(code=0)))
    stored = (done.out_dir / "result.json").read_bytes()
    assert len(stored) < 8 << 20
    assert len(done.artifacts) == len(done.items) == len(done.workspace_diff["created"]) < 300
    assert f"{len(done.artifacts)} of {INODES} created files are listed; out/ has all {INODES}" in done.notices
    assert [run.status for run in listing(tmp_path)] == ["ok"]
    assert done.artifacts[0].file.exists()
    if SLOW in name:
        assert SLOW.encode() in stored


async def test_new_files_do_not_hide_what_was_deleted(tmp_path: Path) -> None:
    """Each list has a bound of its own."""
    before = tmp_path / "before"
    before.mkdir()
    (before / "zz-important").write_text("x")
    files = {f"{n}": b"" for n in range(2000)}
    async with runtime(tmp_path / "root", Script(files=files, exit=Exit(code=0))) as rt:
        done = await rt.execute("pass", start_from=before)
    assert done.workspace_diff["deleted"] == ("zz-important",)
    assert "deleted: zz-important" in done.notices


def worst(**changes: object) -> RunResult:
    """A result that is as long as a program can make it, and more."""
    unseen = RunResult.unseen(
        exec_id="x",
        turn_id="t",
        prog_name="p",
        out_dir=Path("/x"),
        error=RunError(code=Code.SIGNAL, message=""),
        timings={},
    )
    return replace(unseen, **changes)


@pytest.mark.slow
@pytest.mark.parametrize("text", [TAG, "x"])
@pytest.mark.parametrize("field", ["stdout", "report_text", "notices"])
def test_a_stored_result_fits_whatever_is_in_it(field: str, text: str) -> None:
    """Beyond what the code that fills a field lets through; readers take what was written."""
    assert MAX_STORED < MAX_READ
    value = (text * 1000,) * 6000 if field == "notices" else text * 6_000_000
    stored = worst(**{field: value}).stored()
    assert len(stored) <= MAX_STORED
    assert set(json.loads(stored)) == {f.name for f in fields(RunResult)}
    assert len(worst(notices=("x" * 1000,) * 60_000).stored()) <= MAX_STORED


def test_a_result_is_utf8_and_shows_what_it_hides() -> None:
    """Letters are letters; what nobody sees, and a lone surrogate, is an escape that reads back as itself."""
    said = "é 東京 ❤️ \u200b\x9b\U000e0041\ud800\n"
    stored = worst(stdout=said).stored()
    assert "é 東京 ❤️ \\u200b\\u009b\\udb40\\udc41\\ud800\\n".encode() in stored
    assert json.loads(stored)["stdout"] == said
    assert json.loads(worst(stdout=said).to_json())["stdout"] == said
    with pytest.raises(ValueError, match="not JSON compliant"):
        worst(usage={"wall_s": float("nan")}).stored()


async def test_every_result_has_the_same_keys(tmp_path: Path) -> None:
    """Whatever ended the run, and if nobody saw its end: one reader reads them all."""
    shapes = {}
    for name, (script, _, _) in ENDINGS.items():
        done = await outcome(tmp_path / str(len(shapes)), script)
        shapes[name] = shape(json.loads((done.out_dir / "result.json").read_bytes()))
    async with runtime(tmp_path / "failed", Script(lost=isorun.SetupFailed("zygote", "it died"))) as rt:
        with pytest.raises(isorun.SetupFailed):
            await rt.execute("pass")
        (stored,) = (tmp_path / "failed").glob("codegen_*/out/result.json")
        shapes["the sandbox failed"] = shape(json.loads(stored.read_bytes()))
    shapes["lost"] = shape(json.loads(worst().stored()))
    assert {name: found for name, found in shapes.items() if found != shapes["lost"]} == {}


def shape(stored: dict[str, Any]) -> dict[str, object]:
    """The keys, and those of the objects in it whose keys are fixed."""
    inner = {key: sorted(stored[key]) for key in ("timings", "usage", "limits", "isolation")}
    error = ["code", "details", "hint", "message", "where"]
    assert stored["error"] is None or sorted(stored["error"]) == error
    return {"keys": sorted(stored), **inner}


async def test_what_was_written_beside_the_promises_is_told(tmp_path: Path) -> None:
    """The first ten names; it can be promised the next time. What was there before and is unchanged is not news."""
    before = tmp_path / "before"
    before.mkdir()
    (before / "old.txt").write_text("x")
    files = {"turn_1/files/a.bin": b"x", "old.txt": b"x", "turn_1/files/chart.png": b"12345"}
    promise = [{"filename": "turn_1/files/a.bin", "description": "d"}]
    async with runtime(tmp_path / "root", Script(files=files, exit=Exit(code=0))) as rt:
        done = await rt.execute("pass", contract=promise, start_from=before)
    assert done.notices == ("also written, not promised: turn_1/files/chart.png (5 bytes)",)
    assert [artifact.path for artifact in done.artifacts] == ["turn_1/files/a.bin"]
    many = {"turn_1/files/a.bin": b"x", **{f"{n:02}\u200b": b"" for n in range(13)}}
    async with runtime(tmp_path / "root", Script(files=many, exit=Exit(code=0))) as rt:
        (notice,) = (await rt.execute("pass", contract=promise)).notices
    assert notice.startswith("also written, not promised: 00\\u200b (0 bytes), 01")
    assert notice.endswith("09\\u200b (0 bytes) and 3 more")


@pytest.mark.parametrize(
    "value",
    [
        {"stdout": "x" * 100_000, "stderr": "\x01é\n\ufffd\u200b" * 20_000, "b": [1, None, 0.5, True]},
        {"notices": ["a", "ü" * 40_000], "nested": {"k": [{"d": '\\"' * 30_000}], "": {}}},
        [[[]], ["\x7f" * 50_000] * 3],
        "\U000e0041" * 40_000,
        {},
    ],
    ids=["texts", "nested", "lists", "text", "nothing"],
)
def test_a_document_made_in_pieces_is_the_same(value: object) -> None:
    """No piece is long to make, and what is read back is what json alone would have written."""
    made = as_json(value)
    assert made == visible_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(made) == value
    assert max(map(len, _pieces(value))) < 200_000
