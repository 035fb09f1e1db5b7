"""ATTACKS, artifacts: what a program leaves in its session to fool the next run, or the host between the two.

The controls run the same lines unsealed and hand on the folder as `shutil.copytree` does.
"""

import os
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from isorun import RunResult, SyncRuntime
from tests.escapes.attacking import attack
from tests.escapes.naive import PROLOG, SECRET, copied, texts_in, unsealed

pytestmark = pytest.mark.usefixtures("unharmed")
SEES = """
    import os, stat
    for at, folders, names in os.walk("."):
        for name in folders + names:
            path = os.path.join(at, name)
            mode = os.lstat(path).st_mode
            if not stat.S_ISDIR(mode):
                print(stat.filemode(mode), path, open(path).read() if stat.S_ISREG(mode) else "")
"""


class Own:
    """A session of one test."""

    def __init__(self, runtime: SyncRuntime) -> None:
        self.runtime, self.name = runtime, uuid.uuid4().hex
        self.session = runtime.session(self.name)

    def attacked(self, code: str) -> RunResult:
        """*code* as its run, beside a neighbour that has no session."""
        return attack(self.runtime, code, session=self.name)


@pytest.fixture
def own(sealed: SyncRuntime) -> Iterator[Own]:
    made = Own(sealed)
    yield made
    if made.session.files:
        made.session.remove()


PLANTED = {
    "file": "os.symlink({secret!r}, 'a')",
    "folder": "os.symlink(os.path.dirname({secret!r}), 'a')",
    "in two steps": "os.symlink('b', 'a'); os.symlink({secret!r}, 'b')",
    "upwards": "os.symlink('../' * 40 + {secret!r}.lstrip('/'), 'a')",
}


@pytest.mark.parametrize("case", PLANTED)
def test_a_link_hands_no_file_of_the_host_to_the_next_run(own: Own, secret: Path, tmp_path: Path, case: str) -> None:
    """The host resolves none while it carries files, and the next run has none to ask for."""
    code = PLANTED[case].format(secret=str(secret)) + "; open('kept', 'w').write('x')"
    assert SECRET in texts_in(copied(unsealed(tmp_path, code)))  # the control

    assert own.attacked(PROLOG + code).ok
    assert own.session.files == ("kept",)
    assert SECRET not in texts_in(own.session.path)
    assert own.attacked(textwrap.dedent(SEES)).stdout == "-rw-r--r-- ./kept x\n"


def test_a_file_that_becomes_a_link_takes_nothing_with_it(own: Own, secret: Path, tmp_path: Path) -> None:
    """A name that the session has as a file is a link in the next run: the old text does not come back, nor the new."""
    link = f"os.unlink('a'); os.symlink({str(secret)!r}, 'a')"
    assert SECRET in texts_in(copied(unsealed(tmp_path, f"open('a', 'w').write('mine'); {link}")))  # the control

    own.attacked(PROLOG + "open('a', 'w').write('mine'); open('b', 'w').write('x')")
    own.attacked(PROLOG + link)
    assert own.session.files == ("b",)


def test_special_files_hold_up_no_one(own: Own, tmp_path: Path) -> None:
    """A FIFO without a writer, a socket: the next run starts as if they had never been."""
    code = "os.mkfifo('fifo'); s = socket.socket(socket.AF_UNIX); s.bind('sock'); open('kept', 'w').write('x')"
    out = unsealed(tmp_path, code)
    assert {"fifo", "sock"} <= set(os.listdir(out))  # the control: that is what a folder handed on has
    with pytest.raises(BlockingIOError):
        os.read(os.open(out / "fifo", os.O_RDWR | os.O_NONBLOCK), 1)

    assert own.attacked(PROLOG + code).ok
    assert own.attacked(textwrap.dedent(SEES)).stdout == "-rw-r--r-- ./kept x\n"


NAMED = {
    "another session": "os.makedirs('../other', exist_ok=True); open('../other/a', 'w').write('x')",
    "a record": "open('result.json', 'w').write('{}'); os.makedirs('logs'); open('logs/user.log', 'w').write('x')",
    "an escape": "open('a\\x1b[2Jb', 'w').write('x')",
    "no text": "open(b'\\xff', 'w').write('x')",
    "too deep": "[(os.mkdir('d' * 200), os.chdir('d' * 200)) for _ in range(20)]; open('f', 'w').write('x')",
}


@pytest.mark.parametrize("case", NAMED)
def test_a_name_leads_nowhere_and_passes_for_nothing(own: Own, tmp_path: Path, case: str) -> None:
    """What is carried lies below the session's own folder, under names that anybody may print. Control: unsealed,
    each of them is left on the disk.
    """
    before = len(_all_of(tmp_path))
    unsealed(tmp_path, NAMED[case])
    assert len(_all_of(tmp_path)) > before  # the control

    own.attacked("open('kept', 'w').write('x')")  # the first of all sessions makes the folder around them
    around = own.session.path.parents[1]
    others = set(os.listdir(around)) - {own.name}
    own.attacked(PROLOG + NAMED[case])
    assert own.session.files == ("kept",)
    assert set(os.listdir(around)) - {own.name} == others
    assert set(os.listdir(own.session.path.parent)) == {"files"}


def _all_of(folder: Path) -> list[bytes]:
    return [name for _, folders, names in os.walk(os.fsencode(folder)) for name in (*folders, *names)]


FLOODS = {
    "files": "[open(f'{n}', 'w').close() for n in range(100_000)]",
    "bytes": "open('big', 'wb').write(bytes(1 << 30))",
    "sparse": "[os.truncate(os.open(f'{n}', os.O_CREAT | os.O_RDWR), 8 << 20) for n in range(100)]",
    "folders": "[os.makedirs(f'{n}/a') for n in range(100_000)]",
}


@pytest.mark.parametrize("case", FLOODS)
def test_a_flood_is_no_more_than_a_run_may_leave(own: Own, sealed: SyncRuntime, case: str) -> None:
    """The session has less than what the workspace of one run holds, and the next run can start from it."""
    for _ in range(2):
        own.attacked(PROLOG + f"try:\n    {FLOODS[case]}\nexcept OSError:\n    pass\nopen('0', 'w').close()")
        sizes = [(own.session.path / file).stat().st_size for file in own.session.files]
        assert sum(sizes) <= sealed.limits.workspace_bytes
        assert len(sizes) <= sealed.limits.workspace_inodes
    if case != "bytes":  # which stops at the size that one file may have
        assert own.session.files == ()
    assert own.attacked("import shutil; [os.unlink(e.path) for e in os.scandir() if e.is_file()]").ok


def test_a_program_cannot_reach_another_session(sealed: SyncRuntime, own: Own) -> None:
    """Its files lie in no place that a program can see, by whatever path the host has for them. Control: the host
    reads it there.
    """
    sealed.session("neighbour-of-all").execute(f"open('a', 'w').write({SECRET!r})")
    path = sealed.session("neighbour-of-all").path / "a"
    try:
        assert path.read_text() == SECRET  # the control
        code = f"""
            for path in ({str(path)!r}, "../../neighbour-of-all/files/a", "/proc/1/root" + {str(path)!r}):
                try:
                    print(open(path).read())
                except OSError as error:
                    print("refused")
        """
        assert own.attacked(textwrap.dedent(code)).stdout == "refused\n" * 3
    finally:
        sealed.session("neighbour-of-all").remove()
