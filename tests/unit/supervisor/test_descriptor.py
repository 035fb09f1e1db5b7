"""`tools_descriptor.py`: what it may say, and the words in which anything else is refused."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from isorun.core.errors import InvalidRequest
from isorun.supervisor.descriptor import DESCRIPTOR, Descriptor, Entry, from_json, load_descriptor, parse_descriptor

WHERE = "here"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle's folder with two tool files and a folder named like one."""
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "tools" / "folder.py").mkdir(parents=True)
    for name in ("a.py", "tools/b.py"):
        (folder / name).write_text("")
    return folder


def parsed(root: Path, tools: object, **names: object) -> Descriptor:
    return parse_descriptor({"TOOLS": tools, **names}, root, WHERE)


GOOD = [
    ([{"ref": "a.py", "alias": "x"}], (Entry(alias="x", ref="a.py"),)),
    ([{"ref": "./tools/b.py", "alias": "x"}], (Entry(alias="x", ref="./tools/b.py"),)),
    ([{"module": "package.module", "alias": "x"}], (Entry(alias="x", module="package.module"),)),
    ([{"module": "m", "ref": "", "alias": "x"}], (Entry(alias="x", module="m"),)),
    (
        ({"module": "m", "alias": "x"}, {"ref": "a.py", "alias": "y"}),
        (Entry(alias="x", module="m"), Entry(alias="y", ref="a.py")),
    ),
]


@pytest.mark.parametrize(("tools", "entries"), GOOD)
def test_entries_are_read_in_order(root: Path, tools: object, entries: tuple[Entry, ...]) -> None:
    """A list or tuple of entries, each a file of the bundle or an importable module, gives them as they stand."""
    assert parsed(root, tools) == Descriptor(root=root, entries=entries, modes={})


NO_LIST = "here: TOOLS must be a list of entries with alias, and ref or module"
OBJECT = "here: TOOLS[0] must be an object with alias, and ref or module, got "
ALIAS = "here: TOOLS[0]: alias must be a name such as local_tools, got "
ONE_OF = "here: TOOLS[0] (x): give exactly one of module and ref"
MODULE = "here: TOOLS[0] (x): module must be a dotted name, got "
REF = "here: TOOLS[0] (x): ref must be the path of a .py file below the bundle, got "
BELOW = "here: TOOLS[0] (x): ref must stay below the bundle, got "

