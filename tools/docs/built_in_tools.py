"""docs/reference/built-in-tools.md: the built-in tools, made of the schemas that calls are checked against.

python tools/docs/built_in_tools.py            # print the page
python tools/docs/built_in_tools.py --write    # write it
python tools/docs/built_in_tools.py --check    # exit 1 if that would change it
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from isorun.core import signatures
from isorun.runtime.services import built_in_tools
from isorun.tools.tools_insights import tool_isolation

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "built-in-tools.md"
_HEAD = """# Built-in tools

Made by `tools/docs/built_in_tools.py --write` from the schemas that calls are checked against.

A run has those that it names, as in `isorun run report.py --tools generic_tools.write_pdf` or
`tools=["generic_tools.write_pdf"]`. Their libraries come with `pip install 'isorun[tools]'`. See also
[how documents look](../documents.md), [what a search finds and a fetch refuses](../web.md), and
[where tools run](../exec/README-runtime-modes-builtin-tools.md).
"""


def page() -> str:
    """The whole page."""
    return "\n".join((_HEAD, *(line for one in built_in_tools().items() for line in _section(*one)))).rstrip() + "\n"


def _section(tool_id: str, tool: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {tool_id}\n"
    yield f"```text\nawait {tool_id}{signatures.signature(tool)}\n\n{tool['description']}\n```\n"
    required = tool["parameters"].get("required", ())
    yield "| parameter | required | what it is |\n|---|---|---|"
    for name, about in tool["parameters"].get("properties", {}).items():
        yield f"| `{name}` | {'yes' if name in required else 'no'} | {about.get('description', '')} |"
    yield ""
    for name, fields in signatures.objects(tool["result"], in_result=True).items():
        told = ", ".join(f"`{key}: {kind}`" for key, kind in fields.items())
        yield f"`{name}`: {told}\n"
    if fields := tool["result"].get("properties"):
        yield f"Result: {', '.join(f'`{key}`' for key in fields)}\n"
    network = "no network" if not tool["network"] else "the network of the supervisor"
    yield f"Runs in `{tool_isolation(tool_id)}`, with {network}.\n"


def main() -> int:
    """Print the page, write it, or compare it."""
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page(), encoding="utf-8")
    elif sys.argv[1:] == ["--check"]:
        if page() != PAGE.read_text(encoding="utf-8"):
            print(f"{PAGE.name} is not what the tools are: python tools/docs/built_in_tools.py --write")
            return 1
    else:
        print(page())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
