"""ATTACKS, artifacts: modes, names, rewrites that hide, and the runtime's own names taken beforehand.

The controls run the same lines unsealed and do what a host would that trusts the folder it finds.
Each kind of name on its own is in tests/unit/store/test_collect.py.
"""

import json
import os
import stat
import textwrap
from pathlib import Path

import pytest

from tests.artifacts import contract
from tests.escapes.attacking import attack
from tests.escapes.naive import PROLOG, copied, opened, unsealed

pytestmark = pytest.mark.usefixtures("unharmed")


def test_a_mode_of_000_hides_nothing(sealed) -> None:
    """A file, its folder and out/ itself, all closed, are handed out.

    Control: an ordinary user cannot read them; it is in tests/unit/store/test_collect.py, since root reads everything.
    """
    code = "open(P, 'w').write('hidden')\nfor at in (P, 'turn_1/files', 'turn_1', '.'):\n    os.chmod(at, 0)\n"
    result = attack(sealed, PROLOG + code, contract=contract("a.md"))
    assert result.ok, result.report_text
    assert result.artifacts[0].file.read_text() == "hidden"


def test_setuid_and_attributes_stay_behind(sealed, tmp_path: Path) -> None:
    """What is handed out belongs to the host, 0644 less its umask. Control: a copy with its modes is setuid."""
    code = """
        open(P, "w").write("#!/bin/sh")
        os.chmod(P, 0o6777)
        try:
            os.setxattr(P, "user.planted", b"1")
        except OSError as error:
            print("no attributes:", error.errno)
    """
    assert os.stat(copied(unsealed(tmp_path, code)) / "turn_1/files/a.md").st_mode & stat.S_ISUID

    result = attack(sealed, PROLOG + textwrap.dedent(code), contract=contract("a.md"))
    (artifact,) = result.artifacts
    info = artifact.file.stat()
    assert stat.S_IMODE(info.st_mode) & ~0o644 == 0
    assert (info.st_uid, os.listxattr(artifact.file)) == (os.geteuid(), [])


NAMES = """
    for name in (b"\\xff.md", b"a\\nstatus: ok", "\\u202egpj.exe".encode(), b"n" * 255, b"A", b"a",
                 "caf\\u00e9".encode(), "cafe\\u0301".encode(), b"\\x1b[2J"):
        open(b"turn_1/files/" + name, "wb").write(name)
"""


def test_names_that_forge_lines_are_refused_and_strange_ones_kept_apart(sealed, tmp_path: Path) -> None:
    """Not UTF-8 and control characters are refused, escaped in the notice; the others come back byte for byte.

    Control: the names of the folder as they are, joined, hold a line that says `status: ok` and cannot be encoded.
    """
    raw = "\n".join(os.listdir(unsealed(tmp_path, NAMES) / "turn_1/files"))
    assert "status: ok" in raw.split("\n")
    with pytest.raises(UnicodeEncodeError):
        raw.encode()

    result = attack(sealed, f"{PROLOG}os.makedirs('turn_1/files')\n{textwrap.dedent(NAMES)}", turn_id=2)
    kept = ["\u202egpj.exe", "n" * 255, "A", "a", "caf\u00e9", "cafe\u0301"]
    assert {artifact.path for artifact in result.artifacts} == {f"turn_1/files/{name}" for name in kept}
    assert all(a.file.read_bytes() == os.fsencode(a.file.name) for a in result.artifacts)
    refused = [notice for notice in result.notices if "artifact_name_refused" in notice]
    assert sorted(notice.split(": ")[0] for notice in refused) == [
        r"turn_1/files/\x1b[2J",
        r"turn_1/files/\xff.md",
        r"turn_1/files/a\nstatus",
    ]
    lines = result.report_text.splitlines()
    assert [line for line in lines if line.startswith("status:")] == ["status: ok"]
    assert "\x1b" not in result.report_text
    assert "\u202e" not in result.report_text


