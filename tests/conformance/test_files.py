"""B3: what is asked of every promised file, whatever it promises beside its name.

| promise | test |
|---|---|
| each way in which a file is not one has its code | test_what_is_no_file_has_its_code |
| a good file of each type that is opened passes | test_a_good_file_of_each_type_passes |
| a file that its suffix lies about fails, and the hint says why | test_a_file_that_is_not_of_its_type_is_invalid |
| a file of a type that is not in the table passes with any bytes | test_other_types_are_not_opened |
| the host never parses what a program wrote | test_the_host_loads_no_parser |
| what was there before and is unchanged passes, with a notice | test_a_file_that_was_there_before_is_noticed |
| a program may run on another Python, without our libraries | test_another_python_is_no_way_around_it |
"""

import json
import subprocess
import sys
import textwrap
import venv
from pathlib import Path

import pytest

from isorun.backends.environment import own_package
from isorun.core.contract.kinds import KINDS
from tests import artifacts as made
from tests.artifacts import HAND_OUT, contract, given

GOOD: dict[str, bytes] = {
    "a.csv": b"a,b\n1,2\n",
    "a.docx": made.docx("text"),
    "a.jpeg": made.jpeg(),
    "a.jpg": made.jpeg(),
    "a.json": b'{"a": [1, 2]}',
    "a.pdf": made.pdf(),
    "a.png": made.png(),
    "a.pptx": made.pptx("text"),
    "a.xlsx": made.xlsx({"Data": [["a"], [1]]}),
    "a.zip": made.zipped({"a": b"a"}),
}
LYING = {
    "a.csv": "is not UTF-8 text: byte 0x89 in line 1; write it as UTF-8",
    "a.docx": "is not a zip archive: File is not a zip file",
    "a.jpeg": "is not a JPEG that can be decoded: it begins as image/png does",
    "a.jpg": "is not a JPEG that can be decoded: it begins as image/png does",
    "a.json": "is not UTF-8 text: byte 0x89 in line 1; write it as UTF-8",
    "a.pdf": "is not a PDF: it does not begin with %PDF-",
    "a.png": "is not a PNG that can be decoded: ",
    "a.pptx": "is not a zip archive: File is not a zip file",
    "a.xlsx": "is not a zip archive: File is not a zip file",
    "a.zip": "is not a zip archive: File is not a zip file",
}
NO_FILES: dict[str, tuple[str, str, str]] = {
    "missing": ("pass", "missing_file", ""),
    "empty": ("open(P, 'w')", "empty_file", "out/turn_1/files/a.json has no bytes"),
    "link": ("os.symlink('/etc/passwd', P)", "artifact_symlink_blocked", "out/turn_1/files/a.json is a symbolic link"),
    "link above": (
        "os.rmdir('turn_1/files'); os.symlink('/etc', 'turn_1/files')",
        "artifact_symlink_blocked",
        "out/turn_1/files is a symbolic link",
    ),
    "FIFO": ("os.mkfifo(P)", "artifact_not_regular_file", "out/turn_1/files/a.json is a FIFO"),
    "directory": (
        "os.makedirs(P + '/x'); open(P + '/x/y', 'w').write('{}')",
        "artifact_not_regular_file",
        "out/turn_1/files/a.json is a directory",
    ),
}


@pytest.mark.parametrize("case", NO_FILES)
def test_what_is_no_file_has_its_code(run, kind: str, case: str) -> None:
    """Nothing of it is followed, opened or waited for, and the report names it. gVisor makes no FIFO on a mount."""
    code, word, hint = NO_FILES[case]
    if (kind, case) == ("gvisor", "FIFO"):
        word, hint = "missing_file", ""
    result = run(f"import os\nP = 'turn_1/files/a.json'\n{code}\n", contract=contract("a.json"))
    (entry,) = result.items
    assert (entry.codes, entry.hints) == ((word,), (hint,) if hint else ())
    assert (result.status, result.artifacts, result.succeeded) == ("contract_failed", (), ())


def test_a_good_file_of_each_type_passes(run, tmp_path: Path) -> None:
    """Ten files of ten types in one run: each is handed out as it was written."""
    result = run(HAND_OUT, contract=contract(*GOOD), inputs=given(tmp_path, GOOD))
    assert result.ok, result.report_text
    assert {a.path.rpartition("/")[2]: a.file.read_bytes() for a in result.artifacts} == GOOD


def test_a_file_that_is_not_of_its_type_is_invalid(run, tmp_path: Path) -> None:
    """The first bytes of a PNG and nothing more, under each suffix: every one is looked into and found out."""
    files = dict.fromkeys(LYING, b"\x89PNG\r\n\x1a\n rubbish")
    result = run(HAND_OUT, contract=contract(*files), inputs=given(tmp_path, files))
    assert (result.status, result.error.code) == ("contract_failed", "artifact_validation_failed")
    assert {entry.state for entry in result.items} == {"invalid"}
    assert {code for entry in result.items for code in entry.codes} == {"artifact_invalid"}
    for entry, (name, hint) in zip(result.items, LYING.items(), strict=True):
        assert entry.hints[0].startswith(f"turn_1/files/{name} {hint}")
        assert entry.hints[0] in result.report_text


