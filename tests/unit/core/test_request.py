"""core.request: one value for what is asked of a run, the same from every front end."""

import dataclasses
import inspect
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import isorun
from isorun import InvalidRequest, RunRequest
from isorun.cli.run.command import Wanted
from isorun.core.request import OPTIONS, ProgramOptions, RunOptions
from isorun.runtime.runtime import Runtime, RuntimeOptions
from isorun.tools import exec_tools


def refused(**value: object) -> tuple[str, str]:
    """The code and the text with which JSON is refused."""
    with pytest.raises(InvalidRequest) as caught:
        RunRequest.from_json({"code": "1", **value})
    return caught.value.code, str(caught.value)


def keywords(function: object) -> set[str]:
    """The keyword-only parameters that a reader of `help()` sees."""
    parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]  # a class or a function
    assert not [one for one in parameters if one.kind is inspect.Parameter.VAR_KEYWORD]
    return {one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}


def test_every_front_end_has_the_same_options() -> None:
    """Python in all its forms, JSON, and the command line: an option that one of them lacks fails here."""
    request = {field.name for field in dataclasses.fields(RunRequest)} - {"code"}
    assert request == OPTIONS == set(RunOptions.__annotations__)
    assert keywords(Runtime.execute) == request
    assert keywords(Runtime.start) == request | {"on_output"}
    assert keywords(isorun.SyncRuntime.execute) == request
    runtime = keywords(Runtime)
    assert runtime == set(RuntimeOptions.__annotations__) == keywords(isorun.SyncRuntime)
    assert keywords(isorun.run) == request | runtime
    # With folders of the caller's, inputs and files are these, and the run's own stays; the rest comes by position.
    for function in (exec_tools.run_exec_tool, exec_tools.run_exec_tool_no_contract):
        assert keywords(function) == set(ProgramOptions.__annotations__) | {"runtime", "on_output", "on_start"}
        assert request - keywords(function) - {"inputs", "start_from", "save_to", "session", "out", "keep"} <= {
            *inspect.signature(function).parameters,
            "contract",
        }
    # On a command line the name is the file's, and argv is what follows it.
    line = {field.name for field in dataclasses.fields(Wanted)}
    assert request - line == {"prog_name", "argv"}


def test_an_option_that_there_is_not_is_an_error_of_the_caller() -> None:
    """As Python would say it of any function, with the nearest name."""
    with pytest.raises(TypeError, match=r"^a run has no option 'timeout'; did you mean timeout_s\?$"):
        RunRequest.of("1", timeout=3)  # type: ignore[call-arg]  # the mistake
    request = RunRequest.of("1", argv=["a"])
    assert RunRequest.of(request) is request
    with pytest.raises(TypeError, match=r"^the request is whole: timeout_s must be in it$"):
        RunRequest.of(request, timeout_s=3)


json_values = st.recursive(st.none() | st.booleans() | st.text(), lambda inner: st.lists(inner, max_size=3))
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
options = st.fixed_dictionaries(
    {},
    optional={
        "contract": json_values,
        "timeout_s": st.floats(0.1, 1e6),
        "prog_name": texts,
        "turn_id": texts | st.integers(),
        "argv": st.lists(texts),
        "inputs": st.lists(texts.map(Path)),
        "start_from": texts.map(Path),
        "save_to": texts.map(Path),
        "session": st.from_regex(r"[a-z0-9][a-z0-9_-]{0,63}", fullmatch=True),
        "out": texts.map(Path),
        "stdin": st.binary() | texts,
        "tools": st.lists(texts, unique=True),
        "user_id": st.just("ü"),
        "exec_id": texts,
        "network": st.sampled_from(["none", "loopback"]),
        "keep": st.booleans(),
    },
)


@given(st.binary() | texts, options)
def test_json_tells_all_of_it(code: str | bytes, given: dict[str, Any]) -> None:
    """There and back it is the same value, also of bytes that are not text; what was not given is left out."""
    request = RunRequest.of(code, **given)
    told = json.loads(json.dumps(request.to_json()))
    assert RunRequest.from_json(told) == request
    assert set(told) <= {"code", *given}


def test_json_is_what_a_person_would_write() -> None:
    """Texts as texts, lists as lists; bytes that are no text in base64."""
    request = RunRequest.of("print(1)", inputs=["a", Path("b")], stdin=b"\xff", tools=["t.a", "t.a"], timeout_s=2)
    assert request.to_json() == {
        "code": "print(1)",
        "timeout_s": 2.0,
        "inputs": ["a", "b"],
        "stdin": {"base64": "/w=="},
        "tools": ["t.a"],
    }


