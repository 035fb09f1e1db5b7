"""The tools of a bundle: found in its modules, each with the schema its arguments are checked against.

Only what carries the mark of `isorun.tool` is a tool; a helper beside it is not there.
Whatever is wrong with a tool is found when the bundle is loaded, with file, line and
tool, never at a call. pydantic turns type hints into schema and check, and the type of the
result into what is sent.
"""

import functools
import importlib
import importlib.util
import inspect
import io
import json
import sys
import types
import typing
from collections import abc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, NotRequired, Required

import docstring_parser
from pydantic import ConfigDict, Field, PydanticUserError, TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema
from pydantic.types import Strict
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from isorun.core.errors import InvalidRequest
from isorun.supervisor.descriptor import Descriptor, Entry, line_of
from isorun.supervisor.tool import MARK, Marks, ToolContext
from isorun.wire import conversion
from isorun.wire.values import Unfit

_SCALARS = (int, float, str, bool, bytes)
_SHOWN_ERRORS = 5
_RUNNING = (abc.Generator, abc.AsyncGenerator, abc.Iterator, abc.AsyncIterator, abc.AsyncIterable, abc.Coroutine)
_NO_RESULT = (typing.NoReturn, typing.Never)


class BundleError(InvalidRequest):
    """A bundle cannot be loaded; the text names file, line and tool."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="invalid_bundle")


class ArgumentsRefused(Exception):
    """A call's arguments do not fit; the text says which and why, and holds none of their values."""


class _ResultSchema(GenerateJsonSchema):
    """As pydantic's; a type that JSON schema cannot say passes if `conversion` or its own code writes it."""

    def is_instance_schema(self, schema: Any) -> dict[str, Any]:  # noqa: ANN401 - of pydantic's core
        return {} if conversion.is_known(schema["cls"]) else super().is_instance_schema(schema)

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, Any]:  # noqa: ANN401 - as above
        if "serialization" in schema:
            return {}
        return super().handle_invalid_for_json_schema(schema, error_info)


class ResultType:
    """What a tool says that it returns: its JSON schema, and how such a value is written as JSON's types.

    Raises `TypeError`, which says what to do, for a *hint* whose values can never be sent.
    """

    def __init__(self, hint: Any) -> None:  # noqa: ANN401 - a type
        if never := _never(hint):
            raise TypeError(never)
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(Any if hint in _NO_RESULT else _without_packages(hint))
            schema = self._adapter.json_schema(mode="serialization", schema_generator=_ResultSchema)
            json.dumps(schema, allow_nan=False)  # it must also be sendable
        except PydanticUserError as error:
            if error.code != "typed-dict-version":  # of a TypedDict the values are dicts, and are sent
                first = _first(error).partition(". ")[0]  # the rest is not for who writes a tool
                raise TypeError(f"return a dataclass, a pydantic model, or a dict made of it ({first})") from error
            self._adapter, schema = TypeAdapter(Any), {"type": "object"}
        self.schema: Mapping[str, Any] = schema

    def dumped(self, value: object) -> Any:  # noqa: ANN401 - JSON's types and bytes
        """*value* as pydantic writes it in JSON mode; bytes stay bytes. Raises `Unfit`, and what the type raises."""
        if not conversion.look(value):
            try:
                return conversion.plain(self._dumped(value, mode="json", fallback=conversion.plain))
            except Unfit as unfit:
                if unfit.path:  # else `fallback` raised it, which does not know where it was called
                    raise
        return conversion.plain(self._dumped(value, mode="python"))

    def _dumped(self, value: object, **options: Any) -> Any:  # noqa: ANN401 - pydantic's own
        try:
            return self._adapter.dump_python(value, by_alias=True, warnings=False, **options)
        except ValueError as error:
            if "Circular reference" in str(error):
                raise Unfit("it contains itself, or is nested too deep") from None
            raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One tool. `schema` is the JSON schema of its arguments, `where` its file and line."""

    id: str
    description: str
    returns: str
    schema: Mapping[str, Any]
    where: str
    marks: Marks
    is_async: bool
    function: Callable[..., Any]
    arguments: TypeAdapter[dict[str, Any]]
    result: ResultType
    context: str | None  # the parameter that gets the ToolContext

    def check(self, params: dict[str, Any]) -> dict[str, Any]:
        """The arguments in *params*, as the tool's own types. Raises `ArgumentsRefused`."""
        try:
            return self.arguments.validate_python(params)
        except ValidationError as error:
            said = [
                f"{'.'.join(map(str, one['loc'])) or 'arguments'}: {one['msg']}"
                for one in error.errors(include_url=False, include_context=False, include_input=False)[:_SHOWN_ERRORS]
            ]
            raise ArgumentsRefused("; ".join(said)) from None

    def described(self) -> dict[str, Any]:
        """What is shown of it, in JSON's types."""
        return {
            "description": self.description,
            "returns": self.returns,
            "parameters": dict(self.schema),
            "result": dict(self.result.schema),
            "where": self.where,
            "timeout_s": self.marks.timeout_s,
            "max_calls": self.marks.max_calls,
            "network": self.marks.network,
        }