def test_other_types_are_not_opened(run, tmp_path: Path) -> None:
    """Their names promise nothing that is checked, so any bytes will do."""
    files = dict.fromkeys(("a", "a.bin", "a.dat", "a.md.bak"), b"\x89PNG\r\n\x1a\n rubbish")
    assert run(HAND_OUT, contract=contract(*files), inputs=given(tmp_path, files)).ok


def test_no_type_that_is_promised_goes_unseen(run, tmp_path: Path) -> None:
    """Text with a NUL, under each suffix of the table: none passes, by whomever it is looked at."""
    files = {f"a{suffix}": b"hello, this is plain text\0" for suffix in KINDS}
    result = run(HAND_OUT, contract=contract(*files), inputs=given(tmp_path, files))
    assert {entry.path for entry in result.items if entry.state != "invalid"} == set()
    assert {code for entry in result.items for code in entry.codes} == {"artifact_invalid"}


def test_an_archive_that_leads_out_is_invalid(run, tmp_path: Path) -> None:
    """Made by the program with the standard library; whoever unpacks what was handed out is not harmed."""
    code = """
        import io, tarfile, zipfile
        here = Path("turn_1/files")
        with zipfile.ZipFile(here / "up.zip", "w") as a: a.writestr("../../evil.txt", "x")
        with zipfile.ZipFile(here / "empty.zip", "w"): pass
        with zipfile.ZipFile(here / "fine.zip", "w") as a: a.writestr("d/good.txt", "x")
        for name, mode in (("link.tar", "w"), ("link.tgz", "w:gz")):
            with tarfile.open(here / name, mode) as a:
                link = tarfile.TarInfo("passwd"); link.type = tarfile.SYMTYPE; link.linkname = "/etc/passwd"
                a.addfile(link)
    """
    result = run(textwrap.dedent(code), contract=contract("up.zip", "empty.zip", "link.tar", "link.tgz", "fine.zip"))
    hints = {entry.path.rpartition("/")[2]: " ".join(entry.hints).partition(" ")[2] for entry in result.items}
    assert hints == {
        "up.zip": "holds '../../evil.txt', which leads out of the folder it is unpacked in",
        "empty.zip": "holds no file",
        "link.tar": "holds 'passwd', a link; write the file itself",
        "link.tgz": "holds 'passwd', a link; write the file itself",
        "fine.zip": "",
    }


IN_HOST = """
import json, sys, isorun
from isorun.testing.fake import FakeBackend
from isorun.backends.namespace.backend import NamespaceBackend, Options
kind, root, *files = sys.argv[1:]
backend = FakeBackend() if kind == "fake" else NamespaceBackend(Options(use_cgroup=kind == "namespace-cgroup"))
contract = [{"filename": f.rpartition("/")[2], "description": "d", "min_bytes": 2} for f in files]
with isorun.SyncRuntime(backend=backend, settings=isorun.Settings(), workspace_root=root, pool_size=0) as rt:
    result = rt.execute(HAND_OUT, contract=contract, inputs=files)
parsers = {"pypdf", "PIL", "openpyxl", "jsonschema", "zipfile", "csv", "xml", "pyexpat"}
parsers.add("isorun.runtime.inspection.inspector")
print(json.dumps([result.ok, sorted(parsers & set(sys.modules))]))
"""


def test_the_host_loads_no_parser(kind: str, rt, tmp_path: Path) -> None:
    """After a run with a file of each type the host process has not even imported what reads them."""
    files = given(tmp_path, GOOD)
    script = f"import sys\nsys.path.insert(0, {str(own_package())!r})\nHAND_OUT = {HAND_OUT!r}\n{IN_HOST}"
    done = subprocess.run(
        [sys.executable, "-c", script, kind, str(tmp_path / "root"), *map(str, files)],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    ok, parsers = json.loads(done.stdout)
    assert (ok, parsers) == (True, [])


def test_a_file_that_was_there_before_is_noticed(run, tmp_path: Path) -> None:
    """It keeps the promise, and whoever reads the result knows that the run had no part in it."""
    folder = tmp_path / "out/turn_1/files"
    folder.mkdir(parents=True)
    for name in ("kept.csv", "changed.csv"):
        (folder / name).write_text("a\n1\n")
    result = run(
        "Path('turn_1/files/changed.csv').write_text('a\\n2\\n'); Path('turn_1/files/new.csv').write_text('a\\n1\\n')",
        contract=contract("kept.csv", "changed.csv", "new.csv"),
        start_from=tmp_path / "out",
    )
    assert result.ok, result.report_text
    assert result.notices == ("turn_1/files/kept.csv was in out/ before the run and was not changed",)


def test_another_python_is_no_way_around_it(embedded: str, own, tmp_path: Path) -> None:
    """That Python has none of the libraries; the inspector runs on isorun's own, which has."""
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    python = str(tmp_path / "bare/bin/python")
    with own(backend_options={"python": python}) as other:
        bare = other.execute("import openpyxl", timeout_s=10)
        assert "No module named 'openpyxl'" in bare.stderr
        files = given(tmp_path, {"a.xlsx": GOOD["a.xlsx"], "b.xlsx": b"PK"})
        result = other.execute(HAND_OUT, contract=contract("a.xlsx", "b.xlsx"), inputs=files, timeout_s=10)
    assert [entry.state for entry in result.items] == ["ok", "invalid"], result.report_text