REFUSED: dict[str, tuple[object, str]] = {
    "None": (None, NO_LIST),
    "an empty list": ([], NO_LIST),
    "an empty tuple": ((), NO_LIST),
    "a dict": ({}, NO_LIST),
    "a text": ("tools/a.py", NO_LIST),
    "an entry that is a text": (["a.py"], OBJECT + "'a.py'"),
    "an entry that is a pair": ([("ref", "a.py")], OBJECT + "a value of type tuple"),
    "an unknown key": (
        [{"ref": "a.py", "alias": "x", "name": "y"}],
        "here: TOOLS[0]: unknown key 'name'; known are module, ref, alias",
    ),
    "a key that is no text": (
        [{1: 2, "alias": "x"}],
        "here: TOOLS[0]: unknown key 1; known are module, ref, alias",
    ),
    "no alias": (
        [{"ref": "a.py"}],
        "here: TOOLS[0]: alias is missing: the name under which programs find the tools",
    ),
    "an empty alias": ([{"ref": "a.py", "alias": ""}], ALIAS + "''"),
    "an alias with a dot": ([{"ref": "a.py", "alias": "a.b"}], ALIAS + "'a.b'"),
    "an alias with a dash": ([{"ref": "a.py", "alias": "a-b"}], ALIAS + "'a-b'"),
    "a private alias": ([{"ref": "a.py", "alias": "_x"}], ALIAS + "'_x'"),
    "a dunder alias": ([{"ref": "a.py", "alias": "__main__"}], ALIAS + "'__main__'"),
    "an alias of other letters": ([{"ref": "a.py", "alias": "werkzeüge"}], ALIAS + "'werkzeüge'"),
    "an alias that is a number": ([{"ref": "a.py", "alias": 7}], ALIAS + "7"),
    "the same alias twice": (
        [{"ref": "a.py", "alias": "x"}, {"module": "m", "alias": "x"}],
        "here: TOOLS[1]: the alias x is taken by an earlier entry",
    ),
    "neither": ([{"alias": "x"}], ONE_OF),
    "both": ([{"alias": "x", "ref": "a.py", "module": "m"}], ONE_OF),
    "a module with a slash": ([{"alias": "x", "module": "a/b"}], MODULE + "'a/b'"),
    "a relative module": ([{"alias": "x", "module": ".a"}], MODULE + "'.a'"),
    "a module that is a list": ([{"alias": "x", "module": ["m"]}], MODULE + "a value of type list"),
    "a file that is no Python": ([{"alias": "x", "ref": "a.txt"}], REF + "'a.txt'"),
    "a ref with NUL": ([{"alias": "x", "ref": "a\0.py"}], REF + "'a\\x00.py'"),
    "a ref with a newline": ([{"alias": "x", "ref": "a\n.py"}], REF + "'a\\n.py'"),
    "a ref that is a list": ([{"alias": "x", "ref": ["a.py"]}], REF + "a value of type list"),
    "an absolute ref": ([{"alias": "x", "ref": "/etc/a.py"}], BELOW + "'/etc/a.py'"),
    "a ref that leads out": ([{"alias": "x", "ref": "../a.py"}], BELOW + "'../a.py'"),
    "a ref that leads out and back": ([{"alias": "x", "ref": "tools/../a.py"}], BELOW + "'tools/../a.py'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_with_an_entry_is_said(root: Path, case: str) -> None:
    """Each refusal names the place, the entry and what it must be instead."""
    tools, text = REFUSED[case]
    with pytest.raises(InvalidRequest) as raised:
        parsed(root, tools)
    assert (str(raised.value), raised.value.code) == (text, "invalid_bundle")


@pytest.mark.parametrize(
    "alias", ["exec_tools", "agent_io_tools", "OUTPUT_DIR", "Path", "os", "json", "email", "print", "class", "None"]
)
def test_an_alias_that_programs_know_already_is_refused(root: Path, alias: str) -> None:
    """Names that the program finds, builtins, keywords and modules of Python's own library are taken."""
    with pytest.raises(InvalidRequest) as raised:
        parsed(root, [{"ref": "a.py", "alias": alias}])
    text = f"here: TOOLS[0]: the alias {alias} is a name that every program has already; choose another"
    assert str(raised.value) == text


def test_a_descriptor_without_tools_is_refused(root: Path) -> None:
    """A file that defines something else is told what it must define."""
    with pytest.raises(InvalidRequest) as raised:
        parse_descriptor({"tools": []}, root, WHERE)
    assert str(raised.value) == "here: it defines no TOOLS, a list of entries with alias, and ref or module"


@pytest.mark.parametrize("ref", ["missing.py", "tools/folder.py", "a.py/b.py", "a" * 300 + ".py", "é.py"])
def test_a_ref_must_be_a_file(root: Path, ref: str) -> None:
    """What is not a regular file is refused by its whole path, also where the path is too long to exist."""
    with pytest.raises(InvalidRequest) as raised:
        parsed(root, [{"alias": "x", "ref": ref}])
    assert str(raised.value) == f"here: TOOLS[0] (x): there is no file {root / ref}"


NO_TOOL = ", but no alias in TOOLS has such a tool"
MODES: dict[str, tuple[object, str]] = {
    "a list": ([], "here: TOOL_RUNTIME must be an object such as {'local_tools.write_note': 'none'}"),
    "None": (None, "here: TOOL_RUNTIME must be an object such as {'local_tools.write_note': 'none'}"),
    "another alias": ({"y.f": "none"}, "here: TOOL_RUNTIME names 'y.f'" + NO_TOOL),
    "an alias alone": ({"x": "none"}, "here: TOOL_RUNTIME names 'x'" + NO_TOOL),
    "an alias and a dot": ({"x.": "none"}, "here: TOOL_RUNTIME names 'x.'" + NO_TOOL),
    "no text": ({1: "none"}, "here: TOOL_RUNTIME names 1" + NO_TOOL),
    "an unknown mode": (
        {"x.f": "thread"},
        "here: TOOL_RUNTIME['x.f'] is 'thread'; use one of none, local, local_network, docker",
    ),
    "a mode that is no text": (
        {"x.f": None},
        "here: TOOL_RUNTIME['x.f'] is None; use one of none, local, local_network, docker",
    ),
}


@pytest.mark.parametrize("case", MODES)
def test_what_is_wrong_with_a_mode_is_said(root: Path, case: str) -> None:
    """A tool of no alias, or a way to run it that there is not, is refused."""
    modes, text = MODES[case]
    with pytest.raises(InvalidRequest) as raised:
        parsed(root, [{"alias": "x", "ref": "a.py"}], TOOL_RUNTIME=modes)
    assert str(raised.value) == text


def test_the_control_for_modes(root: Path) -> None:
    """Every mode is taken, for a tool of an alias that is there."""
    for mode in ("none", "local", "local_network", "docker"):
        descriptor = parsed(root, [{"alias": "x", "ref": "a.py"}], TOOL_RUNTIME={"x.f": mode})
        assert descriptor.modes == {"x.f": mode}


_ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.sampled_from(["x", "y", "a.py", "tools/b.py", "..", "/a.py", "none", "x.f", "exec_tools", "m.n"]),
    st.builds(object),
)
_KEYS = st.one_of(st.sampled_from(["alias", "ref", "module", "TOOLS", "TOOL_RUNTIME", "x.f"]), _ODD)
_ANY = st.recursive(
    _ODD, lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(_KEYS, inner), max_leaves=12
)
_ENTRIES = st.lists(st.dictionaries(st.sampled_from(["alias", "ref", "module"]), _ODD), max_size=4)


@pytest.mark.slow
@given(tools=_ANY | _ENTRIES, modes=_ANY)
@example(tools=[{"alias": "x", "ref": "a" * 5000 + ".py"}], modes={})
@example(tools=[{"alias": "x", "ref": "\ud800.py"}], modes={})
@example(tools=[{"alias": "x", "ref": "a.py"}], modes={"x.f": float("nan")})
def test_any_namespace_is_a_descriptor_or_refused(root: Path, tools: object, modes: object) -> None:
    """Whatever the names hold, they give a Descriptor that survives its own JSON, or InvalidRequest."""
    with contextlib.suppress(InvalidRequest):
        descriptor = parsed(root, tools, TOOL_RUNTIME=modes)
        assert from_json(descriptor.to_json()) == descriptor


def test_a_descriptor_survives_its_own_json(root: Path) -> None:
    """What the supervisor process reads is what the host parsed."""
    tools = [{"alias": "x", "ref": "tools/b.py"}, {"alias": "y", "module": "p.m"}]
    descriptor = parsed(root, tools, TOOL_RUNTIME={"x.f": "none", "y.g": "none"})
    assert from_json(descriptor.to_json()) == descriptor
    assert descriptor.name == root.name


NOT_OURS = "RUNTIME_GLOBALS_JSON is not an object with bundle, tools and runtime"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "7", '"x"', "{}", '{"bundle": 1, "tools": [], "runtime": {}}', "[" * 100_000]
)
def test_other_json_is_refused(text: str) -> None:
    """A text that `to_json` did not write is refused in one line."""
    with pytest.raises(InvalidRequest) as raised:
        from_json(text)
    assert str(raised.value) == NOT_OURS


