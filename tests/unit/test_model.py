"""What a model is handed: definitions in four styles, a prompt, and what is taken of its answers."""

import json
import re
from typing import Any

import jsonschema
import pytest

import isorun
from isorun.core.contract.items import _CHECKS, item_schema, parse_contract
from isorun.core.limits import Limits
from isorun.core.request import OPTIONS
from isorun.model import NAME, legal_name, model_request, model_tool, packages_in, parameters, prompt_text

TOOLS: dict[str, dict[str, Any]] = {
    "stock.level": {
        "description": "Return how many there are.\n\nOf one item.",
        "returns": "",
        "parameters": {
            "properties": {"item": {"type": "string", "description": "Its name."}},
            "required": ["item"],
        },
        "result": {"type": "integer"},
    }
}


def _parts(style: Any) -> tuple[str, str, dict[str, Any]]:  # noqa: ANN401 - also a style that there is not
    told = model_tool(style, tools=TOOLS)
    match style:
        case "openai":
            assert set(told) == {"type", "function"}
            assert told["type"] == "function"
            return told["function"]["name"], told["function"]["description"], told["function"]["parameters"]
        case "langchain":
            schema = {key: value for key, value in told.items() if key not in ("title", "description")}
            return told["title"], told["description"], schema
        case _:
            (schema,) = (told[key] for key in told if key not in ("name", "description"))
            return told["name"], told["description"], schema


@pytest.mark.parametrize("style", ["openai", "anthropic", "mcp", "langchain"])
def test_every_style_is_one_definition(style: str) -> None:
    """The same name, text and schema in each; the name is legal, the schema is a schema, all of it is JSON."""
    name, text, schema = _parts(style)
    assert re.fullmatch(r"[A-Za-z0-9_]{1,64}", name)
    assert (name, text, schema) == _parts("openai")
    assert "stock.level(*, item: str) -> int" in text
    jsonschema.Draft202012Validator.check_schema(schema)
    json.dumps(model_tool(style), allow_nan=False)  # type: ignore[arg-type]  # one of them


def test_another_style_is_refused() -> None:
    """With the names of those that there are."""
    with pytest.raises(isorun.InvalidRequest, match="openai, anthropic, mcp, langchain, got 'gemini'"):
        model_tool("gemini")  # type: ignore[arg-type]  # that is the test


def test_the_schema_has_options_of_a_run_and_keys_of_a_contract() -> None:
    """Nothing is written twice: each argument is an option, each key of an item is one that is read."""
    schema = parameters()
    assert set(schema["properties"]) <= {"code", *OPTIONS}
    assert {key: one["type"] for key, one in schema["properties"].items()} == {
        "code": "string",
        "contract": "array",
        "timeout_s": "number",
        "prog_name": "string",
    }
    keys = item_schema()["properties"]
    assert set(keys) == {"filename", "description", "visibility", *_CHECKS}
    assert all(keys[key]["description"] for key in _CHECKS)
    assert "contract" not in parameters(contract=False)["properties"]
    assert parameters(contract=True)["required"] == ["code", "contract"]


def test_an_item_that_fits_the_schema_is_one_that_is_read() -> None:
    """Each key with a value of the kind that the schema names."""
    items = [
        {"filename": "a.csv", "description": "A table", "columns": ["x"], "min_rows": 1, "must_contain": "x"},
        {"filename": "b.json", "description": "B", "json_schema": {"type": "object"}, "visibility": "internal"},
        {"filename": "c.pdf", "description": "C", "pages": 2, "mime": "application/pdf", "min_bytes": 9},
        {"filename": "d.txt", "description": "D", "must_contain": ["x", "y"]},
    ]
    jsonschema.validate({"code": "", "contract": items}, parameters())
    assert len(parse_contract(items, turn=1, exec_id="x", max_items=9).items) == 4


@pytest.mark.parametrize(
    "arguments", ['{"code": "x", "timeout_s": 3, "prog_name": null}', {"code": "x", "timeout_s": 3}]
)
def test_what_the_model_gives_is_a_request(arguments: Any) -> None:  # noqa: ANN401 - both forms
    """A text or an object; null is what was not given."""
    assert model_request(arguments) == isorun.RunRequest.of("x", timeout_s=3)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("{", "the arguments are not JSON: "),
        ("[" * 100_000, "the arguments are not JSON: "),
        ("[]", "a request must be a JSON object, got "),
        ("{}", "there is no code to run"),
        ('{"code": "x", "inputs": ["/etc/passwd"]}', "run_python has no argument 'inputs'; it has code, contract, "),
        ('{"code": "x", "out": "/root"}', "run_python has no argument 'out'"),
        ('{"code": "x", "user_id": "root"}', "run_python has no argument 'user_id'"),
        ('{"code": "x", "tools": ["a.b"]}', "run_python has no argument 'tools'"),
        (
            '{"code": "x", "timeout_s": "soon"}',
            "timeout_s must be a number of seconds, or a text with a unit",
        ),
        ('{"code": 3}', "code must be text or bytes, or the Path of a file, not int"),
    ],
)
def test_what_was_not_offered_is_refused(arguments: str, text: str) -> None:
    """The options that read or write the host are not a model's to give; the text says what there is."""
    with pytest.raises(isorun.InvalidRequest) as raised:
        model_request(arguments)
    assert str(raised.value).startswith(text)


def test_the_prompt_says_what_a_program_has() -> None:
    """Paths, limits, packages, no network, each tool with its signature and description."""
    text = prompt_text(Limits(wall_s=30), "3.11.7", ["numpy 2.0", "pandas 3.0"], TOOLS)
    for part in (
        f"with the tool {NAME}.",
        "Python: 3.11.7. Packages beside the standard library: numpy 2.0, pandas 3.0.",
        "A program has no network",
        "/workspace/out (OUTPUT_DIR)",
        "30 s, 1 GiB of memory, 1 processor(s), 128 processes",
        "  stock.level(*, item: str) -> int\n      Return how many there are.",
        "          item: Its name.",
        "alias.name.sync(...)",
    ):
        assert part in text, text
    assert "no network, so no server on localhost either" in text
    serving = prompt_text(Limits(), "3.11.7", [], {}, "loopback")
    assert "reaches no network but servers of its own, which it may start on 127.0.0.1, and pip cannot" in serving
    bare = prompt_text(Limits(), "python3 of an-image", [], {})
    assert "no other functions" in bare
    assert "Import a package to see whether it is there." in bare


def test_packages_that_models_ask_for_come_first() -> None:
    """Of this interpreter's: each once, with its version."""
    import site

    found = [line.split()[0].lower() for line in packages_in(site.getsitepackages())]
    assert found[:2] == ["numpy", "pandas"]
    assert len(found) == len(set(found)) > 20


@pytest.mark.parametrize(
    ("tool_id", "name"), [("stock.level", "stock_level"), ("a.é-b", "a___b"), ("x" * 70, "x" * 64)]
)
def test_a_legal_name(tool_id: str, name: str) -> None:
    """Letters, digits, underscores; not longer than any API takes."""
    assert legal_name(tool_id) == name
