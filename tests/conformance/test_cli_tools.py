"""`isorun tools ls|describe|stubs|call` and `isorun run --bundle --tools`, started as a user starts them."""

import ast
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bundles import write_bundle

pytestmark = pytest.mark.any_user

COMMAND = [sys.executable, "-m", "isorun.cli.main"]
Isorun = Callable[..., "subprocess.CompletedProcess[str]"]

TOOLS = '''
import os
@isorun.tool(timeout_s=2.5, max_calls=3)
def write(text: str, ctx: isorun.ToolContext, name: str = "notes/a", kind: str | None = None) -> str:
    """Write a note.

    Of any kind.

    Args:
        text: What it says.

    Returns:
        Its path.
    """
    print("writing \\x1b[2J", text)
    with ctx.open_output(name, "w") as file:
        file.write(text)
    return str(ctx.output_dir / name)
@isorun.tool
def names() -> list[str]:
    """The environment's names."""
    return sorted(os.environ)
@isorun.tool
def gives_bytes() -> list[bytes]:
    """Bytes."""
    return [b"\\xff" * 4]
@isorun.tool
def fails() -> None:
    """Fail."""
    print("before it failed")
    raise KeyError("s3cret")
'''


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(
        tmp_path / "bundle", notes=TOOLS, other='@isorun.tool\ndef f() -> int:\n    """F."""\n    return 7\n'
    )


