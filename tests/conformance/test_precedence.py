"""B5: a run's own failure comes before missing files, and those before invalid ones; what is fine stays fine."""

import pytest

NAMES = ("good.json", "bad.json", "missing.json")
CONTRACT = [{"filename": f"turn_1/files/{name}", "description": "d"} for name in NAMES]
WRITE = "Path('turn_1/files/good.json').write_text('{}'); Path('turn_1/files/bad.json').write_text('{')\n"
ENDINGS: dict[str, tuple[str, dict[str, object], str, str]] = {
    "raises": ("raise ValueError('mine')", {}, "failed", "program_error"),
    "exits": ("raise SystemExit(3)", {}, "failed", "nonzero_exit"),
    "is killed": ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", {}, "killed", "signal"),
    "hangs": ("while True: pass", {"timeout_s": 1}, "timed_out", "timeout"),
}


def states(result) -> list[tuple[str, tuple[str, ...]]]:
    return [(entry.state, entry.codes) for entry in result.items]


EXPECTED = [("ok", ()), ("invalid", ("artifact_invalid",)), ("missing", ("missing_file",))]


@pytest.mark.table
@pytest.mark.parametrize("case", ENDINGS)
def test_the_runs_own_failure_comes_first_and_files_are_judged_all_the_same(run, case: str) -> None:
    """The error is the program's; the file that is fine is in `succeeded`, the one that is not is not."""
    code, options, status, word = ENDINGS[case]
    result = run(WRITE + code, contract=CONTRACT, **options)
    assert (result.status, result.error.code) == (status, word)
    assert states(result) == EXPECTED
    assert (result.succeeded, result.missing) == (("turn_1/files/good.json",), ("turn_1/files/missing.json",))
    assert [artifact.path for artifact in result.artifacts] == ["turn_1/files/good.json"]
    report = result.report_text
    assert (
        report.index("runtime failure")
        < report.index("file errors")
        < report.index("missing")
        < report.index("succeeded")
    )


def test_a_missing_file_comes_before_an_invalid_one(run) -> None:
    """A run that ended well with both is `missing_output_files`; each item still says its own."""
    result = run(WRITE, contract=CONTRACT)
    assert (result.status, result.error.code, result.exit_code) == ("contract_failed", "missing_output_files", 0)
    assert states(result) == EXPECTED


def test_an_invalid_file_alone_is_a_failed_validation(run) -> None:
    """With nothing missing the error is the invalid file's, and its hint is the error's."""
    result = run(WRITE, contract=CONTRACT[:2])
    assert (result.status, result.error.code) == ("contract_failed", "artifact_validation_failed")
    assert result.error.hint.startswith("turn_1/files/bad.json is not JSON: ")


def test_nothing_wrong_is_ok(run) -> None:
    """The same program under a promise that it keeps."""
    result = run(WRITE, contract=CONTRACT[:1])
    assert (result.status, result.error) == ("ok", None)