@pytest.mark.parametrize(
    ("value", "code", "text"),
    [
        ({"timeout": 3}, "unknown_option", "a run has no option 'timeout'; did you mean timeout_s?"),
        ({"x\n": 3}, "unknown_option", r"a run has no option 'x\n'"),
        ({"code": 3}, "invalid_code", "code must be text or bytes, or the Path of a file, not int"),
        ({"code": {"base64": "?"}}, "invalid_code", "code must be text or"),
        ({"stdin": {"base64": "aa==", "more": 1}}, "invalid_stdin", "stdin must be text or"),
        ({"stdin": 3}, "invalid_stdin", "stdin must be text or bytes, got 3"),
        ({"argv": "a b"}, "invalid_argument", "argv must be a list of texts, got 'a b'"),
        ({"argv": [1]}, "invalid_argument", "an argument is not text: 1"),
        (
            {"inputs": 3},
            "invalid_input",
            "inputs must be a list of paths, or names with their contents, got 3",
        ),
        ({"inputs": {"a": 1}}, "invalid_input", "the input 'a' must be text, bytes or a Path, not int"),
        ({"inputs": [3]}, "invalid_input", "an input must be a path, got 3"),
        ({"start_from": ["a"]}, "missing_input", "start_from must be a path, got a value"),
        ({"save_to": ["a"]}, "invalid_save_to", "save_to must be a path, got a value"),
        ({"out": 3}, "invalid_save_to", "out must be a path, got 3"),
        ({"session": "a/b"}, "invalid_session", "the name of a session must be 1 to 64 characters of a-z"),
        (
            {"timeout_s": "3"},
            "invalid_timeout",
            "timeout_s must be a number of seconds, or a text with a unit such as 90s, got '3'",
        ),
        ({"tools": "t.a"}, "invalid_tools", "tools must be a list of ids such as local_tools.write_note"),
        ({"limits": {"memory": "1M"}}, "unknown_limit", "'memory' is not a limit; did you mean memory_bytes?"),
        (
            {"limits": {"ram": 1}},
            "unknown_limit",
            "'ram' is not a limit; there are wall_s, memory_bytes, processes,",
        ),
        ({"limits": {3: 1}}, "unknown_limit", "3 is not a limit; there are wall_s"),
        ({"limits": {"processes": 1.5}}, "invalid_limit", "processes must be a whole number, got 1.5"),
        ({"limits": {"tmp_bytes": None}}, "invalid_limit", "tmp_bytes must be a number, got None"),
        ({"limits": {"cpus": "2"}}, "invalid_limit", "cpus must be a number, got '2'"),
        (
            {"limits": ["wall_s"]},
            "invalid_limit",
            "limits must be a Limits, or a dict such as {'memory_bytes': '256M'}",
        ),
        ({"keep": 0}, "invalid_keep", "keep must be true or false, got 0"),
        *(
            (
                {"network": given},
                "invalid_network",
                f"network must be none or loopback, got {said}: nothing leads out of a run; a tool may fetch what its "
                "program needs",
            )
            for given, said in (
                ("host", "'host'"),
                ("", "''"),
                (None, "None"),
                (True, "True"),
                (["loopback"], "a value of type list"),
            )
        ),
        ({"user_id": 3}, "invalid_user_id", "user_id must be at most 200 printable characters, got 3"),
    ],
)
def test_json_of_the_wrong_kind_is_refused(value: dict[str, Any], code: str, text: str) -> None:
    """By the option's own code, naming what was given."""
    found, said = refused(**value)
    assert (found, said[: len(text)]) == (code, text)


def test_a_program_in_a_file_is_read_or_refused(tmp_path, monkeypatch) -> None:
    """Whole, as bytes; a folder, a FIFO that nobody writes to, a missing and a giant file are named at once."""
    file = tmp_path / "x.py"
    file.write_bytes(b"# coding: latin-1\nprint('\xe9')")
    assert RunRequest.of(file).code == file.read_bytes()
    os.mkfifo(tmp_path / "fifo")
    for name, said in {
        "": "Is a directory",
        "fifo": "is not a regular file",
        "y.py": "No such file",
        "\0": "null",
    }.items():
        with pytest.raises(InvalidRequest, match=said) as caught:
            RunRequest.of(tmp_path / name)
        assert caught.value.code == "invalid_code"
    monkeypatch.setattr("isorun.core.request._MOST_SOURCE", 10)
    with pytest.raises(InvalidRequest, match=r"has more than 10 bytes$"):
        RunRequest.of(file)


def test_one_input_is_one_path() -> None:
    """A text is a sequence of letters, which nobody means."""
    for one in ("big.bin", Path("big.bin"), ["big.bin"]):
        assert RunRequest.of("1", inputs=one).inputs == (Path("big.bin"),)


@pytest.mark.parametrize("value", [None, [], "print(1)", 3])
def test_json_that_is_not_an_object_is_refused(value: object) -> None:
    """And so is one without code."""
    with pytest.raises(InvalidRequest, match="a request must be a JSON object"):
        RunRequest.from_json(value)
    with pytest.raises(InvalidRequest, match="no code to run"):
        RunRequest.from_json({})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"memory_bytes": "256M", "wall_s": "10s"}, {"memory_bytes": 256 << 20, "wall_s": 10.0}),
        (isorun.Limits(memory_bytes="256M"), {"memory_bytes": 256 << 20}),
        (isorun.Limits(processes=8, tmp_bytes="1M"), {"processes": 8, "tmp_bytes": 1 << 20}),
        (isorun.Limits(), None),
        ({}, None),
        (None, None),
    ],
)
def test_limits_of_a_run_are_numbers_by_name(given: Any, told: object) -> None:  # noqa: ANN401 - either form
    """From either form; and through JSON and back they are the same."""
    request = RunRequest.of("1", limits=given)
    assert request.limits == told
    assert RunRequest.from_json(json.loads(json.dumps(request.to_json()))) == request
