"""SPEC B1, B2, B4: how a contract is read, and each way in which one is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isorun.core.contract import items as contract_module
from isorun.core.contract.items import Contract, parse_contract
from isorun.core.errors import InvalidRequest
from isorun.core.text import shown

EXEC_ID = "20260101-120000-000001-0123456789ab"
LONG_PATH = "turn_1/files/" + "/".join(["d" * 200] * 5) + "/"


def parse(value: object, turn: str | None = "1") -> Contract:
    return parse_contract(value, turn=turn, exec_id=EXEC_ID, max_items=3)


def item(filename: object, **more: object) -> dict[str, Any]:
    return {"filename": filename, "description": "d", **more}


def refused(value: object, turn: str | None = "1") -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse(value, turn)
    return caught.value


def test_an_item_becomes_a_path_below_out_with_its_words() -> None:
    """The seed's own contract item is read as it is printed."""
    contract = parse([{"filename": "turn_123/files/report.md", "description": "Summary report"}], turn="123")
    (only,) = contract.items
    assert (contract.turn, only.path, only.description) == (
        "turn_123",
        "turn_123/files/report.md",
        "Summary report",
    )
    assert (only.visibility, only.checks, contract.notices) == ("external", {}, ())


def test_filepath_is_another_word_for_filename() -> None:
    """Both keys give the same contract."""
    assert parse([{"filepath": "turn_1/files/a", "description": "d"}]) == parse([item("turn_1/files/a")])


def test_a_json_string_a_list_and_a_tuple_give_the_same_contract() -> None:
    """The form in which a contract arrives changes nothing."""
    value = [item("a.md", visibility="internal"), item("turn_1/files/b.csv", min_rows=2)]
    assert parse(json.dumps(value)) == parse(value) == parse(tuple(value))


def test_visibility_is_external_unless_it_says_internal() -> None:
    """The two words are accepted and kept."""
    contract = parse([item("a", visibility="external"), item("b", visibility="internal"), item("c")])
    assert [entry.visibility for entry in contract.items] == ["external", "internal", "external"]


@pytest.mark.parametrize(
    ("value", "code", "message"),
    [
        (
            [],
            "empty_contract",
            "the contract is empty: name at least one file, or leave it out to run for side effects",
        ),
        (
            "[]",
            "empty_contract",
            "the contract is empty: name at least one file, or leave it out to run for side effects",
        ),
        ({}, "contract_not_a_list", "the contract must be a list of objects, got a value of type dict"),
        (None, "contract_not_a_list", "the contract must be a list of objects, got a value of type NoneType"),
        (b"[]", "contract_not_a_list", "the contract must be a list of objects, got a value of type bytes"),
        (
            '{"a": 1}',
            "contract_not_a_list",
            "the contract must be a list of objects, got a value of type dict",
        ),
        ("nonsense", "invalid_json", "the contract is a string but not JSON: Expecting value"),
        ("", "invalid_json", "the contract is a string but not JSON: Expecting value"),
        (
            "[" * 100_000,
            "invalid_json",
            "the contract is a string but not JSON: nested too deep or a number too long",
        ),
        (
            "[" + "1" * 9999 + "]",
            "invalid_json",
            "the contract is a string but not JSON: nested too deep or a number too long",
        ),
        (
            [item("a")] * 4,
            "too_many_items",
            "the contract has 4 items, the limit is 3; promise fewer, or raise ISORUN_MAX_CONTRACT_ITEMS",
        ),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_no_contract_is_refused(value: object, code: str, message: str) -> None:
    """A contract that is empty, no list, not JSON or too long has a code of its own."""
    error = refused(value)
    assert (error.code, str(error)) == (code, message)


DIRECTORY = "names a directory; promise the files in it one by one"
RELATIVE = "filename must be relative to out/, for example turn_1/files/report.md"
ESCAPE = "filename must not contain '..'"
CONTROL = "filename must not contain characters that cannot be seen"
OUTSIDE = "lies outside turn_1/files/, where a run's files belong"
TWICE = "promises the same file as contract item 1"
WORDS = "description must be a string that says what the file holds"
KEYS = (
    "columns, description, filename, filepath, json_schema, mime, min_bytes, min_rows, must_contain, pages, visibility"
)


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("", "blank_filename", "filename is blank"),
        (" \t", "blank_filename", "filename is blank"),
        (5, "invalid_filename", "filename must be a string, got int"),
        (None, "invalid_filename", "filename must be a string, got NoneType"),
        ("a\\b", "invalid_filename", "filename must use '/' between its parts, not a backslash"),
        ("a\ud800", "invalid_filename", "filename is not valid Unicode (a lone surrogate)"),
        ("/workspace/out/a", "absolute_path", RELATIVE),
        ("/../a", "absolute_path", RELATIVE),
        ("C:/a", "absolute_path", RELATIVE),
        ("../a", "path_escape", ESCAPE),
        ("a/../b", "path_escape", ESCAPE),
        ("turn_1/files/..", "path_escape", ESCAPE),
        ("a\0b", "nul_in_path", "filename must not contain NUL"),
        ("a\nb", "control_character", CONTROL),
        ("gpj.\u202eexe", "control_character", CONTROL),
        ("rep\u200bort.md", "control_character", CONTROL),
        ("report\U000e0041.md", "control_character", CONTROL),
        ("report\ufe0f.md", "control_character", CONTROL),
        ("\u3164", "control_character", CONTROL),
        ("a/", "is_a_directory", DIRECTORY),
        (".", "is_a_directory", DIRECTORY),
        ("files", "is_a_directory", DIRECTORY),
        ("turn_1/files", "is_a_directory", DIRECTORY),
        ("turn_2/files/a", "other_turn", "belongs to 'turn_2', this run's turn is 'turn_1'"),
        ("turn_11/files/a", "other_turn", "belongs to 'turn_11', this run's turn is 'turn_1'"),
        ("turn_1/a", "outside_files", OUTSIDE),
        ("turn_1/files2/a", "outside_files", OUTSIDE),
        ("turn_1/files/ok", "duplicate_filename", TWICE),
        ("ok", "duplicate_filename", TWICE),
        ("./files//ok", "duplicate_filename", TWICE),
    ],
    ids=repr,
)
def test_each_kind_of_bad_filename_is_refused_by_name(name: object, code: str, reason: str) -> None:
    """Every refusal has its own code, and the text names the item."""
    error = refused([item("turn_1/files/ok"), item(name)])
    named = f" ({shown(name)})" if isinstance(name, str) else ""
    assert (error.code, str(error)) == (code, f"contract item 2{named}: {reason}")


