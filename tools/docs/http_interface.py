"""docs/reference/http.md: the HTTP interface of the chat service, made of what the service says of itself.

python tools/docs/http_interface.py            # print the page
python tools/docs/http_interface.py --write    # write it
python tools/docs/http_interface.py --check    # exit 1 if that would change it
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from isorun.service.app import described

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "http.md"
_HEAD = """# HTTP interface

Made by `tools/docs/http_interface.py --write` from the service's own description, which it serves at `/openapi.json`.
How to start the service, and an example with curl: [chat-service.md](../chat-service.md).

Programs send their key as `Authorization: Bearer isr_…`. Every error is `application/problem+json` (RFC 9457):
`{"type", "title", "status", "detail", "code", "hint"}`. `code` is stable. A run of another user looks exactly
like a missing one: 404.
"""


def page() -> str:
    """The whole page."""
    interface = described()
    parts = [_HEAD]
    for path, operations in interface["paths"].items():
        for method, operation in operations.items():
            parts += _section(method.upper(), path, operation, interface["components"]["schemas"])
    return "\n".join(parts).rstrip() + "\n"


def _section(method: str, path: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {method} {path}\n"
    yield f"{operation.get('description', '').strip()}\n"
    given = [_given(one["name"], one["in"], one.get("required", False), one["schema"]) for one in _asked(operation)]
    for kind, body in operation.get("requestBody", {}).get("content", {}).items():
        schema = schemas[body["schema"]["$ref"].rpartition("/")[2]]
        required = schema.get("required", ())
        where = "body" if kind == "application/json" else "form"
        given += [_given(name, where, name in required, one) for name, one in schema["properties"].items()]
    if given:
        yield "| name | in | required | what it takes |\n|---|---|---|---|"
        yield "\n".join(given) + "\n"
    answers = (f"{code}{_words(one)}" for code, one in operation["responses"].items() if code[0] in "23")
    yield f"Answers {', '.join(answers)}.\n"


def _asked(operation: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(operation.get("parameters", ()))


def _given(name: str, where: str, required: bool, schema: Mapping[str, Any]) -> str:
    return f"| `{name}` | {where} | {'yes' if required else 'no'} | {_takes(schema)} |"


def _takes(schema: Mapping[str, Any]) -> str:
    """The type and the bounds of a value."""
    if "anyOf" in schema:
        return " or ".join(_takes(one) for one in schema["anyOf"] if one.get("type") != "null")
    if "$ref" in schema:
        return f"a word of `{schema['$ref'].rpartition('/')[2]}`"
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    of = f" of {_takes(schema['items'])}" if schema.get("items") else ""
    bounds = {
        "minLength": "at least {} characters",
        "maxLength": "at most {} characters",
        "minimum": "at least {}",
        "maximum": "at most {}",
        "exclusiveMinimum": "more than {}",
        "maxItems": "at most {} of them",
        "pattern": "`{}`",
    }
    told = [text.format(schema[name]) for name, text in bounds.items() if name in schema]
    return ", ".join([f"{schema.get('type', 'anything')}{of}", *told]).replace("|", "\\|")


def _words(response: Mapping[str, Any]) -> str:
    kinds = [kind for kind in response.get("content", {}) if kind != "application/json"]
    about = response["description"].rstrip(".")
    said = [] if about in ("Successful Response", "") else [about[0].lower() + about[1:]]
    return f" ({'; '.join([*said, *(f'`{kind}`' for kind in kinds)])})" if said or kinds else ""


def main(argv: list[str]) -> int:
    """Print, write or check the page."""
    text = page()
    if argv == ["--write"]:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if argv == ["--check"]:
        return int(PAGE.read_text(encoding="utf-8") != text)
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
