"""What a caller may ask: each refusal has its own code, and nothing was started."""

from pathlib import Path
from typing import Any

import pytest

from isorun.core.errors import InvalidRequest
from isorun.core.limits import Limits
from isorun.core.request import RunRequest
from isorun.executor import rules
from isorun.runtime.request import accept

LIMITS = Limits()


def refused(code: str = "print(1)", **options: object) -> tuple[str, str]:
    """The code and the text of the refusal."""
    with pytest.raises(InvalidRequest) as caught:
        accept(RunRequest.of(code, **options), LIMITS)
    return caught.value.code, str(caught.value)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"argv": ["\udcff"]}, "invalid_argument"),
        ({"argv": ["a\0b"]}, "invalid_argument"),
        ({"stdin": "\udcff"}, "invalid_stdin"),
        ({"timeout_s": 0}, "invalid_timeout"),
        ({"timeout_s": float("nan")}, "invalid_timeout"),
        ({"timeout_s": True}, "invalid_timeout"),
        ({"timeout_s": 601}, "timeout_too_large"),
        ({"inputs": ["/nowhere/at/all"]}, "missing_input"),
        ({"start_from": "/nowhere/at/all"}, "missing_input"),
        ({"contract": []}, "empty_contract"),
    ],
)
def test_a_bad_request_has_its_own_code(options: dict[str, Any], code: str) -> None:
    """Each kind of nonsense is told from the others."""
    assert refused(**options)[0] == code


@pytest.mark.parametrize(("code", "word"), [("", "missing_code"), (" \n", "missing_code"), ("\ud800", "invalid_code")])
def test_code_that_is_none(code: str, word: str) -> None:
    """No code, and text that is none, are refused."""
    assert refused(code)[0] == word