@pytest.mark.parametrize(
    ("raw", "code", "message"),
    [
        ("a.md", "item_not_an_object", "2: must be an object with filename and description, got str"),
        (None, "item_not_an_object", "2: must be an object with filename and description, got NoneType"),
        ({"description": "d"}, "blank_filename", "2 (''): filename is blank"),
        ({"filename": "a", "description": " "}, "blank_description", f"2 ('a'): {WORDS}"),
        ({"filename": "a", "description": 5}, "blank_description", f"2 ('a'): {WORDS}"),
        ({"filename": "a"}, "blank_description", f"2 ('a'): {WORDS}"),
        (
            {"filename": "a", "description": "\udfff"},
            "invalid_description",
            "2 ('a'): description is not valid Unicode (a lone surrogate)",
        ),
        (
            item("a", visibility="secret"),
            "invalid_visibility",
            "2 ('a'): visibility must be 'external' or 'internal', got 'secret'",
        ),
        (item("a", colour="red"), "unknown_key", f"2 ('a'): unknown key 'colour'; known are {KEYS}"),
        (
            item("a", filepath="a"),
            "filename_and_filepath",
            "2 ('a'): has filename and filepath; give one of them",
        ),
        (
            item("ok/below"),
            "is_a_directory",
            "1 ('turn_1/files/ok'): contract item 2 promises a file below it",
        ),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_each_kind_of_bad_item_is_refused_by_name(raw: object, code: str, message: str) -> None:
    """What is wrong with an item as a whole has its own code too, and a parent is named as the directory."""
    error = refused([item("turn_1/files/ok"), raw])
    assert (error.code, str(error)) == (code, f"contract item {message}")


@pytest.mark.parametrize(
    ("name", "longest", "total"),
    [
        ("turn_1/files/" + "a" * 256, 256, 269),
        ("turn_1/files/" + "é" * 128, 256, 269),
        ("a" * 256, 256, 269),
        (LONG_PATH + "x" * 7, 200, 1025),
    ],
    ids=["part", "part in bytes", "part under the turn", "path"],
)
def test_a_path_that_is_too_long_is_refused(name: str, longest: int, total: int) -> None:
    """255 bytes per part and 1024 for the whole, counted where the file will lie."""
    error = refused([item(name)])
    assert error.code == "path_too_long"
    assert str(error).endswith(f"a part has {longest} bytes and the path {total}; the limits are 255 and 1024")


@pytest.mark.parametrize("name", ["turn_1/files/" + "a" * 255, LONG_PATH + "x" * 6], ids=["part", "path"])
def test_a_path_of_exactly_the_limit_is_accepted(name: str) -> None:
    """The limits are inclusive."""
    assert parse([item(name)]).items[0].path == name


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("x", "turn_1/files/x"),
        ("a/b.md", "turn_1/files/a/b.md"),
        ("files/x", "turn_1/files/x"),
        ("./turn_1//files/./x", "turn_1/files/x"),
        ("turn_notes.md", "turn_1/files/turn_notes.md"),
        ("a..b", "turn_1/files/a..b"),
        ("...", "turn_1/files/..."),
    ],
)
def test_a_short_name_goes_under_the_turn_and_is_reported(name: str, path: str) -> None:
    """`x`, `a/b.md` and `files/x` lie under the current turn, and a notice says so."""
    contract = parse([item(name)])
    assert contract.items[0].path == path
    assert contract.notices == (f"contract item 1 ({name!r}) is taken as {path!r}",)