def load_tools(descriptor: Descriptor) -> dict[str, Tool]:
    """Every tool of the bundle by its id, `alias.name`. Raises `BundleError`."""
    be_at_home(descriptor)
    tools: dict[str, Tool] = {}
    for entry in descriptor.entries:
        tools |= _tools_of(entry, imported(entry, descriptor))
    for tool_id in descriptor.modes:
        if tool_id not in tools:
            raise BundleError(f"{descriptor.root}: TOOL_RUNTIME names {tool_id}, and there is no such tool")
    return tools


def own_tool(tool_id: str, function: Callable[..., Any]) -> Tool:
    """The tool that a caller's *function* is: without type hints it takes anything, and it needs no docstring.

    Raises `BundleError` for what can be no tool, as `load_tools`.
    """
    plain: Any = function
    while isinstance(plain, functools.partial):
        plain = plain.func
    if not inspect.isroutine(plain):
        plain = type(plain).__call__
    code = getattr(inspect.unwrap(plain), "__code__", None)
    where = f"{code.co_filename}:{code.co_firstlineno}" if code else type(function).__name__
    tool = make_tool(tool_id, function, getattr(plain, MARK, Marks()), where, plain)
    return replace(tool, is_async=inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(plain))


def be_at_home(descriptor: Descriptor) -> None:
    """Tool modules may import their neighbours. The built-in tools lie in no bundle's folder."""
    if descriptor.root.is_absolute():
        sys.path.insert(0, str(descriptor.root))


def _tools_of(entry: Entry, module: types.ModuleType) -> dict[str, Tool]:
    tools: dict[str, Tool] = {}
    for name, function, marks in marked(module):
        tool_id = f"{entry.alias}.{name}"
        where = where_of(function, module)
        if name.startswith("_"):
            raise BundleError(f"{where}: {tool_id}: a tool's name must not begin with an underscore")
        if tool_id in tools:
            raise BundleError(f"{where}: {tool_id}: the name is taken by the tool at {tools[tool_id].where}")
        tools[tool_id] = make_tool(tool_id, function, marks, where)
    if not tools:
        raise BundleError(f"{module.__file__}: {entry.alias}: no function or method is marked @isorun.tool")
    return tools


def imported(entry: Entry, descriptor: Descriptor) -> types.ModuleType:
    path = str(descriptor.root / entry.ref) if entry.ref else entry.module
    try:
        if entry.module:
            return importlib.import_module(entry.module)
        name = f"isorun_bundle.{entry.alias}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError("not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        where = path if entry.module else f"{path}:{line_of(error, path)}"
        raise BundleError(f"{where}: {entry.alias}: {type(error).__name__}: {error}") from error
    return module


