"""A bundle's tools in a worker: each is loaded at its first call."""

import types
from collections.abc import Callable
from typing import Any

from isorun.supervisor.descriptor import Descriptor
from isorun.supervisor.registry import Tool, be_at_home, imported, make_tool, marked, where_of
from isorun.supervisor.tool import Marks


class LazyTools:
    """The tools of a bundle that the supervisor has loaded before; each is loaded here when it is first used."""

    def __init__(self, descriptor: Descriptor) -> None:
        be_at_home(descriptor)
        self._descriptor = descriptor
        self._entries = {entry.alias: entry for entry in descriptor.entries}
        self._marked: dict[str, dict[str, tuple[Callable[..., Any], Marks, types.ModuleType]]] = {}
        self._tools: dict[str, Tool] = {}

    def tool(self, tool_id: str) -> Tool:
        """The tool with this id; its module is imported at its first use. Raises `BundleError`."""
        if tool_id not in self._tools:
            alias, _, name = tool_id.partition(".")
            if alias not in self._marked:
                module = imported(self._entries[alias], self._descriptor)
                self._marked[alias] = {called: (function, marks, module) for called, function, marks in marked(module)}
            function, marks, module = self._marked[alias][name]
            self._tools[tool_id] = make_tool(tool_id, function, marks, where_of(function, module))
        return self._tools[tool_id]

    def where(self, tool_id: str) -> str:
        """File and line of the tool; empty if it was not loaded."""
        return self._tools[tool_id].where if tool_id in self._tools else ""