@pytest.fixture
def isorun(tmp_path: Path) -> Isorun:
    """Run the command to its end, with none of this machine's settings."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("ISORUN_", "AWS_", "COLUMNS"))
    }
    (tmp_path / "tmp").mkdir()
    fixed = {"ISORUN_WORKSPACE_ROOT": str(tmp_path / "runs"), "TMPDIR": str(tmp_path / "tmp")}

    def run(*words: str | Path, stdin: str = "", **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*COMMAND, *map(str, words)],
            input=stdin,
            capture_output=True,
            text=True,
            env={**inherited, **fixed, **variables},
            cwd=tmp_path,
            timeout=50,
        )

    return run


def test_ls_shows_every_tool(isorun: Isorun, bundle: Path) -> None:
    """One line each: id, what it does, where it stands; --json gives all; the setting names a bundle too."""
    done = isorun("tools", "ls", "--bundle", bundle)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if "." in line]
    assert [line[0] for line in lines] == ["notes.write", "notes.names", "notes.gives_bytes", "notes.fails", "other.f"]
    assert lines[0][1:4] == ["Write", "a", "note."]
    assert lines[0][-1] == f"{bundle}/tools/notes.py:4"
    told = json.loads(isorun("tools", "ls", "--json", ISORUN_BUNDLE=str(bundle)).stdout)
    assert list(told) == [line[0] for line in lines]
    assert told["notes.write"]["parameters"]["required"] == ["text"]


def test_stubs_go_to_a_folder_or_to_stdout(isorun: Isorun, bundle: Path, tmp_path: Path) -> None:
    """A file for each alias, which Python can read; the same text where no folder is named."""
    done = isorun("tools", "stubs", "--bundle", bundle, "--out", tmp_path / "typings")
    assert done.returncode == 0, done.stderr
    made = {path.name: path.read_text() for path in (tmp_path / "typings").iterdir()}
    assert sorted(made) == ["notes.pyi", "other.pyi"]
    assert "write: _write" in made["notes.pyi"]
    assert "(self, *, text: str, name: str = 'notes/a', kind: str | None = None) -> str" in made["notes.pyi"]
    for text in made.values():
        ast.parse(text)
    printed = isorun("tools", "stubs", "--bundle", bundle).stdout
    assert all(text in printed for text in made.values())
    refused = isorun("tools", "stubs", "--bundle", bundle, "--out", tmp_path / "typings/notes.pyi")
    assert (refused.returncode, "cannot be used" in refused.stderr) == (2, True)


def test_describe_shows_one(isorun: Isorun, bundle: Path) -> None:
    """What it does, its parameters, its limits, what it returns; not the context."""
    done = isorun("tools", "describe", "notes.write", "--bundle", bundle)
    assert done.returncode == 0, done.stderr
    text = done.stdout
    assert text.startswith(f"notes.write  ({bundle}/tools/notes.py:4)\n")
    for said in (
        "await notes.write(*, text: str",
        "Write a note.",
        "Of any kind.",
        "What it says.",
        "2.5 s at most",
        "3 calls a run",
        "returns: Its path.",
    ):
        assert said in text
    rows = {
        line.split()[0]: line.split()[1:]
        for line in text.splitlines()
        if line.startswith(("text", "name", "kind", "ctx"))
    }
    assert rows["text"][:2] == ["string", "yes"]
    assert rows["name"][:2] == ["string", "no"]
    assert rows["kind"][:4] == ["string", "or", "null", "no"]
    assert "ctx" not in rows
    told = json.loads(isorun("tools", "describe", "notes.write", "--json", "--bundle", bundle).stdout)
    assert (told["timeout_s"], told["max_calls"], told["returns"]) == (2.5, 3, "Its path.")


def test_call_prints_the_result(isorun: Isorun, bundle: Path, tmp_path: Path) -> None:
    """JSON on stdout; what the tool printed and wrote on stderr, without its escape sequences; the files where told."""
    done = isorun(
        "tools", "call", "notes.write", "--json", '{"text": "hello"}', "--out", tmp_path / "o", "--bundle", bundle
    )
    assert (done.returncode, json.loads(done.stdout)) == (0, "/workspace/out/notes/a"), done.stderr
    assert (tmp_path / "o" / "notes" / "a").read_text() == "hello"
    assert "writing" in done.stderr
    assert "\x1b" not in done.stderr
    assert done.stderr.splitlines()[-1] == f"wrote {tmp_path}/o/notes/a"


def test_call_without_arguments_and_without_files(isorun: Isorun, bundle: Path, tmp_path: Path) -> None:
    """{} is the default, and a temporary folder that nothing was written to is not left."""
    done = isorun("tools", "call", "other.f", "--bundle", bundle)
    assert (done.returncode, done.stdout, done.stderr) == (0, "7\n", "")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_call_gets_the_supervisors_environment(isorun: Isorun, bundle: Path) -> None:
    """The allow-list holds here as in a run: what is not named is not there."""
    done = isorun(
        "tools", "call", "notes.names", "--bundle", bundle, ISORUN_TOOL_ENV="MINE", MINE="x", YOURS="y", AWS_REGION="eu"
    )
    names = json.loads(done.stdout)
    assert {"MINE", "AWS_REGION"} <= set(names)
    assert not {"YOURS", "ISORUN_TOOL_ENV", "ISORUN_WORKSPACE_ROOT"} & set(names)


def test_call_shows_bytes_by_their_size(isorun: Isorun, bundle: Path) -> None:
    """JSON has no bytes; the command does not fail for that."""
    done = isorun("tools", "call", "notes.gives_bytes", "--bundle", bundle)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout) == [{"bytes": 4, "sha256": hashlib.sha256(b"\xff" * 4).hexdigest()}]


def test_call_shows_why_a_tool_failed(isorun: Isorun, bundle: Path) -> None:
    """Its author reads what it printed and its traceback, before the error that a program would get."""
    done = isorun("tools", "call", "notes.fails", "--bundle", bundle)
    assert "before it failed" in done.stderr
    assert "KeyError: 's3cret'" in done.stderr
    assert done.stderr.splitlines()[-1] == "isorun: ToolFailed: the tool failed (call 1)"


BUNDLE = ("--bundle", "bundle")
NO_BUNDLE = "tools_descriptor.py: No such file or directory; a bundle is a folder with a tools_descriptor.py"
NO_TOOL = "isorun: the bundle has no tool notes.nope; it has notes.write, "
NO_GRANT = "the bundle has no tool 'notes.nope': it has notes.write, "
NOT_AN_OBJECT = "isorun: --json must be an object of arguments, got list"
REFUSALS = [
    (("tools", "ls", "--bundle", "nowhere"), 2, NO_BUNDLE),
    (("tools", "describe", "notes.nope", *BUNDLE), 2, NO_TOOL),
    (("tools", "call", "notes.nope", *BUNDLE), 2, NO_TOOL),
    (("tools", "call", "other.f", "--json", "{", *BUNDLE), 2, "isorun: --json is not JSON: "),
    (("tools", "call", "other.f", "--json", "[1]", *BUNDLE), 2, NOT_AN_OBJECT),
    (("tools", "call", "notes.write", *BUNDLE), 1, "isorun: ToolInputInvalid: notes.write: text: Field required"),
    (("tools", "call", "notes.fails", *BUNDLE), 1, "isorun: ToolFailed: the tool failed (call 1)"),
    (("run", "-", "--tools", "notes.nope", *BUNDLE), 2, NO_GRANT),
    (("run", "-", "--tools", "a.b"), 2, "the bundle has no tool 'a.b': no bundle is loaded; give bundle="),
    (("run", "-", "--bundle", "nowhere"), 2, "tools_descriptor.py: No such file or directory"),
]


@pytest.mark.parametrize(("words", "code", "text"), REFUSALS)
def test_what_is_wrong_is_said_in_a_line(
    isorun: Isorun, bundle: Path, words: tuple[str, ...], code: int, text: str
) -> None:
    """Exit 2 for what was asked wrongly, 1 for a tool that gave no result; stdout stays empty, no traceback."""
    done = isorun(*words, stdin="print('ran')")
    assert done.returncode == code, done.stderr
    if "--json" not in words:  # with it, what is wrong is on stdout too, as JSON
        assert done.stdout == ""
    assert text in done.stderr.splitlines()[-1]
    assert list((bundle.parent / "tmp").iterdir()) == []
    assert not any(line.startswith("Traceback") for line in done.stderr.splitlines())  # of ours
    assert "s3cret" not in done.stderr.splitlines()[-1]


def test_a_fault_in_a_bundle_names_file_line_and_tool(isorun: Isorun, tmp_path: Path) -> None:
    """For every command that loads it."""
    folder = write_bundle(tmp_path / "faulty", x='@isorun.tool\ndef f(a) -> int:\n    """F."""\n')
    for words in (("tools", "ls"), ("tools", "describe", "x.f"), ("tools", "call", "x.f"), ("run", "-")):
        done = isorun(*words, "--bundle", folder, stdin="pass")
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{folder}/tools/x.py:2: x.f: the parameter a has no type hint" in done.stderr


CALLS = """
for name in ("notes.names", "other.f"):
    try:
        print(name, agent_io_tools.tool_call_sync(tool_id=name) and "answered")
    except agent_io_tools.ToolDenied as error:
        print(name, error)