@pytest.mark.parametrize(
    ("turn", "names", "folder"),
    [
        (None, ["turn_9/files/a", "turn_9/files/b"], "turn_9"),
        (None, ["turn_9/files/a", "b"], "turn_9"),
        (None, ["a"], f"turn_{EXEC_ID}"),
        ("turn_3", ["a"], "turn_3"),
    ],
)
def test_the_turn_comes_from_the_caller_or_the_items(turn: str | None, names: list[str], folder: str) -> None:
    """Without a turn id the turn that the items name is the run's; else it is made from the exec id."""
    contract = parse([item(name) for name in names], turn)
    assert contract.turn == folder
    assert all(entry.path.startswith(f"{folder}/files/") for entry in contract.items)


@pytest.mark.parametrize("turn", ["chat_7", "telegram_turn_1", "2026-11-30.a"])
def test_a_name_may_begin_with_the_turns_own_id(turn: str) -> None:
    """As the caller spells it, without `turn_` before it: the same folder, told in a notice, and strict."""
    contract = parse([{"filename": f"{turn}/files/a/b.md", "description": "d"}], turn=turn)
    (entry,) = contract.items
    assert (entry.path, entry.bare) == (f"turn_{turn}/files/a/b.md", "")
    assert contract.notices == (f"contract item 1 ('{turn}/files/a/b.md') is taken as {entry.path!r}",)


def test_items_of_two_turns_are_refused_without_a_turn_id() -> None:
    """Two turns in one contract cannot both be this run's."""
    error = refused([item("turn_1/files/a"), item("turn_2/files/a")], turn=None)
    assert (error.code, str(error)) == (
        "other_turn",
        f"contract item 1 ('turn_1/files/a'): belongs to 'turn_1', this run's turn is 'turn_{EXEC_ID}'",
    )


def test_a_placeholder_copied_from_the_documents_is_refused() -> None:
    """`turn_<id>` is what the documents print, not a folder."""
    assert refused([item("turn_<id>/files/a")], turn=None).code == "invalid_turn_id"


def test_one_name_in_two_unicode_forms_is_a_duplicate() -> None:
    """An é of one and of two code points looks the same and is refused."""
    assert refused([item("caf\u00e9"), item("cafe\u0301")]).code == "duplicate_filename"


def test_names_that_differ_in_case_are_accepted_and_noticed() -> None:
    """Linux keeps them apart; the notice says where they are one."""
    contract = parse([item("turn_1/files/A"), item("turn_1/files/a")])
    assert contract.notices == (
        "contract item 2 ('turn_1/files/a') differs only in case from contract item 1: "
        "on a disk that ignores case they are one file",
    )


GOOD_CHECKS: dict[str, dict[str, Any]] = {
    "a.csv": {"min_bytes": 1, "mime": "text/csv", "columns": ["a", "b"], "min_rows": 3, "must_contain": ["x"]},
    "b.json": {"json_schema": {"type": "object"}, "must_contain": "one"},
    "c.pdf": {"pages": 2},
}


def test_every_content_check_is_kept_as_a_copy() -> None:
    """The checks of B4 are accepted and kept; the caller's later changes do not reach them."""
    raw = [item(name, **json.loads(json.dumps(checks))) for name, checks in GOOD_CHECKS.items()]
    contract = parse(raw)
    raw[0]["columns"].append("c")
    raw[1]["json_schema"]["type"] = "array"
    assert [entry.checks for entry in contract.items] == list(GOOD_CHECKS.values())
    assert {key for checks in GOOD_CHECKS.values() for key in checks} == set(contract_module._CHECKS)