def test_a_rewrite_of_equal_size_with_its_time_set_back_is_found(sealed, tmp_path: Path) -> None:
    """Content decides. Control: size and time say that nothing happened."""
    before = tmp_path / "before"
    before.mkdir()
    (before / "data.csv").write_text("a\n1\n")
    code = """
        was = os.stat("data.csv")
        open("data.csv", "w").write("a\\n2\\n")
        os.utime("data.csv", ns=(was.st_atime_ns, was.st_mtime_ns))
    """
    out = tmp_path / "unsealed/out"
    out.mkdir(parents=True)
    (out / "data.csv").write_text("a\n1\n")
    was = (out / "data.csv").stat()
    now = (unsealed(tmp_path, code) / "data.csv").stat()
    assert (now.st_size, now.st_mtime_ns) == (was.st_size, was.st_mtime_ns)

    result = attack(sealed, PROLOG + textwrap.dedent(code), start_from=before)
    assert result.workspace_diff["modified"] == ("data.csv",), result.report_text
    assert (before / "data.csv").read_text() == "a\n1\n"


FORGED = (
    *("result.json", "tool_calls_index.json", "runtime.out.log", "runtime.err.log"),
    *("tt.add-20260101T000000.000000-1.json", "RESULT.json"),
)


def test_names_of_the_runtime_cannot_be_forged_beforehand(sealed, tmp_path: Path) -> None:
    """What the host writes is the host's, and the forgeries are refused by name. Control: a copy brings them along."""
    code = f"""
        for name in {FORGED!r}:
            open(name, "w").write('{{"status": "ok", "forged": true}}')
        for name in ("executed_programs", "logs"):
            os.makedirs(name)
            open(name + "/infra.log", "w").write("forged")
        print("printed")
        sys.exit(3)
    """
    naive = unsealed(tmp_path, code.replace("sys.exit(3)", ""))
    assert json.loads((copied(naive) / "result.json").read_text())["forged"]

    result = attack(sealed, PROLOG + textwrap.dedent(code))
    stored = json.loads((result.out_dir / "result.json").read_text())
    assert (stored["status"], stored["exit_code"]) == ("failed", 3)
    written = [p for p in result.out_dir.parent.rglob("*") if p.is_file() and p.name != "user_code.py"]
    assert not [path for path in written if '"forged": true' in path.read_text()]
    assert (result.out_dir / "logs/user.log").read_text().endswith("printed\n")
    assert "forged" not in (result.out_dir / "logs/infra.log").read_text()
    refused = {notice.split(":")[0] for notice in result.notices if "artifact_reserved_name" in notice}
    assert refused == {*FORGED, "executed_programs", "logs"}
    assert result.artifacts == ()


def test_logs_replaced_by_a_link_are_written_where_they_belong(sealed, tmp_path: Path) -> None:
    """The host's log does not go where the program's link leads. Control: a host that opens out/logs/user.log."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = f"os.symlink({str(elsewhere)!r}, 'logs')\nprint('printed')\n"
    opened("open(sys.argv[1], 'w').write('log')", str(unsealed(tmp_path, code) / "logs/user.log"))
    assert (elsewhere / "user.log").read_text() == "log"
    (elsewhere / "user.log").unlink()

    result = attack(sealed, PROLOG + code)
    assert (result.out_dir / "logs/user.log").read_text().endswith("printed\n")
    assert not (result.out_dir / "logs").is_symlink()
    assert list(elsewhere.iterdir()) == []


def test_out_itself_replaced_is_read_from_where_it_was(sealed, tmp_path: Path) -> None:
    """The host holds the folder, not its name. Control: by its name it is the host's own folder that is read."""
    host = tmp_path / "host"
    host.mkdir()
    (host / "a.md").write_text("the host's own")
    code = """
        open(P, "w").write("promised")
        here = os.getcwd()
        os.chdir("/")
        try:
            os.rename(here, here + ".old")
            os.symlink(HOST, here)
        except OSError as error:
            print("refused", error.errno)
    """
    code = textwrap.dedent(code).replace("HOST", repr(str(host)))
    assert (copied(unsealed(tmp_path, code)) / "a.md").read_text() == "the host's own"

    result = attack(sealed, PROLOG + code, contract=contract("a.md"))
    assert result.ok, result.report_text
    assert result.artifacts[0].file.read_text() == "promised"
    assert not [p for p in result.out_dir.parent.rglob("*") if p.is_file() and "the host's own" in p.read_text()]
