"""The tools of a bundle: what is one, its schema, its check, and every way in which loading says no."""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isorun.supervisor.descriptor import load_descriptor
from isorun.supervisor.registry import ArgumentsRefused, BundleError, Tool, load_tools
from tests.bundles import write_bundle


@pytest.fixture(autouse=True)
def _own_modules() -> Iterator[None]:
    """Loading changes sys.path and sys.modules: in a supervisor process for good, here until the test ends."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in sys.modules.keys() - modules:
        if name.startswith(("isorun_bundle", "neighbour")):
            del sys.modules[name]


Load = Callable[..., dict[str, Tool]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """`load(alias=source, …)`: the tools of a bundle of these modules."""

    def loaded(**sources: str) -> dict[str, Tool]:
        return load_tools(load_descriptor(write_bundle(tmp_path / "bundle", **sources)))

    return loaded


def test_what_is_marked_is_a_tool_and_nothing_else_is(load: Load) -> None:
    """Functions, async functions, methods of an instance, static and class methods: by their names, in order.

    An undecorated neighbour, a private helper and an import of another module's tool are none.
    """
    tools = load(
        first='''
            @isorun.tool
            def plain() -> int:
                """One."""
            def neighbour() -> int:
                """No tool."""
            @isorun.tool(timeout_s=2, max_calls=3)
            async def later() -> int:
                """Two."""
            class Box:
                @isorun.tool
                def method(self) -> str:
                    """Three."""
                    return type(self).__name__
                def helper(self) -> None:
                    """No tool."""
                @staticmethod
                @isorun.tool
                def of_nobody() -> int:
                    """Four."""
                @isorun.tool
                @classmethod
                def of_class(cls) -> str:
                    """Five."""
                    return cls.__name__
            box = Box()
        ''',
        second='''
            import sys
            plain = sys.modules["isorun_bundle.first"].plain
            box = sys.modules["isorun_bundle.first"].box
            Box = sys.modules["isorun_bundle.first"].Box
            @isorun.tool
            def own() -> int:
                """Mine."""
        ''',
    )
    assert sorted(tools) == [
        "first.later",
        "first.method",
        "first.of_class",
        "first.of_nobody",
        "first.plain",
        "second.own",
    ]
    assert (tools["first.later"].is_async, tools["first.plain"].is_async) == (True, False)
    assert (tools["first.later"].marks.timeout_s, tools["first.later"].marks.max_calls) == (2, 3)
    assert tools["first.method"].function() == "Box"
    assert tools["first.of_class"].function() == "Box"


def test_a_module_that_can_be_imported_is_an_entry_too(tmp_path: Path) -> None:
    """`module` is imported, from the bundle's folder as from anywhere else."""
    folder = write_bundle(tmp_path / "bundle")
    (folder / "neighbour_tools.py").write_text(
        'import isorun\n@isorun.tool\ndef f() -> int:\n    """F."""\n    return 7\n'
    )
    (folder / "tools_descriptor.py").write_text("TOOLS = [{'module': 'neighbour_tools', 'alias': 'n'}]\n")
    tools = load_tools(load_descriptor(folder))
    assert tools["n.f"].function() == 7
    assert tools["n.f"].where == f"{folder / 'neighbour_tools.py'}:2"


def test_an_instance_of_a_subclass_counts(load: Load) -> None:
    """A base class with tools needs no instance of its own if a class below it has one."""
    tools = load(
        x='''
        class Base:
            @isorun.tool
            def f(self) -> int:
                """F."""
        class Child(Base):
            pass
        child = Child()
        '''
    )
    assert list(tools) == ["x.f"]


def test_the_docstring_describes_tool_parameters_and_result(load: Load) -> None:
    """Google style: the summary and its details, each argument, what is returned; the context is not in the schema."""
    tools = load(
        x='''
        @isorun.tool
        def f(ctx: isorun.ToolContext, text: str, count: int = 3) -> str:
            """Write it down.

            More of it.

            Args:
                text: What the note says.
                count: How many
                    of them.
                ctx: Filled by us.

            Returns:
                The path.
            """
        '''
    )
    tool = tools["x.f"]
    assert tool.described() == {
        "description": "Write it down.\n\nMore of it.",
        "returns": "The path.",
        "parameters": {
            "type": "object",
            "title": "x.f",
            "additionalProperties": False,
            "properties": {
                "text": {"type": "string", "title": "Text", "description": "What the note says."},
                "count": {"type": "integer", "title": "Count", "description": "How many\nof them.", "default": 3},
            },
            "required": ["text"],
        },
        "result": {"type": "string"},
        "where": tool.where,
        "timeout_s": None,
        "max_calls": None,
        "network": True,
    }
    assert tool.context == "ctx"