@pytest.mark.parametrize(
    ("name", "check", "reason"),
    [
        ("a.csv", {"pages": 2}, "pages cannot be checked on .csv; it is for .pdf, .pptx"),
        ("a", {"pages": 2}, "pages cannot be checked on a file without suffix; it is for .pdf, .pptx"),
        ("a.PDF", {"min_rows": 2}, "min_rows cannot be checked on .pdf; it is for .csv, .tsv, .xlsx"),
        ("a.json", {"columns": ["x"]}, "columns cannot be checked on .json; it is for .csv, .tsv, .xlsx"),
        ("a.csv", {"json_schema": {}}, "json_schema cannot be checked on .csv; it is for .json, .geojson, .ipynb"),
        ("a.png", {"must_contain": "x"}, "must_contain cannot be checked on .png, which has no text"),
        ("a.zip", {"must_contain": "x"}, "must_contain cannot be checked on .zip, which has no text"),
        ("a.csv", {"mime": "application/pdf"}, "mime 'application/pdf' cannot be that of .csv; it is text/csv"),
        ("a.jpg", {"mime": "image/png"}, "mime 'image/png' cannot be that of .jpg; it is image/jpeg"),
    ],
    ids=repr,
)
def test_a_check_that_no_such_file_can_keep_is_refused(name: str, check: dict[str, Any], reason: str) -> None:
    """It has its own code, and the text names the item and what the check is for."""
    error = refused([item("fine.md"), item(name, **check)])
    assert (error.code, str(error)) == ("impossible_check", f"contract item 2 ({name!r}): {reason}")


def test_a_media_type_that_no_content_shows_is_refused() -> None:
    """A promise that nobody can check would be called kept; the types that can be told are listed, at any length."""
    error = refused([item("a.dat", mime="application/x-" + "y" * 9000)])
    assert error.code == "impossible_check"
    assert "cannot be told from a file's content; leave it out, or use one of text/*, application/csv, " in str(error)
    assert len(str(error)) < 2000


@pytest.mark.parametrize(
    ("name", "mime"),
    [
        ("a.md", "text/markdown"),
        ("a.CSV", "Text/CSV"),
        ("a.jpg", "image/jpg"),
        ("a.dat", "image/png"),
        ("a", "text/x-y"),
    ],
)
def test_a_media_type_that_can_be_told_is_accepted(name: str, mime: str) -> None:
    """Of a type that is opened its own names, of any other one that content shows, and any kind of text."""
    assert parse([item(name, mime=mime)]).items[0].checks == {"mime": mime}


@pytest.mark.parametrize(
    ("key", "bad", "wanted"),
    [
        ("min_bytes", 0, "a whole number above 0"),
        ("min_bytes", True, "a whole number above 0"),
        ("min_rows", 1.5, "a whole number above 0"),
        ("pages", "2", "a whole number above 0"),
        ("mime", "", "a string such as 'application/pdf'"),
        ("columns", [], "a list of column names"),
        ("columns", ["a", 1], "a list of column names"),
        ("must_contain", None, "a string or a list of strings"),
        ("json_schema", [], "an object of JSON values"),
        ("json_schema", {"minimum": float("nan")}, "an object of JSON values"),
        ("json_schema", {"x": b"bytes"}, "an object of JSON values"),
    ],
)
def test_a_check_of_the_wrong_type_is_refused(key: str, bad: object, wanted: str) -> None:
    """A content check that could never be decided is refused before the run."""
    error = refused([item("a", **{key: bad})])
    assert error.code == "invalid_check"
    assert str(error).startswith(f"contract item 1 ('a'): {key} must be {wanted}")


def test_a_refusal_of_a_huge_name_is_short() -> None:
    """An error never repeats megabytes of what was sent."""
    assert len(str(refused([item("a" * 5_000_000)]))) < 300


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
names = st.text(st.sampled_from("./aturn_1files\0\\\n\u202e\ud800é"), max_size=30)


@pytest.mark.slow
@given(st.lists(st.fixed_dictionaries({"filename": names | json_values, "description": st.just("d")}), max_size=4))
def test_whatever_is_accepted_lies_beneath_its_turn(value: list[dict[str, Any]]) -> None:
    """Any name is refused as `InvalidRequest`, or becomes a clean path beneath turn_1/files/."""
    try:
        contract = parse(value)
    except InvalidRequest:
        return
    for entry in contract.items:
        parts = entry.path.split("/")
        assert parts[:2] == ["turn_1", "files"]
        assert len(parts) > 2
        assert not {"", ".", ".."} & set(parts)
        assert "\0" not in entry.path


checks = st.fixed_dictionaries({}, optional=dict.fromkeys(contract_module._CHECKS, json_values))
whole_items = st.builds(lambda name, more: {"filename": name, "description": "d", **more}, names, checks)


@given(json_values | st.lists(whole_items | json_values, max_size=3) | st.text(max_size=20))
def test_any_value_is_a_contract_or_an_invalid_request(value: object) -> None:
    """Whatever a caller or a model sends: no other exception, and what is kept is JSON."""
    refusal = None
    try:
        items = parse(value).items
    except InvalidRequest as error:
        items, refusal = (), error
    assert refusal is None or (refusal.code and len(str(refusal)) < 5000)
    for entry in items:
        json.dumps(entry.checks, allow_nan=False)
