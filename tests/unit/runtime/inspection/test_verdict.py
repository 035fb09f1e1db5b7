"""SPEC B3, B5 and the A9 hint: what becomes of each promise."""

import pytest

from isorun.core.contract.items import Contract, ContractItem
from isorun.core.outcome import Code
from isorun.core.result import Item
from isorun.runtime.inspection.verdict import Finding, judge, precedence
from isorun.store.collect import Collected, FileRecord, Refusal

REPORT = "turn_1/files/report.md"


def contract(*paths: str) -> Contract:
    return Contract(turn="turn_1", items=tuple(ContractItem(path=path, description="d") for path in paths))


def record(path: str, size: int = 3) -> FileRecord:
    return FileRecord(path=path, bytes=size, sha256="00", mime="text/markdown")


def found(*paths: str, refused: tuple[Refusal, ...] = ()) -> Collected:
    return Collected(files={path: record(path) for path in paths}, refused=refused)


def only(collected: Collected, path: str = REPORT) -> Item:
    (verdict,) = judge(contract(path), collected)
    return verdict


def test_a_kept_promise_carries_the_files_record() -> None:
    """The verdict repeats the promise's words and the file's facts."""
    assert only(found(REPORT)) == Item(
        path=REPORT,
        description="d",
        visibility="external",
        state="ok",
        sha256="00",
        bytes=3,
        mime="text/markdown",
    )


def test_a_file_that_is_nowhere_is_missing_without_a_hint() -> None:
    """There is no guess where no file has that name."""
    verdict = only(found("turn_1/files/other.md"))
    assert (verdict.state, verdict.codes, verdict.hints) == ("missing", ("missing_file",), ())
    assert (verdict.sha256, verdict.bytes, verdict.mime) == (None, None, None)


@pytest.mark.parametrize(
    ("paths", "nearest"),
    [
        (("report.md",), "report.md"),
        (("turn_1/files/Report.MD",), "turn_1/files/Report.MD"),
        (("report.md", "turn_1/report.md", "x/report.md"), "turn_1/report.md"),
        (("turn_1/files/REPORT.md", "report.md"), "report.md"),
        (("b/report.md", "a/report.md"), "a/report.md"),
        (("\u202ex/report.md",), r"\u202ex/report.md"),
    ],
)
def test_a_file_written_elsewhere_is_named(paths: tuple[str, ...], nearest: str) -> None:
    """Of the files of that name the exact one comes first, then the nearest folder."""
    verdict = only(found(*paths))
    assert verdict.codes == ("missing_file",)
    assert verdict.hints == (f"found out/{nearest}, promised {REPORT}",)


def test_another_normal_form_of_the_name_is_found() -> None:
    """A name typed with a combining accent is the same to people."""
    verdict = only(found("cafe\u0301.md"), "turn_1/files/caf\u00e9.md")
    assert verdict.hints == (
        "found out/cafe\u0301.md, promised turn_1/files/caf\u00e9.md: the same name in another Unicode form, so write "
        'unicodedata.normalize("NFC", name)',
    )


@pytest.mark.parametrize(
    ("found_as", "promised", "form"),
    [("u\u0308.md", "\u00fc.md", "NFC"), ("\u00fc.md", "u\u0308.md", "NFD"), ("\u212b.md", "\u00c5.md", "NFC")],
)
def test_two_names_that_look_the_same_are_told_apart(found_as: str, promised: str, form: str) -> None:
    """The hint says how to write the promised one, whichever form that is."""
    verdict = only(found(f"turn_1/files/{found_as}"), f"turn_1/files/{promised}")
    assert verdict.hints[0].endswith(f'so write unicodedata.normalize("{form}", name)')


def test_a_file_that_is_itself_promised_is_no_find() -> None:
    """a/x.md in its place is not the b/x.md that is missing."""
    kept, missing = judge(contract("turn_1/files/a/x.md", "turn_1/files/b/x.md"), found("turn_1/files/a/x.md"))
    assert (kept.state, missing.state, missing.hints) == ("ok", "missing", ())


def test_an_empty_file_is_invalid() -> None:
    """Zero bytes keep no promise, and no check is asked about them."""
    empty = Collected(files={REPORT: record(REPORT, 0)}, refused=())
    (verdict,) = judge(contract(REPORT), empty, [lambda item, file: [Finding(code="never", hint="")]])
    assert (verdict.state, verdict.codes, verdict.bytes) == ("invalid", ("empty_file",), 0)
    assert verdict.hints == (f"out/{REPORT} has no bytes",)


@pytest.mark.parametrize("refused", [REPORT, "turn_1/files", "turn_1", "."])
@pytest.mark.parametrize(
    "code",
    [
        "artifact_symlink_blocked",
        "artifact_path_escape_blocked",
        "artifact_not_regular_file",
        "artifact_too_large",
    ],
)
def test_a_refused_path_or_parent_gives_its_code(refused: str, code: str) -> None:
    """The promise is invalid, not missing: something was there, and the hint says what."""
    verdict = only(found(refused=(Refusal(path=refused, code=code, reason="is bad"),)))
    assert (verdict.state, verdict.codes, verdict.hints) == ("invalid", (code,), (f"out/{refused} is bad",))


def test_a_refusal_beside_the_promise_changes_nothing() -> None:
    """A prefix of a name is not a parent."""
    refusal = Refusal(path="turn_1/files/report", code="artifact_symlink_blocked", reason="r")
    assert only(found(REPORT, refused=(refusal,))).state == "ok"
    assert only(found(refused=(refusal,))).codes == ("missing_file",)


def test_a_directory_in_the_files_place_is_not_a_regular_file() -> None:
    """A folder of that name with files in it is told apart from nothing at all."""
    verdict = only(found(f"{REPORT}/part"))
    assert (verdict.state, verdict.codes) == ("invalid", ("artifact_not_regular_file",))
    assert verdict.hints == (f"out/{REPORT} is a directory",)


def test_checks_of_content_are_asked_about_every_file_that_is_there() -> None:
    """Their codes and hints become the verdict's, in order, a code once."""
    one = [Finding(code="artifact_invalid", hint="first"), Finding(code="artifact_invalid", hint="second")]
    (verdict,) = judge(contract(REPORT), found(REPORT), [lambda item, file: one, lambda item, file: []])
    assert (verdict.state, verdict.codes) == ("invalid", ("artifact_invalid",))
    assert verdict.hints == ("first", "second")


def test_missing_comes_before_invalid_and_fine_files_stay_fine() -> None:
    """One table of all mixtures of states."""
    states = {
        "ok": only(found(REPORT)),
        "missing": only(found()),
        "invalid": only(found(refused=(Refusal(path=REPORT, code="c", reason="r"),))),
    }
    assert {name: verdict.state for name, verdict in states.items()} == {name: name for name in states}
    for names, code in [
        ((), None),
        (("ok",), None),
        (("ok", "invalid"), Code.ARTIFACT_VALIDATION_FAILED),
        (("invalid", "ok", "missing"), Code.MISSING_OUTPUT_FILES),
        (("missing",), Code.MISSING_OUTPUT_FILES),
    ]:
        assert precedence(states[name] for name in names) is code
