"""What a model reads of a run: all that it needs, as text and as JSON, and never more than a bounded amount."""

import base64
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import CallToolResult, ImageContent, ResourceLink, TextContent

from isorun.core.outcome import Status
from isorun.service.mcp.answers import (
    LIST_OUTPUT,
    RUN_OUTPUT,
    chosen_pictures,
    list_answer,
    run_answer,
    text_answer,
)
from isorun.service.mcp.backend import Ended, File, Listed, Piece

OK: dict[str, Any] = {
    "ok": True,
    "status": Status.OK,
    "error": None,
    "stdout": "hi\n",
    "stderr": "",
    "value": "2",
    "items": (),
    "missing": (),
    "notices": (),
    "report_text": "status: ok\nrun: mcp-1\nprogram log, its end:\n  | hi\n",
}
CHART = File(path="d/chart 1.png", bytes=4, mime="image/png", description="The chart.")


def ended(*files: File, **result: Any) -> Ended:  # noqa: ANN401 - fields of a result
    return Ended(exec_id="mcp-1", result={**OK, **result}, files=files)


def texts(answer: CallToolResult) -> list[str]:
    return [one.text for one in answer.content if isinstance(one, TextContent)]


def told(answer: CallToolResult) -> dict[str, Any]:
    """The JSON of an answer, which its schema allows."""
    jsonschema.validate(answer.structured_content, RUN_OUTPUT)
    found: dict[str, Any] = answer.structured_content
    return found


def test_a_good_run_is_told_twice() -> None:
    """Clients show the model the text or the JSON: each has the output, the value and the id."""
    answer = run_answer(ended(), {})
    assert texts(answer) == ["status: ok\nrun: mcp-1\nprogram log, its end:\n  | hi\nvalue: 2\n"]
    assert not answer.is_error
    assert told(answer) == {
        **{"exec_id": "mcp-1", "status": "ok", "error": "", "hint": "", "stdout": "hi\n", "stderr": ""},
        **{"value": "2", "files": [], "missing": []},
    }


def test_a_run_that_failed_says_what_to_do() -> None:
    """The error, its line, the hint, promised files that lack and what is wrong with others."""
    error = {"code": "program_error", "message": "it raised", "where": "user_code.py:3", "hint": "define it"}
    items = [{"path": "a.md", "hints": ("it has no bytes",)}, {"path": "b.md", "hints": ()}]
    answer = run_answer(
        ended(ok=False, status=Status.FAILED, error=error, items=items, missing=("b.md",), notices=("n",)), {}
    )
    assert answer.is_error
    found = told(answer)
    assert (found["error"], found["where"], found["hint"]) == ("it raised", "user_code.py:3", "define it")
    assert (found["hints"], found["missing"], found["notices"]) == (["a.md: it has no bytes"], ["b.md"], ["n"])


def test_files_are_links_and_pictures_are_shown() -> None:
    """A picture is in the content with its name before it, each file is a link with its type and size."""
    answer = run_answer(ended(CHART), {CHART.path: ("image/png", b"\x89PNG")})
    shown = [one for one in answer.content if isinstance(one, ImageContent)]
    links = [one for one in answer.content if isinstance(one, ResourceLink)]
    assert [(one.mime_type, base64.b64decode(one.data)) for one in shown] == [("image/png", b"\x89PNG")]
    assert texts(answer)[1] == "d/chart 1.png:"
    (link,) = links
    assert (link.uri, link.mime_type, link.size) == ("isorun://runs/mcp-1/out/d/chart%201.png", "image/png", 4)
    assert link.description == "The chart."
    assert told(answer)["files"] == [{"path": CHART.path, "bytes": 4, "mime": "image/png", "uri": link.uri}]