#: A parameter as written, its schema without title, what passes (and becomes what), what is refused.
TYPES: dict[str, tuple[str, dict[str, Any], list[tuple[Any, Any]], list[Any]]] = {
    "str": ("a: str", {"type": "string"}, [("x", "x"), ("", "")], [1, b"x", None, ["x"]]),
    "int": ("a: int", {"type": "integer"}, [(3, 3), (-(2**80), -(2**80))], ["3", 3.0, True, None]),
    "float": ("a: float", {"type": "number"}, [(1.5, 1.5), (2, 2.0)], ["1.5", True, None]),
    "bool": ("a: bool", {"type": "boolean"}, [(True, True)], [1, 0, "true", None]),
    "bytes": ("a: bytes", {"type": "string", "format": "binary"}, [(b"\xff", b"\xff")], ["x", None, [1]]),
    "list of int": (
        "a: list[int]",
        {"type": "array", "items": {"type": "integer"}},
        [([], []), ([1, 2], [1, 2])],
        [["1"], [True], {"0": 1}, None],
    ),
    "list": ("a: list", {"type": "array", "items": {}}, [([1, "x"], [1, "x"])], ["x", {}]),
    "dict": (
        "a: dict[str, int]",
        {"type": "object", "additionalProperties": {"type": "integer"}},
        [({"k": 1}, {"k": 1})],
        [{"k": "1"}, [], None],
    ),
    "optional": (
        "a: int | None = None",
        {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
        [(None, None), (3, 3)],
        ["3", 1.5, True],
    ),
    "Optional": (
        "a: typing.Optional[str] = None",
        {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        [(None, None), ("x", "x")],
        [3],
    ),
    "union": (
        "a: int | str",
        {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        [(3, 3), ("3", "3")],
        [1.5, None, True],
    ),
    "Literal": (
        "a: typing.Literal['x', 'y'] = 'x'",
        {"type": "string", "enum": ["x", "y"], "default": "x"},
        [("y", "y")],
        ["z", None, 0],
    ),
    "annotated": (
        "a: typing.Annotated[int, pydantic.Field(ge=1)]",
        {"type": "integer", "minimum": 1},
        [(1, 1)],
        [0, "1"],
    ),
    "any": ("a: typing.Any", {}, [(None, None), ([1], [1])], []),
    "default that no JSON holds": ("a: float = float('inf')", {"type": "number"}, [(1.0, 1.0)], ["x"]),
}


@pytest.mark.parametrize("case", TYPES)
def test_schema_and_check_agree(load: Load, case: str) -> None:
    """The schema says what the check does: scalars are exact, "3" is no int and True no number."""
    parameter, schema, good, bad = TYPES[case]
    tool = load(x=f'import typing, pydantic\n@isorun.tool\ndef f({parameter}) -> int:\n    """F."""\n')["x.f"]
    assert {k: v for k, v in tool.schema["properties"]["a"].items() if k != "title"} == schema
    for given_, expected in good:
        value = tool.check({"a": given_})["a"]
        assert (value, type(value)) == (expected, type(expected))
    for given_ in bad:
        with pytest.raises(ArgumentsRefused):
            tool.check({"a": given_})


def test_a_dataclass_is_an_object(load: Load) -> None:
    """Its fields are in the schema, and the tool gets an instance."""
    tool = load(
        x='''
        import dataclasses
        @dataclasses.dataclass
        class Point:
            x: int
            y: int = 0
        @isorun.tool
        def f(at: Point) -> int:
            """F."""
            return at.x - at.y
        '''
    )["x.f"]
    assert tool.function(**tool.check({"at": {"x": 5}})) == 5
    assert set(tool.schema["$defs"]["Point"]["properties"]) == {"x", "y"}
    with pytest.raises(ArgumentsRefused, match=r"^at\.x: Field required$"):
        tool.check({"at": {}})


REFUSED_ARGUMENTS = [
    ({}, "text: Field required"),
    ({"text": 3}, "text: Input should be a valid string"),
    ({"text": "x", "more": 1}, "more: Extra inputs are not permitted"),
    ({"text": "x", "ctx": None}, "ctx: Extra inputs are not permitted"),
    ({"text": "x", "numbers": [1, "s3cret"]}, "numbers.1: Input should be a valid integer"),
]


@pytest.mark.parametrize(("params", "text"), REFUSED_ARGUMENTS)
def test_what_is_wrong_with_arguments_is_said_without_their_values(
    load: Load, params: dict[str, Any], text: str
) -> None:
    """The text names the place and the fault; the context cannot be given from outside; no value is repeated."""
    source = '@isorun.tool\ndef f(text: str, ctx: isorun.ToolContext, numbers: list[int] = []) -> int:\n    """F."""\n'
    with pytest.raises(ArgumentsRefused) as raised:
        load(x=source)["x.f"].check(params)
    assert str(raised.value) == text


def test_five_faults_are_shown(load: Load) -> None:
    """A call with a thousand faults gets a short answer."""
    tool = load(x='@isorun.tool\ndef f(a: list[int]) -> int:\n    """F."""\n')["x.f"]
    with pytest.raises(ArgumentsRefused) as raised:
        tool.check({"a": ["x"] * 1000})
    assert str(raised.value) == "; ".join(f"a.{n}: Input should be a valid integer" for n in range(5))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(params=st.dictionaries(st.sampled_from("abcdefg") | st.text(), _JSON, max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_params_are_arguments_or_refused(many: Tool, params: dict[str, Any]) -> None:
    """`check` gives the tool's own parameters, or `ArgumentsRefused`."""
    with contextlib.suppress(ArgumentsRefused):
        assert set(many.check(params)) <= set("abcdefg")


@pytest.fixture
def many(load: Load) -> Tool:
    """A tool with a parameter of every kind, none required."""
    return load(
        x='''
        import typing, dataclasses, enum, datetime
        @dataclasses.dataclass
        class D:
            x: int
            inner: "typing.Optional[D]" = None
        class E(enum.Enum):
            ONE = "one"
        @isorun.tool
        def f(
            a: int = 0, b: str | None = None, c: list[dict[str, float]] = [], d: D | None = None,
            e: E = E.ONE, f: datetime.datetime | None = None, g: tuple[int, bytes] | None = None,
        ) -> int:
            """F."""
        '''
    )["x.f"]


GOOD = '@isorun.tool\ndef good() -> int:\n    """Good."""\n'
#: A module, the line that the refusal names (None: the file alone), the tool it names, and what it says.
FAULTS: dict[str, tuple[str, int | None, str]] = {
    "syntax": ("def f(:\n", 2, "x: SyntaxError: invalid syntax"),
    "import": ("\nimport no_such_module_here\n", 3, "x: ModuleNotFoundError: No module named 'no_such_module_here'"),
    "exit": ("raise SystemExit(3)\n", 2, "x: SystemExit: 3"),
    "error below": ("def f():\n    1 / 0\nf()\n", 3, "x: ZeroDivisionError: division by zero"),
    "no tool": (
        'def f() -> int:\n    """F."""\n',
        None,
        "x: no function or method is marked @isorun.tool",
    ),
    "private": (
        '@isorun.tool\ndef _f() -> int:\n    """F."""\n',
        2,
        "x._f: a tool's name must not begin with an underscore",
    ),
    "no hint": ('@isorun.tool\ndef f(a) -> int:\n    """F."""\n', 2, "x.f: the parameter a has no type hint"),
    "unknown hint": (
        '@isorun.tool\ndef f(a: "Nothing") -> int:\n    """F."""\n',
        2,
        "x.f: its type hints cannot be read: name 'Nothing' is not defined",
    ),
    "hint of no module": (
        'import typing\n@isorun.tool\ndef f(a: "typing.Nothing") -> int:\n    """F."""\n',
        3,
        "x.f: its type hints cannot be read: module 'typing' has no attribute 'Nothing'",
    ),
    "hint that is no Python": (
        '@isorun.tool\ndef f(a: "list[") -> int:\n    """F."""\n',
        2,
        "x.f: its type hints cannot be read: Forward reference must be an expression",
    ),
    "hint without a schema": (
        'import socket\n@isorun.tool\ndef f(a: socket.socket) -> int:\n    """F."""\n',
        3,
        "x.f: no JSON schema can be made of its type hints: ",
    ),
    "hint that JSON cannot say": (
        'import typing\n@isorun.tool\ndef f(a: typing.Callable[[], int]) -> int:\n    """F."""\n',
        3,
        "x.f: no JSON schema can be made of its type hints: ",
    ),
    "*args": (
        '@isorun.tool\ndef f(*args: int) -> int:\n    """F."""\n',
        2,
        "x.f: *args: int: a tool names each of its parameters and takes them by name",
    ),
    "**kwargs": (
        '@isorun.tool\ndef f(**kwargs: int) -> int:\n    """F."""\n',
        2,
        "x.f: **kwargs: int: a tool names each of its parameters and takes them by name",
    ),
    "positional": (
        '@isorun.tool\ndef f(a: int, /) -> int:\n    """F."""\n',
        2,
        "x.f: a: int: a tool names each of its parameters and takes them by name",
    ),
    "no docstring": (
        "@isorun.tool\ndef f() -> int:\n    return 1\n",
        2,
        "x.f: a tool needs a docstring that says what it does",
    ),
    "unknown argument": (
        '@isorun.tool\ndef f(a: int) -> int:\n    """F.\n\n    Args:\n        b: It.\n    """\n',
        2,
        "x.f: the docstring describes b, which is not a parameter",
    ),
    "two contexts": (
        '@isorun.tool\ndef f(a: isorun.ToolContext, b: isorun.ToolContext) -> int:\n    """F."""\n',
        2,
        "x.f: a and b are both the ToolContext",
    ),
    "class without an instance": (
        'class Box:\n    @isorun.tool\n    def f(self) -> int:\n        """F."""\n',
        3,
        "Box.f: the module makes no Box; add a line such as `box = Box()`",
    ),
    "class with a private instance": (
        'class Box:\n    @isorun.tool\n    def f(self) -> int:\n        """F."""\n_box = Box()\n',
        3,
        "Box.f: the module makes no Box; add a line such as `box = Box()`",
    ),
    "bad mark": (
        "@isorun.tool(timeout_s=0)\ndef f() -> int: ...\n",
        2,
        "x: ValueError: timeout_s must be positive and finite, got 0",
    ),
    "a mark that is no time": (
        "@isorun.tool(timeout_s=True)\ndef f() -> int: ...\n",
        2,
        "x: ValueError: timeout_s must be positive and finite, got True",
    ),
    "a mark that is a text": (
        "@isorun.tool(timeout_s='5')\ndef f() -> int: ...\n",
        2,
        "x: ValueError: timeout_s must be positive and finite, got '5'",
    ),
    "bad count": (
        "@isorun.tool(max_calls=True)\ndef f() -> int: ...\n",
        2,
        "x: ValueError: max_calls must be a whole number above 0, got True",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_found_at_load_with_file_line_and_tool(load: Load, tmp_path: Path, case: str) -> None:
    """Whatever is wrong, the refusal says where it stands and which tool it is; one sound tool changes nothing."""
    source, line, text = FAULTS[case]
    with pytest.raises(BundleError) as raised:
        load(w=GOOD, x=source)
    file = tmp_path / "bundle" / "tools" / "x.py"
    where = str(file) if line is None else f"{file}:{line}"
    assert str(raised.value).startswith(f"{where}: {text}")
    assert raised.value.code == "invalid_bundle"


def test_two_tools_of_a_name_are_refused(load: Load, tmp_path: Path) -> None:
    """The second says where the first is: a function and a method, or two instances of a class."""
    source = 'class Box:\n    @isorun.tool\n    def f(self) -> int:\n        """F."""\none = Box()\ntwo = Box()\n'
    with pytest.raises(BundleError) as raised:
        load(x=source)
    where = f"{tmp_path / 'bundle' / 'tools' / 'x.py'}:3"
    assert str(raised.value) == f"{where}: x.f: the name is taken by the tool at {where}"


def test_a_mode_for_a_tool_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """TOOL_RUNTIME may name a tool that only loading can know of; a slip in it is found then."""
    folder = write_bundle(tmp_path / "bundle", x=GOOD)
    with open(folder / "tools_descriptor.py", "a") as file:
        file.write("TOOL_RUNTIME = {'x.goood': 'none'}\n")
    with pytest.raises(BundleError) as raised:
        load_tools(load_descriptor(folder))
    assert str(raised.value) == f"{folder}: TOOL_RUNTIME names x.goood, and there is no such tool"


def test_a_module_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    """For `module` the refusal has its dotted name, alias and error."""
    folder = write_bundle(tmp_path / "bundle")
    (folder / "tools_descriptor.py").write_text("TOOLS = [{'module': 'no.such.module', 'alias': 'n'}]\n")
    with pytest.raises(BundleError) as raised:
        load_tools(load_descriptor(folder))
    assert str(raised.value) == "no.such.module: n: ModuleNotFoundError: No module named 'no'"


def test_the_mark_changes_nothing(load: Load) -> None:
    """A marked function is the function itself: its author can call and test it as before."""
    tools = load(x='@isorun.tool\nasync def f(a: int) -> int:\n    """F."""\n    return a + 1\n')
    assert asyncio.run(tools["x.f"].function(a=1)) == 2
    assert sys.modules["isorun_bundle.x"].f is tools["x.f"].function
