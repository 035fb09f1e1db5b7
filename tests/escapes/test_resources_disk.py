"""Resources: the workspace. Bytes, files and folders, and what the host keeps of them."""

import os
import subprocess
import sys

import pytest

from tests.escapes.attacking import attack, disk_bytes, ended
from tests.escapes.conftest import ROOMY

pytestmark = [pytest.mark.usefixtures("unharmed"), pytest.mark.alone]

MIB = 1 << 20
TOO_LARGE = ("limit_exceeded", "file_size_limit", "a file exceeded the limit of 8 MiB")
NO_SPACE = ("limit_exceeded", "workspace_limit", "no space left in /workspace (32 MiB)")
TOO_MANY = ("limit_exceeded", "inode_limit", "exceeded its limit of 500 files and folders")
SPARE = MIB  # logs, result.json and the program itself


ONE = """
with open("one", "wb", buffering=0) as file:
    for _ in range({most}): file.write(bytes(1 << 20))
print(file.name)
"""


def test_one_file_ends_at_its_limit(sealed, without) -> None:
    """A file that grows without end stops at the limit of one file, and what was written is kept."""
    result = attack(sealed, ONE.format(most=10_000))
    assert (ended(result), result.error.hint) == (TOO_LARGE, "use less, or raise ISORUN_MAX_FILE_BYTES")
    assert [(a.path, a.bytes) for a in result.artifacts] == [("one", 8 * MIB)]
    # Control: with room for it, 12 MiB are written.
    assert without(limits=ROOMY).execute(ONE.format(most=12)).artifacts[0].bytes == 12 * MIB


MANY = """
for number in range({most}):
    with open(str(number), "wb") as file: file.write(bytes(1 << 20))
"""


def test_many_files_end_at_the_size_of_the_workspace(sealed, without) -> None:
    """Files that are each small enough fill the workspace and no more; the host keeps no more either."""
    result = attack(sealed, MANY.format(most=10_000))
    assert (ended(result), result.error.hint) == (NO_SPACE, "write less, or raise ISORUN_MAX_WORKSPACE_BYTES")
    assert 30 * MIB < sum(a.bytes for a in result.artifacts) <= 32 * MIB
    assert disk_bytes(result) <= 32 * MIB + SPARE
    # Control: with room for them, 40 MiB are written.
    assert len(without(limits=ROOMY).execute(MANY.format(most=40)).artifacts) == 40


EMPTY = "for number in range({most}): open(str(number), 'w').close()"


def test_a_million_empty_files_end_at_the_inode_limit(sealed, without) -> None:
    """Files without a byte are counted."""
    result = attack(sealed, EMPTY.format(most=1_000_000), timeout_s=9)
    assert (ended(result), result.error.hint) == (TOO_MANY, "use less, or raise ISORUN_MAX_WORKSPACE_INODES")
    assert 490 <= len(result.artifacts) <= 500
    # Control: with room for them, 600 are made.
    assert without(limits=ROOMY).execute(f"{EMPTY.format(most=600)}\nprint(number)").stdout == "599\n"


@pytest.mark.parametrize(
    "call", ["os.ftruncate(file, {})", "os.pwrite(file, b'x', {})", "os.posix_fallocate(file, 0, {})"]
)
def test_a_sparse_file_of_a_pebibyte_cannot_be_made(sealed, call) -> None:
    """A file's length has a limit, whatever it holds."""
    code = "import os\nfile = os.open('sparse', os.O_CREAT | os.O_WRONLY)\n"
    result = attack(sealed, code + call.format(1 << 50))
    assert ended(result) == TOO_LARGE
    assert disk_bytes(result) <= SPARE
    # Control: one of 4 MiB can.
    assert sealed.execute(code + call.format(4 << 20)).artifacts[0].bytes >= 4 * MIB


def test_sparse_files_do_not_multiply_on_the_host(sealed) -> None:
    """Fifty files of 8 MiB of nothing are collected up to the size of the workspace; the others are named."""
    code = "import os\nfor n in range(50): os.truncate(os.open(str(n), os.O_CREAT | os.O_WRONLY), 8 << 20)"
    result = attack(sealed, code)
    assert (result.status, len(result.artifacts)) == ("ok", 4)
    assert sum("artifact_too_large" in notice for notice in result.notices) == 20  # the rest is counted
    assert any("26 more" in notice for notice in result.notices)
    assert disk_bytes(result) <= 32 * MIB + SPARE
    # Control: the four that fit were collected.


