"""Stand-ins for the tools that live in the supervisor, one module per alias.

`local_tools.write_note(text="x")` is a coroutine that sends a call, and
`local_tools.write_note.sync(text="x")` waits for it where nothing can be awaited.
`from local_tools import write_note` works too: an alias is a module in `sys.modules`.
"""

import sys
import types
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from isorun.executor.calls import agent_io_tools

_NOTHING: Mapping[str, Sequence[str]] = types.MappingProxyType({})


class Tool:
    """One tool of one alias, callable with keyword arguments. *about*: its signature and its description, if known."""

    def __init__(self, alias: str, name: str, about: Sequence[str] = ()) -> None:
        self.tool_id = f"{alias}.{name}"
        self.__name__ = name
        self._signature = ""
        if about:
            self._signature, text = about
            self.__doc__ = f"{name}{self._signature}\n\n{text}"

    def __call__(self, /, *values: object, **params: object) -> Coroutine[Any, Any, Any]:
        """Call the tool and return its result, or raise its typed error."""
        self._check(values)
        call: Any = agent_io_tools.tool_call(tool_id=self.tool_id, params=params)
        call.__qualname__ = self.tool_id  # what Python says of a coroutine that nobody awaited
        return call  # type: ignore[no-any-return]  # Any, because __qualname__ is set on it

    def sync(self, /, *values: object, **params: object) -> Any:  # noqa: ANN401 - the tool's result is its own affair
        """Call the tool without `await`, in a lambda or a plain function; blocks this thread only."""
        self._check(values)
        return agent_io_tools.tool_call_sync(tool_id=self.tool_id, params=params)

    def _check(self, values: tuple[object, ...]) -> None:
        if values:
            raise TypeError(f"{self.tool_id} takes its arguments by name: {self.__name__}(name=value)")

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - a Signature, or it raises
        if name == "__signature__" and self._signature:  # made when it is asked for: most programs never do
            return _parsed(self._signature)
        raise AttributeError(f"{self.tool_id} has no attribute {name!r}", name=name, obj=self)

    def __repr__(self) -> str:
        return f"<tool {self.tool_id}>"


class _Hint(str):
    """A type hint, or a default, that is shown without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def _parsed(text: str) -> object:
    """The `inspect.Signature` that *text* is, its hints as texts."""
    import __future__

    import inspect

    made: dict[str, Any] = {}
    code = compile(f"def tool{text}: ...", "<tool>", "exec", __future__.annotations.compiler_flag, dont_inherit=True)
    exec(code, made)  # noqa: S102 - one line that the host made of the tool's schema
    signature = inspect.signature(made["tool"])
    parameters = [
        one.replace(annotation=_Hint(one.annotation), default=_Hint("...") if one.default is ... else one.default)
        for one in signature.parameters.values()
    ]
    return signature.replace(parameters=parameters, return_annotation=_Hint(signature.return_annotation))


class Alias(types.ModuleType):
    """The tools of one alias; a name that it has not says which it has."""

    def __init__(self, alias: str, tools: Sequence[str], about: Mapping[str, Sequence[str]] = _NOTHING) -> None:
        super().__init__(alias, f"Tools that run in the supervisor, under the alias {alias}.")
        self.__all__ = list(tools)
        for name in tools:
            setattr(self, name, Tool(alias, name, about.get(f"{alias}.{name}", ())))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - it always raises
        has = ", ".join(self.__dict__.get("__all__", ())) or "none that this run may call"
        raise AttributeError(f"{self.__name__} has no tool {name!r}; it has: {has}", name=name, obj=self)


def install(
    tools: Mapping[str, Sequence[str]], about: Mapping[str, Sequence[str]] = _NOTHING
) -> dict[str, types.ModuleType]:
    """Make a module for each alias of *tools* and put it, and agent_io_tools, where `import` finds it."""
    sys.modules["agent_io_tools"] = agent_io_tools
    made: dict[str, types.ModuleType] = {}
    for alias, names in tools.items():
        sys.modules[alias] = made[alias] = Alias(alias, names, about)
    return made