def marked(module: types.ModuleType) -> Iterator[tuple[str, Callable[..., Any], Marks]]:
    """The tools of *module*: its own functions, and the methods of its own public instances."""
    for name, value in vars(module).items():
        if inspect.isclass(value):
            _check_class(value, module)
        elif inspect.isroutine(value):
            if (marks := getattr(value, MARK, None)) and getattr(value, "__module__", None) == module.__name__:
                yield name, value, marks
        elif not name.startswith("_") and type(value).__module__ == module.__name__:
            for method in _marked_names(type(value)):
                bound = getattr(value, method)
                yield method, bound, getattr(bound, MARK)


def _check_class(cls: type, module: types.ModuleType) -> None:
    """Refuse a class of *module* with tools that no public instance has."""
    if cls.__module__ != module.__name__:
        return
    names = _marked_names(cls)
    if names and not any(isinstance(v, cls) and not n.startswith("_") for n, v in vars(module).items()):
        function = getattr(cls, names[0])
        raise BundleError(
            f"{where_of(function, module)}: {cls.__name__}.{names[0]}: the module makes no {cls.__name__}; "
            f"add a line such as `{cls.__name__.lower()} = {cls.__name__}()`"
        )


def _marked_names(cls: type) -> list[str]:
    return [name for name in dir(cls) if isinstance(getattr(getattr(cls, name, None), MARK, None), Marks)]


def where_of(function: Callable[..., Any], module: types.ModuleType) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else str(module.__file__)


def make_tool(
    tool_id: str, function: Callable[..., Any], marks: Marks, where: str, own: Callable[..., Any] | None = None
) -> Tool:
    """The tool that *function* is; *own*: what it is made of, if it is a caller's and may lack hints and docstring.

    Long because each mistake of an author has its own error text.
    """
    try:
        signature, made_of = inspect.signature(function), own or function
        hints = typing.get_type_hints(inspect.unwrap(getattr(made_of, "__func__", made_of)), include_extras=True)
        if own is not None:
            hints = {**dict.fromkeys(signature.parameters, Any), **hints}
    except Exception as error:  # it evaluates what the author wrote
        raise BundleError(f"{where}: {tool_id}: its type hints cannot be read: {error}") from error
    try:
        told = docstring_parser.parse(inspect.getdoc(made_of) or "")
    except docstring_parser.ParseError as error:
        raise BundleError(f"{where}: {tool_id}: its docstring cannot be read: {error}") from error
    about = {param.arg_name: param.description or "" for param in told.params}
    context, fields = None, {}
    for parameter in signature.parameters.values():
        if hints.get(parameter.name) is ToolContext:
            if context is not None:
                raise BundleError(f"{where}: {tool_id}: {context} and {parameter.name} are both the ToolContext")
            context = parameter.name
        else:
            fields[parameter.name] = _field(parameter, hints, about, f"{where}: {tool_id}")
    if unknown := sorted(about.keys() - fields.keys() - {context}):
        raise BundleError(f"{where}: {tool_id}: the docstring describes {unknown[0]}, which is not a parameter")
    try:
        arguments = _adapter(tool_id, fields)
        schema = arguments.json_schema()
        json.dumps(schema, allow_nan=False)  # it must also be sendable
    except Exception as error:  # it evaluates what the author wrote
        told_first = f"no JSON schema can be made of its type hints: {_first(error)}"
        raise BundleError(f"{where}: {tool_id}: {told_first}") from error
    description = "\n\n".join(filter(None, (told.short_description, told.long_description)))
    if not description and own is None:
        raise BundleError(f"{where}: {tool_id}: a tool needs a docstring that says what it does")
    return Tool(
        id=tool_id,
        description=description,
        returns=(told.returns.description or "") if told.returns else "",
        schema=schema,
        where=where,
        marks=marks,
        is_async=inspect.iscoroutinefunction(function),
        function=function,
        arguments=arguments,
        result=_result(function, hints.get("return", Any), f"{where}: {tool_id}"),
        context=context,
    )


