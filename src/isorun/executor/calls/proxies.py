"""Stand-ins for the tools that live in the supervisor, one module per alias.

`local_tools.write_note(text="x")` is a coroutine that sends a call, and
`from local_tools import write_note` works too: an alias is a module in `sys.modules`.
"""

import sys
import types
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from isorun.executor.calls import agent_io_tools


class Tool:
    """One tool of one alias, callable with keyword arguments."""

    def __init__(self, alias: str, name: str) -> None:
        self.tool_id = f"{alias}.{name}"
        self.__name__ = name

    def __call__(self, /, *values: object, **params: object) -> Coroutine[Any, Any, Any]:
        """Call the tool and return its result, or raise its typed error."""
        if values:
            raise TypeError(f"{self.tool_id} takes its arguments by name: {self.__name__}(name=value)")
        call: Any = agent_io_tools.tool_call(tool_id=self.tool_id, params=params)
        call.__qualname__ = self.tool_id  # what Python says of a coroutine that nobody awaited
        return call  # type: ignore[no-any-return]  # Any, because __qualname__ is set on it

    def __repr__(self) -> str:
        return f"<tool {self.tool_id}>"


class Alias(types.ModuleType):
    """The tools of one alias; a name that it has not says which it has."""

    def __init__(self, alias: str, tools: Sequence[str]) -> None:
        super().__init__(alias, f"Tools that run in the supervisor, under the alias {alias}.")
        self.__all__ = list(tools)
        for name in tools:
            setattr(self, name, Tool(alias, name))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - it always raises
        has = ", ".join(self.__dict__.get("__all__", ())) or "none that this run may call"
        raise AttributeError(f"{self.__name__} has no tool {name!r}; it has: {has}", name=name, obj=self)


def install(tools: Mapping[str, Sequence[str]]) -> dict[str, types.ModuleType]:
    """Make a module for each alias of *tools* and put it, and agent_io_tools, where `import` finds it."""
    sys.modules["agent_io_tools"] = agent_io_tools
    made: dict[str, types.ModuleType] = {}
    for alias, names in tools.items():
        sys.modules[alias] = made[alias] = Alias(alias, names)
    return made