def test_an_input_named_by_a_dot_has_the_name_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--input .` cannot put a file in the place of user_code.py."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "user_code.py").write_text("not the program")
    monkeypatch.chdir(folder)
    request = accept(RunRequest.of("print(1)", inputs=["."]), LIMITS)
    assert [file.path for file in request.inputs] == ["work/data/user_code.py"]


RESERVED = {
    "main.py": "the loader",
    "user_code.py": "the program itself",
    ".isorun-stdin": "the program's stdin",
    ".isorun-last-trace": "where a timeout is noted",
}


@pytest.mark.parametrize("name", RESERVED)
@pytest.mark.parametrize("folder", [False, True])
def test_an_input_in_the_place_of_a_file_of_ours_is_refused(tmp_path: Path, name: str, folder: bool) -> None:
    """One input that has a name which each run has is told what has it, and that its folder can be given."""
    given = tmp_path / name
    if folder:
        given.mkdir()
        (given / "x").write_text("")
    else:
        given.write_text("")
    source = given / "x" if folder else given
    remedy = "rename it, or give the folder that holds it as the input"
    assert refused(inputs=[given]) == (
        "reserved_input",
        f"the input {source} cannot be work/{name}: that is {RESERVED[name]}; {remedy}",
    )
    assert accept(RunRequest.of("print(1)", inputs=[tmp_path]), LIMITS).inputs


OURS = {name for name in vars(rules).values() if isinstance(name, str) and name.startswith(".isorun-")}


@pytest.mark.parametrize("name", sorted({*OURS - {rules.VALUE}, f"{rules.VALUE}.txt", f"{rules.VALUE}.png"}))
def test_no_input_has_the_name_of_a_note_of_the_loader(name: str) -> None:
    """What the host reads there after the run, the program's side wrote; every such name is known to be ours."""
    assert refused(inputs={name: "x"})[0] == "reserved_input"


def test_two_inputs_of_one_name_are_refused(tmp_path: Path) -> None:
    """The same name twice is another error than a name of ours."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.csv").write_text("")
    files = [tmp_path / folder / "x.csv" for folder in ("a", "b")]
    assert refused(inputs=files) == ("duplicate_input", f"two inputs would be work/x.csv: {files[1]}")


SCHEMAS = {
    "type": ({"type": "objekt"}, "is not a JSON schema at $['type']: 'objekt' is not valid"),
    "inside": ({"properties": {"a": {"minimum": "1"}}}, "is not a JSON schema at $['properties']['a']['minimum']"),
    "a file": ({"$ref": "file:///etc/passwd"}, "refers to 'file:///etc/passwd'; only #/... within the schema"),
    "the network": ({"items": {"$ref": "https://example.org/s"}}, "refers to 'https://example.org/s'; only #/..."),
    "nowhere": ({"$ref": "#/$defs/a", "$defs": {}}, "refers to '#/$defs/a', which is not in it"),
    "deep": ({"not": {}}, "is nested too deep"),
}


@pytest.mark.parametrize("case", SCHEMAS)
def test_a_schema_that_cannot_be_checked_is_refused(case: str) -> None:
    """Before anything starts, by its own code, naming the item; nothing outside the schema is looked up."""
    schema, reason = SCHEMAS[case]
    for _ in range(300 if case == "deep" else 0):
        schema = {"not": schema}
    code, text = refused(contract=[{"filename": "a.json", "description": "d", "json_schema": schema}])
    assert code == "invalid_json_schema"
    assert text.partition(": json_schema ")[0].endswith("a.json')")
    assert text.partition(": json_schema ")[2].startswith(reason)


def test_a_schema_may_refer_to_itself() -> None:
    """References within it are what `$defs` is for."""
    schema = {"$ref": "#/$defs/tree", "$defs": {"tree": {"items": {"$ref": "#/$defs/tree"}}}}
    request = accept(
        RunRequest.of("1", contract=[{"filename": "a.json", "description": "d", "json_schema": schema}]), LIMITS
    )
    assert request.contract is not None
    assert request.contract.items[0].checks == {"json_schema": schema}


@pytest.mark.parametrize("change", [{"processes": 1.5}, {"cpus": 0.005}, {"memory_bytes": 2.5e9}])
def test_limits_are_of_their_kind(change: dict[str, float]) -> None:
    """A count is whole, and a share of a CPU is one that a kernel can hold."""
    with pytest.raises(InvalidRequest) as caught:
        Limits(**change)
    assert caught.value.code == "invalid_limit"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"inputs": {"a": {"path": 5}}}, "invalid_input"),
        ({"inputs": {"a": {"path": "x\0"}}}, "invalid_input"),
        ({"inputs": ["\ud800"]}, "invalid_input"),
        ({"inputs": {"a": Path("x\0y")}}, "invalid_input"),
        ({"timeout_s": 10**400}, "invalid_timeout"),
        ({"start_from": "\ud800"}, "missing_input"),
        ({"save_to": "\ud800"}, "invalid_save_to"),
    ],
)
def test_nothing_but_a_refusal_comes_of_nonsense(options: dict[str, Any], code: str) -> None:
    """A line of a batch, or a model's answer, may hold anything: each kind has its code, and none is our error."""
    assert refused(**options)[0] == code


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    """The disk's word is told; no other kind of error passes."""
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert refused(inputs=[tmp_path / "a"])[0] in ("unreadable_input", "missing_input")


def test_loopback_is_asked_for_and_may_be_forbidden() -> None:
    """It is of who asks for it, and never of anybody where the operator says so."""
    asked = RunRequest.of("print(1)", network="loopback")
    assert [accept(one, LIMITS).loopback for one in (asked, RunRequest.of("print(1)"))] == [True, False]
    with pytest.raises(
        InvalidRequest, match=r"\(--loopback\) is not allowed here: ISORUN_ALLOW_LOOPBACK is 0"
    ) as caught:
        accept(asked, LIMITS, allow_loopback=False)
    assert caught.value.code == "loopback_not_allowed"
    assert not accept(RunRequest.of("print(1)", network="none"), LIMITS, allow_loopback=False).loopback