def _result(function: Callable[..., Any], hint: Any, where: str) -> ResultType:  # noqa: ANN401 - a type
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise BundleError(f"{where}: it has a yield, and a generator cannot be sent: return a list")
    try:
        return ResultType(hint)
    except Exception as error:  # it evaluates what the author wrote
        named = inspect.formatannotation(hint)
        raise BundleError(f"{where}: its result, {named}, can never be sent: {_first(error)}") from error


def _never(hint: Any) -> str | None:  # noqa: ANN401 - a type
    """What to do if values with *hint* somewhere in it can never be sent; None if nothing is known against it."""
    kind = typing.get_origin(hint) or hint
    if kind in _RUNNING:
        return "return a list"
    if kind is abc.Callable or kind is type:
        return "return a value that was made, not what makes it"
    if inspect.isclass(kind) and issubclass(kind, (io.IOBase, typing.IO)):
        return "return the file's text or bytes, or write it with ToolContext.open_output and return its path"
    if kind is typing.Literal:
        return None
    return next(filter(None, map(_never, typing.get_args(hint)[: 1 if kind is Annotated else None])), None)


def _without_packages(hint: Any) -> Any:  # noqa: ANN401 - types in, types out
    """*hint* with Any for each class that pydantic does not know and `conversion` does, such as a DataFrame."""
    kind = typing.get_origin(hint) or hint
    if inspect.isclass(kind) and (conversion.is_known(kind) or (conversion.has_form(kind) and not _has_schema(kind))):
        return Any
    return _within(hint, _without_packages)


def _within(hint: Any, change: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - types in, types out
    """*hint* with *change* made to each type that it is made of."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is None or origin is typing.Literal:
        return hint
    if origin is Annotated:
        return Annotated[(change(args[0]), *args[1:])]
    if origin is types.UnionType or origin is typing.Union:
        return typing.Union[tuple(map(change, args))]  # noqa: UP007 - made from a list
    try:
        return origin[tuple(map(change, args))]
    except TypeError:  # Callable and its like take no such arguments
        return hint


def _has_schema(kind: type) -> bool:
    try:
        TypeAdapter(kind)
    except PydanticUserError:
        return False
    return True


def _first(error: Exception) -> str:
    """The first line of what *error* says."""
    return (str(error) or type(error).__name__).splitlines()[0]


def _field(parameter: inspect.Parameter, hints: Mapping[str, Any], about: Mapping[str, str], where: str) -> Any:  # noqa: ANN401 - a type
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
        raise BundleError(f"{where}: {parameter}: a tool names each of its parameters and takes them by name")
    if parameter.name not in hints:
        raise BundleError(f"{where}: the parameter {parameter.name} has no type hint")
    extra: dict[str, Any] = {}
    optional = parameter.default is not parameter.empty
    if optional and (found := _as_json(parameter.default)):
        extra["default"] = found[0]
    hint: Any = Annotated[
        exact(hints[parameter.name]),
        Field(description=about.get(parameter.name) or None, json_schema_extra=extra or None),
    ]
    return NotRequired[hint] if optional else Required[hint]


def _as_json(value: object) -> list[Any]:
    """*value* as a schema shows it, in a list; an empty one for a value that JSON has no form for."""
    try:
        made = conversion.plain(value)
        json.dumps(made, allow_nan=False)
    except (Unfit, TypeError, ValueError, RecursionError):
        return []
    return [made]


def exact(hint: Any) -> Any:  # noqa: ANN401 - types in, types out
    """*hint* with every scalar in it strict, so that "3" is not an int: the check follows the schema."""
    if hint in _SCALARS:
        return Annotated[hint, Strict()]
    return _within(hint, exact)


def _adapter(tool_id: str, fields: dict[str, Any]) -> TypeAdapter[dict[str, Any]]:
    make: Any = TypedDict  # from names that are known only now, which the type checker cannot follow
    shape = make(tool_id.replace(".", "_"), fields)
    shape.__pydantic_config__ = ConfigDict(extra="forbid", title=tool_id)
    return TypeAdapter(shape)
