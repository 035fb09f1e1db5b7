"""ATTACKS, artifacts: links, special files, and files that change while they are read.

Nothing of the host is mounted into a slot, so what a link could lead to is seen only by whoever resolves it on the
host. The controls run the same lines unsealed and copy the folder as `shutil.copytree` does.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import textwrap
from pathlib import Path

import pytest

from tests.artifacts import contract
from tests.escapes.attacking import attack
from tests.escapes.naive import PROLOG, SECRET, copied, opened, texts_in, unsealed

pytestmark = pytest.mark.usefixtures("unharmed")


LINKS = {
    "absolute": "os.symlink({secret!r}, P)",
    "relative": "os.symlink('../' * 40 + {secret!r}.lstrip('/'), P)",
    "folder": "os.rmdir('turn_1/files'); os.symlink(os.path.dirname({secret!r}), 'turn_1/files')",
    "in two steps": "os.symlink('b', P); os.symlink({secret!r}, 'turn_1/files/b')",
}


@pytest.mark.parametrize("case", LINKS)
def test_a_link_to_a_file_of_the_host_hands_nothing_out(sealed, secret: Path, tmp_path: Path, case: str) -> None:
    """The promise is invalid by its own code, and no byte of the host's file is anywhere in the run's folder."""
    code = LINKS[case].format(secret=str(secret))
    assert SECRET in texts_in(copied(unsealed(tmp_path, code)))  # the control

    result = attack(sealed, PROLOG + code, contract=contract("a.md"))
    (item,) = result.items
    assert (result.status, item.codes) == ("contract_failed", ("artifact_symlink_blocked",)), result.report_text
    assert item.hints == (f"out/{'turn_1/files' if case == 'folder' else item.path} is a symbolic link",)
    assert result.artifacts == ()
    assert SECRET not in texts_in(result.out_dir.parent)
    assert secret.read_text() == SECRET


@pytest.mark.parametrize("code", ["os.symlink('nowhere', P)", "os.symlink('a.md', P)"], ids=["dangling", "looping"])
def test_a_link_that_leads_nowhere_is_refused_like_any_other(sealed, tmp_path: Path, code: str) -> None:
    """The rest of the run is handed out. Control: the naive copy fails as a whole."""
    code += "; open('turn_1/files/b.md', 'w').write('fine')"
    with pytest.raises(shutil.Error):
        copied(unsealed(tmp_path, code))

    result = attack(sealed, PROLOG + code, contract=contract("a.md", "b.md"))
    assert [item.codes for item in result.items] == [("artifact_symlink_blocked",), ()]
    assert [artifact.path for artifact in result.artifacts] == ["turn_1/files/b.md"]


def test_a_hard_link_to_a_file_outside_cannot_be_made(sealed, secret: Path, tmp_path: Path) -> None:
    """The workspace is a file system of its own. Control: in a shared one the link is the host's file itself."""
    out = unsealed(tmp_path, f"os.link({str(secret)!r}, P)")
    (out / "turn_1/files/a.md").write_text("overwritten")
    assert secret.read_text() == "overwritten"

    code = """
        for name in ("/etc/passwd", "/workspace/work/user_code.py", sys.executable, "/proc/self/exe"):
            try:
                os.link(name, P)
            except OSError as error:
                print(error.errno)
            else:
                os.unlink(P) if name.startswith("/workspace") else print("linked", name)
    """
    result = attack(sealed, PROLOG + textwrap.dedent(code), contract=contract("a.md"))
    assert "linked" not in result.stdout, result.stdout
    assert result.stdout.count("\n") >= 3
    assert result.items[0].codes == ("missing_file",)


