"""B4: the content checks that a contract item may add, and the hints for what is not kept.

Every check passes with one file and fails with another, whose hint says what is there and what was promised.
All cases of each are in tests/unit/runtime/inspection/test_inspector.py; here, that they are made on what a program
really wrote.
"""

from pathlib import Path
from typing import Any

import pytest

from tests import artifacts as made
from tests.artifacts import HAND_OUT, given

CASES: dict[str, tuple[str, dict[str, Any], bytes, bytes, str]] = {
    "min_bytes": ("a.txt", {"min_bytes": 10}, b"long enough", b"short", "has 5 bytes, promised at least 10"),
    "mime": ("a.dat", {"mime": "image/png"}, made.png(), made.pdf(), "is application/pdf, promised image/png"),
    "mime of text": (
        "a.md",
        {"mime": "text/markdown"},
        b"# Title",
        b"\xff\xfe",
        "is not UTF-8 text: byte 0xff in line 1; write it as UTF-8",
    ),
    "json_schema": (
        "a.json",
        {"json_schema": {"type": "object", "required": ["total"]}},
        b'{"total": 1}',
        b'{"sum": 1}',
        "does not fit json_schema at $: 'total' is a required property",
    ),
    "columns": ("a.csv", {"columns": ["a", "c"]}, b"c,b,a\n", b"a,b\n", "columns are a, b; promised also c"),
    "columns of a sheet": (
        "a.xlsx",
        {"columns": ["a", "c"]},
        made.xlsx({"S": [["a", "c"]]}),
        made.xlsx({"S": [["a", "b"]]}),
        "columns of sheet S are a, b; promised also c",
    ),
    "min_rows": (
        "a.csv",
        {"min_rows": 2},
        b"a\n1\n2\n",
        b"a\n1\n",
        "has 1 row below its header, promised at least 2",
    ),
    "min_rows of a sheet": (
        "a.xlsx",
        {"min_rows": 2},
        made.xlsx({"S": [["a"], [1], [2]]}),
        made.xlsx({"S": [["a"], [1]]}),
        "has 1 row below its header, promised at least 2",
    ),
    "pages": ("a.pdf", {"pages": 2}, made.pdf(2), made.pdf(1), "has 1 page, promised 2"),
    "pages of a presentation": ("a.pptx", {"pages": 2}, made.pptx("x", "y"), made.pptx("x"), "has 1 slide, promised 2"),
    "must_contain": ("a.md", {"must_contain": ["Total", "42"]}, b"Total: 42", b"Total: 41", "does not contain '42'"),
    "must_contain in a PDF": (
        "a.pdf",
        {"must_contain": "Total 42"},
        made.pdf_saying("Total 42"),
        made.pdf_saying("Total 41"),
        "does not contain 'Total 42'",
    ),
    "must_contain in a document": (
        "a.docx",
        {"must_contain": "Total 42"},
        made.docx("Total", "42"),
        made.docx("Total"),
        "does not contain 'Total 42'",
    ),
}


def test_a_kept_check_passes_and_a_broken_one_says_how(run, tmp_path: Path) -> None:
    """Each check once on a file that keeps it and once on one that does not, all in one run."""
    files, contract = {}, []
    for number, (name, checks, good, bad, _) in enumerate(CASES.values()):
        for word, data in (("good", good), ("bad", bad)):
            files[f"{word}-{number}{Path(name).suffix}"] = data
            contract.append({"filename": f"{word}-{number}{Path(name).suffix}", "description": "d", **checks})
    result = run(HAND_OUT, contract=contract, inputs=given(tmp_path, files), turn_id=1)
    assert (result.status, result.error.code) == ("contract_failed", "artifact_validation_failed")
    found = {
        entry.path.removeprefix("turn_1/files/"): (entry.state, entry.codes, entry.hints) for entry in result.items
    }
    for number, (case, (name, _, _, _, hint)) in enumerate(CASES.items()):
        suffix = Path(name).suffix
        assert found[f"good-{number}{suffix}"] == ("ok", (), ()), case
        full = f"turn_1/files/bad-{number}{suffix} {hint}"
        assert found[f"bad-{number}{suffix}"] == ("invalid", ("artifact_invalid",), (full,)), case
        assert full in result.error.hint
        assert f"    hint: {full}\n" in result.report_text


def test_min_bytes_is_checked(run) -> None:
    """A file that is shorter than promised is invalid, with a hint that says by how much."""
    item = {"filename": "turn_1/files/a.txt", "description": "d", "min_bytes": 10}
    result = run("(OUT / 'turn_1/files/a.txt').write_text('short')", contract=[item])
    assert (result.status, result.error.code) == ("contract_failed", "artifact_validation_failed")
    assert result.items[0].hints == ("turn_1/files/a.txt has 5 bytes, promised at least 10",)
    assert run("(OUT / 'turn_1/files/a.txt').write_text('long enough')", contract=[item]).ok


@pytest.mark.parametrize("broken", ["min_bytes", "pages"])
def test_one_file_can_break_several_promises(run, tmp_path: Path, broken: str) -> None:
    """Size, which the host knows, and content, which it has looked into, are told together."""
    item = {"filename": "turn_1/files/a.pdf", "description": "d", "min_bytes": 1 << 20, "pages": 7}
    result = run(HAND_OUT, contract=[item], inputs=given(tmp_path, {"a.pdf": made.pdf()}))
    (entry,) = result.items
    assert entry.codes == ("artifact_invalid",)
    assert len(entry.hints) == 2
    assert any(
        {"min_bytes": "bytes, promised at least 1048576", "pages": "has 1 page, promised 7"}[broken] in h
        for h in entry.hints
    )