"""
DENIED = "no such tool for this run"
GRANTS = [
    ((), "notes.names answered\nother.f answered\n"),
    (("--tools", "other.f"), f"notes.names {DENIED}\nother.f answered\n"),
    (("--tools=notes.names, other.f",), "notes.names answered\nother.f answered\n"),
    (("--tools", ""), f"notes.names {DENIED}\nother.f {DENIED}\n"),
]


@pytest.mark.parametrize(("options", "output"), GRANTS)
def test_run_grants_what_is_asked(isorun: Isorun, bundle: Path, options: tuple[str, ...], output: str) -> None:
    """Without --tools all of the bundle, with it those, with an empty one none."""
    done = isorun("run", "-", "--bundle", bundle, *options, stdin=CALLS)
    assert (done.returncode, done.stdout) == (0, output), done.stderr


def test_run_without_a_bundle_has_no_tools(isorun: Isorun) -> None:
    """Every call is denied, and the run is as before."""
    done = isorun("run", "-", stdin=CALLS)
    assert (done.returncode, done.stdout) == (0, f"notes.names {DENIED}\nother.f {DENIED}\n"), done.stderr


def test_run_tells_the_calls_in_json(isorun: Isorun, bundle: Path) -> None:
    """The result's `tool_calls` name each, its status and its record, which is in out/."""
    done = isorun("run", "-", "--bundle", bundle, "--json", stdin=CALLS)
    calls = json.loads(done.stdout)["tool_calls"]
    assert [(call["tool_id"], call["status"]) for call in calls] == [("notes.names", "ok"), ("other.f", "ok")]
    folder = Path(json.loads(done.stdout)["out_dir"])
    assert all((folder / call["record"]).is_file() for call in calls)


WRITTEN = """
import docx, openpyxl, pptx, pypdf
from PIL import Image

text = "# Penguins\\n\\nOn the islands.\\n\\n|species|mass|\\n|-|-:|\\n|Adelie|3.7|\\n"
for form in ("pdf", "png", "docx", "pptx", "html"):
    await getattr(generic_tools, "write_" + form)(path="report." + form, content=text)
await generic_tools.write_xlsx(path="report.xlsx", columns=["species", "mass"], rows=[["Adelie", 3.7]])
await generic_tools.write_file(path="report.bin", content=bytes(range(256)))

print("Adelie" in pypdf.PdfReader(OUT / "report.pdf").pages[0].extract_text())
picture = Image.open(OUT / "report.png")
picture.load()
print(picture.format, len(set(picture.convert("L").getdata())) > 2)
print(docx.Document(OUT / "report.docx").tables[0].cell(1, 0).text)
print(pptx.Presentation(OUT / "report.pptx").slides[0].shapes.title.text)
print("<td>Adelie" in (OUT / "report.html").read_text())
print([[cell.value for cell in row] for row in openpyxl.load_workbook(OUT / "report.xlsx").active.rows])
print((OUT / "report.bin").read_bytes() == bytes(range(256)))
"""


def test_run_writes_seven_files_that_open_in_the_slot(isorun: Isorun, tmp_path: Path) -> None:
    """With nothing configured but the names of the tools; the usual libraries read each file in the program itself."""
    program, out = tmp_path / "report.py", tmp_path / "made"
    program.write_text(WRITTEN)
    names = ",".join(f"generic_tools.write_{form}" for form in ("pdf", "png", "docx", "pptx", "html", "xlsx", "file"))
    done = isorun("run", program, "--tools", names, "--out", out, "--timeout", "60")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = "[['species', 'mass'], ['Adelie', 3.7]]"
    assert done.stdout.splitlines()[:7] == ["True", "PNG True", "Adelie", "Penguins", "True", rows, "True"], done.stderr
    assert sorted(path.suffix for path in out.glob("report.*")) == sorted(
        (".pdf", ".png", ".docx", ".pptx", ".html", ".xlsx", ".bin")
    )