def test_an_answer_is_bounded() -> None:
    """Megabytes of everything become some ten thousand characters, which say where the rest is."""
    files = [File(path=f"{n}.txt", bytes=1, mime="text/plain") for n in range(1000)]
    much = "x" * 5_000_000
    error = {"code": "c", "message": much, "where": None, "hint": much}
    answer = run_answer(
        ended(
            *files,
            **{"stdout": f"first{much}last", "stderr": much, "value": much, "report_text": f"status: ok\n{much}"},
            **{"missing": [much] * 100, "notices": [much] * 100, "error": error},
        ),
        {},
    )
    found = told(answer)
    assert found["stdout"].startswith("[... 4984009 characters before this: read_output with path=logs/user.log ...]\n")
    assert found["stdout"].endswith("xlast")
    assert len(found["files"]) == 50
    assert found["notices"][0] == "950 more files are not listed; put many files into one archive"
    assert found["missing"][-1] == "and 50 more"
    assert "characters were left out here" in texts(answer)[0]
    assert len(answer.model_dump_json()) < 300_000


def test_what_is_not_seen_is_made_visible() -> None:
    """Marks that a person does not see and a model reads are escaped, also in the name of a file."""
    hidden = File(path="a\u202e.txt", bytes=1, mime="text/plain")
    found = told(run_answer(ended(hidden, stdout="\u200bhi\x1b[0m\n", value="\udc80"), {}))
    assert (found["stdout"], found["value"], found["files"][0]["path"]) == (
        "\\u200bhi\\x1b[0m\n",
        "\\x80",
        "a\\u202e.txt",
    )


def test_few_pictures_are_chosen() -> None:
    """Five at most, by name and size; an empty one and one above a mebibyte are links."""
    files = [
        File(path="a.svg", bytes=5, mime="image/svg+xml"),
        File(path="b.png", bytes=0, mime="image/png"),
        File(path="c.png", bytes=(1 << 20) + 1, mime="image/png"),
        *(File(path=f"{n}.jpg", bytes=1 << 20, mime="image/jpeg") for n in range(7)),
    ]
    assert [file.path for file in chosen_pictures(files)] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"]


@given(st.text(st.characters(exclude_characters="\0\ufffd", exclude_categories=["Cs"]), min_size=1), st.integers(4, 9))
def test_a_text_is_read_part_by_part(text, most) -> None:
    """Parts end between characters and say where the next begins: put together they are the text."""
    data, offset, parts = text.encode(), 0, []
    while offset < len(data):
        piece = Piece(data=data[offset : offset + most], offset=offset, total=len(data))
        answer = text_answer(piece)
        assert answer is not None
        part, *more = texts(answer)
        parts.append(part)
        offset = int(more[0].rpartition("=")[2].rstrip("]")) if more else len(data)
    assert "".join(parts) == text


def test_where_a_text_goes_on() -> None:
    """The last line of a part says what it was, and the next offset; behind the end there is a line, too."""
    part = text_answer(Piece(data=b"abc", offset=2, total=9))
    assert part is not None
    assert texts(part) == ["abc", "[bytes 2 to 5 of 9; go on with offset=5]"]
    behind = text_answer(Piece(data=b"", offset=12, total=9))
    assert behind is not None
    assert texts(behind) == ["[nothing: the file has 9 bytes, offset was 12]"]


@pytest.mark.parametrize("data", [b"a\0b", bytes(range(128, 256)) * 9])
def test_other_bytes_are_not_a_text(data) -> None:
    """A NUL, or much that is not UTF-8, is no text to show."""
    assert text_answer(Piece(data=data, offset=0, total=len(data))) is None


def test_a_list_of_runs() -> None:
    """A line for each run, and the same as JSON; without runs a sentence."""
    runs = [
        Listed(exec_id="mcp-2", status="running"),
        Listed(exec_id="mcp-1", status="ok", started="2026-01-01T00:00:00.000Z", prog_name="p", files=(CHART,)),
    ]
    answer = list_answer(runs)
    jsonschema.validate(answer.structured_content, LIST_OUTPUT)
    assert texts(answer) == ["mcp-2 running\nmcp-1 ok 2026-01-01T00:00:00.000Z d/chart 1.png"]
    assert [run["exec_id"] for run in answer.structured_content["runs"]] == ["mcp-2", "mcp-1"]
    assert texts(list_answer([])) == ["There are no runs yet."]
