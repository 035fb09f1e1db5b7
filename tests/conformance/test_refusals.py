"""B2: what is no contract starts nothing.

| promise | test |
|---|---|
| each kind of nonsense has its own code and names the item | test_a_refused_contract_starts_nothing |
| a short name goes under the turn, and a notice says so | test_a_short_name_lies_under_the_turn_and_is_noticed |
| a list, a tuple and a JSON string give the same result | test_the_form_of_a_contract_changes_nothing |

Every kind of bad name is in tests/unit/core/test_contract.py; here, that the refusal comes before a slot, a folder or
a line of the program.
"""

import json
from typing import Any

import pytest

import isorun


def item(name: object, **more: object) -> dict[str, Any]:
    return {"filename": name, "description": "d", **more}


REFUSED: dict[str, tuple[object, str, str]] = {
    "empty": ([], "empty_contract", "the contract is empty"),
    "no list": ({"a": 1}, "contract_not_a_list", "got a value of type dict"),
    "no JSON": ("[", "invalid_json", "a string but not JSON"),
    "no object": (["a.md"], "item_not_an_object", "contract item 1: must be an object"),
    "blank name": ([item(" ")], "blank_filename", "contract item 1 (' '): filename is blank"),
    "no text": ([item(7)], "invalid_filename", "contract item 1: filename must be a string, got int"),
    "no description": ([{"filename": "a"}], "blank_description", "contract item 1 ('a'): description must be"),
    "absolute": ([item("/etc/passwd")], "absolute_path", "contract item 1 ('/etc/passwd'): filename must be relative"),
    "parent": ([item("../a")], "path_escape", "contract item 1 ('../a'): filename must not contain '..'"),
    "NUL": ([item("a\0")], "nul_in_path", r"contract item 1 ('a\x00'): filename must not contain NUL"),
    "long": ([item("a" * 300)], "path_too_long", "the limits are 255 and 1024"),
    "twice": (
        [item("a"), item("files/a")],
        "duplicate_filename",
        "contract item 2 ('files/a'): promises the same file",
    ),
    "directory": ([item("a/")], "is_a_directory", "contract item 1 ('a/'): names a directory"),
    "another turn": ([item("turn_2/files/a")], "other_turn", "belongs to 'turn_2', this run's turn is 'turn_1'"),
    "outside": ([item("turn_1/a")], "outside_files", "contract item 1 ('turn_1/a'): lies outside turn_1/files/"),
    "check": ([item("a", min_bytes=0)], "invalid_check", "contract item 1 ('a'): min_bytes must be"),
    "impossible": ([item("a.csv", pages=1)], "impossible_check", "contract item 1 ('a.csv'): pages cannot be checked"),
    "schema": (
        [item("a.json", json_schema={"type": 1})],
        "invalid_json_schema",
        "contract item 1 ('turn_1/files/a.json')",
    ),
}


@pytest.mark.no_backend
@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_contract_starts_nothing(rt, case: str) -> None:
    """No folder is made and no slot taken; the code is the case's own and the text names the item."""
    contract, code, text = REFUSED[case]
    before = sorted(rt.root.iterdir())
    with pytest.raises(isorun.InvalidRequest) as caught:
        rt.execute("print('started')", contract=contract, turn_id=1)
    assert caught.value.code == code
    assert text in str(caught.value)
    assert sorted(rt.root.iterdir()) == before


def test_each_refusal_has_a_code_of_its_own() -> None:
    """A caller can tell them apart without reading the text."""
    codes = [code for _, code, _ in REFUSED.values()]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize(
    ("name", "path"), [("x", "turn_1/files/x"), ("a/b.md", "turn_1/files/a/b.md"), ("files/x", "turn_1/files/x")]
)
def test_a_short_name_lies_under_the_turn_and_is_noticed(run, name: str, path: str) -> None:
    """The program is told the whole path, its folder is there, and the caller gets a notice."""
    code = "Path(CONTRACT[0]['filename']).write_text('x'); print(CONTRACT[0]['filename'])"
    result = run(code, contract=[item(name)], turn_id=1)
    assert (result.status, result.stdout, result.succeeded) == ("ok", f"{path}\n", (path,))
    assert result.notices == (f"contract item 1 ({name!r}) is taken as {path!r}",)


def test_the_form_of_a_contract_changes_nothing(run) -> None:
    """A list, a tuple and a JSON string end alike, item for item."""
    contract = [item("turn_1/files/a.csv", min_rows=1, visibility="internal"), item("b.json")]
    code = "(OUT / 'turn_1/files/a.csv').write_text('x\\n1\\n'); (OUT / 'turn_1/files/b.json').write_text('{')"
    results = [run(code, contract=form) for form in (contract, tuple(contract), json.dumps(contract))]
    assert [result.status for result in results] == ["contract_failed"] * 3
    assert results[0].items == results[1].items == results[2].items
    assert [entry.state for entry in results[0].items] == ["ok", "invalid"]