LINKS = """
import os
with open("a", "wb") as file: file.write(bytes(4 << 20))
for n in range({most}): os.link("a", f"a{{n}}")
"""


def test_links_to_one_file_do_not_multiply_on_the_host(sealed) -> None:
    """A hundred names of one file are at most a workspace full of copies."""
    result = attack(sealed, LINKS.format(most=100))
    assert result.status == "ok"
    assert disk_bytes(result) <= 32 * MIB + SPARE
    # Control: two names of it are two files for whoever gets them.
    assert len(sealed.execute(LINKS.format(most=1)).artifacts) == 2


NESTED = """
import os
for depth in range({most}):
    os.mkdir("d")
    os.chdir("d")
    {also}
open("bottom", "w").write("deep")
"""


def test_a_thousand_nested_folders_end_at_the_inode_limit(sealed) -> None:
    """Folders are counted, and a deep tree that fits is walked without harm, files at its bottom included."""
    result = attack(sealed, NESTED.format(most=1000, also=""))
    assert ended(result) == TOO_MANY
    # Control: a hundred, with a file at the bottom that comes back.
    shallow = sealed.execute(NESTED.format(most=100, also=""))
    assert [a.path for a in shallow.artifacts] == ["d/" * 100 + "bottom"]


def test_a_path_longer_than_the_host_takes_is_refused_and_said(sealed, without) -> None:
    """1,000 nested folders that the limits allow: the run is ok, and the file out of reach is named."""
    result = attack(without(limits=ROOMY), NESTED.format(most=1000, also=""))
    assert (result.status, result.artifacts) == ("ok", ())
    assert len(result.notices) == 1
    assert "d/d/d" in result.notices[0]
    # Control: that of the test above, a hundred deep.


def test_a_hundred_thousand_entries_in_out_end_at_the_inode_limit(sealed, kernel) -> None:
    """Names of one file are counted like files, and so are folders and links. gVisor keeps a FIFO to itself."""
    of_the_host = ["os.link('a', str(n))", "os.symlink('a', str(n))", "os.mkdir(str(n))"]
    for entry in of_the_host + {"linux": ["os.mkfifo(str(n))"], "gvisor": []}[kernel]:
        code = f"import os\nopen('a', 'w').write('1')\nfor n in range(100_000): {entry}"
        assert ended(sealed.execute(code, timeout_s=9)) == TOO_MANY
    # Control: a hundred are made.
    assert sealed.execute("for n in range(100): open(str(n), 'w').write('1')").ok


def test_what_the_program_deletes_is_free_again(sealed) -> None:
    """A program that cleans up after ENOSPC goes on; a full disk is an error and not an end."""
    code = f"""
import os
try:
    exec({MANY.format(most=10_000)!r})
except OSError as error:
    print(error.strerror)
for name in os.listdir("."):
    if name.isdigit(): os.unlink(name)
open("after", "w").write("ok")
"""
    result = attack(sealed, code)
    assert (result.status, result.stdout) == ("ok", "No space left on device\n")
    assert [a.path for a in result.artifacts] == ["after"]
    # Control: without its clean-up it could not have written that file: `test_many_files…` above.


def test_no_core_is_dumped(sealed, tmp_path) -> None:
    """A crash leaves no core file, and the limit that says so cannot be raised."""
    code = """
import os, resource
print(resource.getrlimit(resource.RLIMIT_CORE))
try: resource.setrlimit(resource.RLIMIT_CORE, (1 << 30, 1 << 30))
except ValueError: pass
print(resource.getrlimit(resource.RLIMIT_CORE))
os.abort()
"""
    result = attack(sealed, code)
    assert ended(result) == ("killed", "signal", "ended by signal 6 (SIGABRT)")
    assert result.stdout == "(1, 1)\n(1, 1)\n"
    assert result.artifacts == ()
    # Control: a plain process under the same limit may lower it only; under its own it may set what it has.
    own = "import resource as r; r.setrlimit(r.RLIMIT_CORE, r.getrlimit(r.RLIMIT_CORE)); print('set')"
    assert subprocess.run([sys.executable, "-c", own], capture_output=True, check=True).stdout == b"set\n"
    assert os.listdir(tmp_path) == []