def test_a_fifo_under_a_promised_name_does_not_block_the_reader(sealed, kernel, tmp_path: Path) -> None:
    """Control: whoever opens it to read waits for a writer that never comes. gVisor keeps it to itself."""
    out = unsealed(tmp_path, "os.mkfifo(P)")
    with pytest.raises(subprocess.TimeoutExpired):
        opened("open(sys.argv[1]).read()", str(out / "turn_1/files/a.md"), seconds=1.0)

    result = attack(sealed, PROLOG + "os.mkfifo(P)", contract=contract("a.md"))
    (item,) = result.items
    found = ("artifact_not_regular_file",), (f"out/{item.path} is a FIFO",)
    assert (item.codes, item.hints) == {"linux": found, "gvisor": (("missing_file",), ())}[kernel]
    assert result.timings["total_s"] < 10


def test_a_socket_under_a_promised_name_is_not_opened(sealed, kernel, tmp_path: Path) -> None:
    """Control: the naive copy fails on it as a whole. gVisor keeps it to itself."""
    code = "s = socket.socket(socket.AF_UNIX); s.bind(P)"
    with pytest.raises(shutil.Error, match="No such device or address"):
        copied(unsealed(tmp_path, code))

    result = attack(sealed, PROLOG + code, contract=contract("a.md"))
    (item,) = result.items
    found = ("artifact_not_regular_file",), (f"out/{item.path} is a socket",)
    assert (item.codes, item.hints) == {"linux": found, "gvisor": (("missing_file",), ())}[kernel]


@pytest.mark.root
def test_a_device_under_a_promised_name_cannot_be_made(sealed, tmp_path: Path, require) -> None:
    """Control, as root: /dev/zero by another name, of which a reader never sees the end."""
    code = "import stat\nos.mknod(P, stat.S_IFCHR | 0o666, os.makedev(1, 5))"
    try:
        out = unsealed(tmp_path, code)
    except subprocess.CalledProcessError:
        require("root", "root here may not make devices")
    endless = "open(sys.argv[2], 'wb').writelines(iter(lambda f=open(sys.argv[1], 'rb'): f.read(1 << 20), b''))"
    said = opened(endless, str(out / "turn_1/files/a.md"), str(tmp_path / "copy"), file_bytes=64 << 20)
    assert (tmp_path / "copy").stat().st_size == 64 << 20, said
    (tmp_path / "copy").unlink()

    result = attack(sealed, PROLOG + code, contract=contract("a.md"))
    assert (result.status, result.items[0].codes) == ("failed", ("missing_file",))
    assert "PermissionError" in result.stderr


CHANGING = """
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in range(10 ** 9):
                with open(P + ".new", "w") as file:
                    file.write(str(number) * ({sizes}))
                os.rename(P + ".new", P)
        else:
            os._exit(0)
    else:
        while not os.path.exists(P):
            time.sleep(0.001)
"""


@pytest.mark.parametrize("sizes", ["1 + number % 4096", "4096 - number % 4096"], ids=["grows", "shrinks"])
def test_a_file_that_is_replaced_without_end_is_read_when_nobody_can_write(sealed, tmp_path: Path, sizes: str) -> None:
    """What is handed out is one version, whole, and stays it. Control: without the seal it goes on changing."""
    code = CHANGING.format(sizes=sizes)
    naive = f"{textwrap.dedent(code)}\n"
    naive = naive.replace(
        "for number in range(10 ** 9):",
        "open('pid', 'w').write(str(os.getpid()))\n        for number in range(10 ** 9):",
        1,
    )
    out = unsealed(tmp_path, naive)
    try:
        first = (out / "turn_1/files/a.md").stat().st_ino
        while (out / "turn_1/files/a.md").stat().st_ino == first:
            pass  # ends only if it is replaced: the program itself has ended
    finally:
        os.kill(int((out / "pid").read_text()), signal.SIGKILL)

    result = attack(sealed, PROLOG + textwrap.dedent(code), contract=contract("a.md"))
    (item,) = result.items
    (artifact,) = result.artifacts
    assert (result.status, item.state) == ("ok", "ok"), result.report_text
    data = artifact.file.read_bytes()
    assert (len(data), artifact.sha256) == (item.bytes, hashlib.sha256(data).hexdigest())
    number = data.decode()
    assert any(number == str(n) * (len(number) // len(str(n))) for n in {int(number[:k]) for k in range(1, 9)})