@given(st.text() | _ANY)
def test_no_text_makes_from_json_raise_anything_else(value: object) -> None:
    """A namespace by way of JSON is a descriptor or InvalidRequest, whatever the text."""
    text = value if isinstance(value, str) else json.dumps(value, default=str, skipkeys=True)
    with contextlib.suppress(InvalidRequest):
        assert isinstance(from_json(text), Descriptor)


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[[str | bytes], Path]:
    """A bundle whose descriptor has this text, and an empty `a.py`."""

    def written(text: str | bytes) -> Path:
        (tmp_path / "a.py").write_text("")
        (tmp_path / DESCRIPTOR).write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path

    return written


def test_a_folder_or_its_file_may_be_named(bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both lead to the same descriptor, whose root is absolute; the file knows its own path."""
    folder = bundle("import pathlib\nTOOLS = [{'ref': pathlib.Path(__file__).parent.name and 'a.py', 'alias': 'x'}]\n")
    monkeypatch.chdir(folder)
    assert load_descriptor(folder) == load_descriptor(folder / DESCRIPTOR) == load_descriptor(".")
    assert load_descriptor(".").root == folder


FAILING = {
    "a syntax error": ("x = 1\nTOOLS = [\n", 2, "SyntaxError: '[' was never closed"),
    "an error": ("x = 1\n\n1 / 0\n", 3, "ZeroDivisionError: division by zero"),
    "an error further down": ("def f():\n    return [][0]\n\nTOOLS = f()\n", 2, "IndexError: list index out of range"),
    "an import": ("import no_such_module_here\n", 1, "ModuleNotFoundError: No module named 'no_such_module_here'"),
    "an exit": ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
    "recursion": ("def f(): f()\nf()\n", 1, "RecursionError: maximum recursion depth exceeded"),
}


@pytest.mark.parametrize("case", FAILING)
def test_a_descriptor_that_raises_is_refused_by_its_line(bundle, case: str) -> None:
    """The refusal names the file, the line in it, and what was raised."""
    text, line, said = FAILING[case]
    folder = bundle(text)
    with pytest.raises(InvalidRequest) as raised:
        load_descriptor(folder)
    assert str(raised.value).startswith(f"{folder / DESCRIPTOR}:{line}: {said}")
    assert raised.value.code == "invalid_bundle"


def test_bytes_that_are_no_python_are_refused(bundle) -> None:
    """NUL and bytes that are not UTF-8 are a refusal that names the file."""
    for text in (b"TOOLS = []\0", b"\xff\xfe"):
        folder = bundle(text)
        with pytest.raises(InvalidRequest, match=f"{folder / DESCRIPTOR}:1: "):
            load_descriptor(folder)


def test_a_folder_without_a_descriptor_is_no_bundle(tmp_path: Path) -> None:
    """The refusal says what is missing, and what a bundle is."""
    with pytest.raises(InvalidRequest) as raised:
        load_descriptor(tmp_path)
    expected = f"{tmp_path / DESCRIPTOR}: No such file or directory; a bundle is a folder with a tools_descriptor.py"
    assert str(raised.value) == expected


def test_names_of_the_file_do_not_leak_from_ours(bundle) -> None:
    """The file runs in a namespace of its own: nothing of this module is there for it to use by accident."""
    with pytest.raises(InvalidRequest, match="NameError: name 'RESERVED' is not defined"):
        load_descriptor(bundle("TOOLS = RESERVED\n"))
