"""Stand-ins for the tools that live in the supervisor, one module per alias.

`local_tools.write_note(text="x")` is a coroutine that sends a call, and
`from local_tools import write_note` works too: an alias is a module in `sys.modules`.
"""

import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any

from isorun.executor import agent_io_tools


class Tool:
    """One tool of one alias, callable with keyword arguments."""

    def __init__(self, alias: str, name: str) -> None:
        self.tool_id = f"{alias}.{name}"
        self.__name__ = name

    async def __call__(self, **params: Any) -> Any:  # noqa: ANN401 - the tool's result is its own affair
        """Call the tool and return its result, or raise its typed error."""
        return await agent_io_tools.tool_call(tool_id=self.tool_id, params=params)

    def __repr__(self) -> str:
        return f"<tool {self.tool_id}>"


def install(tools: Mapping[str, Sequence[str]]) -> dict[str, types.ModuleType]:
    """Make a module for each alias of *tools* and put it, and agent_io_tools, where `import` finds it."""
    sys.modules["agent_io_tools"] = agent_io_tools
    made = {}
    for alias, names in tools.items():
        module = types.ModuleType(alias, f"Tools that run in the supervisor, under the alias {alias}.")
        for name in names:
            setattr(module, name, Tool(alias, name))
        sys.modules[alias] = made[alias] = module
    return made
