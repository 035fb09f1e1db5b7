"""What a run was given as a way out: inputs and links to them, a promise without a folder, /mnt/data, variables."""

import os
from pathlib import Path

import pytest

from tests.escapes.probing import inside

pytestmark = pytest.mark.usefixtures("unharmed")

SECRET = "the host's own\n"
PROMISED = [{"filename": "a.txt", "description": "d"}]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the host's that the program's owner may read and no program."""
    file = tmp_path / "secret.txt"
    file.write_text(SECRET)
    return file


@pytest.mark.parametrize("place", ["a.txt", "data", "data/a.txt"])
def test_an_input_turned_into_a_link_is_not_followed(sealed, tmp_path, secret, place) -> None:
    """In the place of an input, or of a folder on the way to one, the host finds a link and hands nothing out."""
    (tmp_path / "a.txt").write_text("given")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("given")
    code = f"""
import shutil
shutil.rmtree({place!r}) if os.path.isdir({place!r}) else os.remove({place!r})
os.symlink({str(secret.parent if place == "data" else secret)!r}, {place!r})
"""
    result = sealed.execute(code, inputs=[tmp_path / "a.txt", tmp_path / "data"], timeout_s=10)
    assert result.status == "ok", result.report_text
    assert result.artifacts == ()
    assert [name for name in result.out_dir.rglob("*") if name.is_symlink()] == []
    assert SECRET not in "".join(p.read_text() for p in result.out_dir.rglob("*.txt"))
    assert secret.read_text() == SECRET


OWN = "open('a.txt', 'w').write('mine')\n"
MOVES = {
    "a link": "os.symlink({secret!r}, 'a.txt')",
    "a FIFO": "os.mkfifo('a.txt')",
    "a folder": "os.mkdir('a.txt')",
    "a link for the turn": OWN + "os.symlink({folder!r}, 'turn_9')",
    "a link for files": OWN + "os.mkdir('turn_9'); os.symlink({folder!r}, 'turn_9/files')",
    "a link in its place": OWN + "os.makedirs('turn_9/files'); os.symlink({secret!r}, 'turn_9/files/a.txt')",
    "a folder in its place": OWN + "os.makedirs('turn_9/files/a.txt/b')",
    "a file for the turn": OWN + "open('turn_9', 'w').close()",
}


@pytest.mark.parametrize("act", MOVES.values(), ids=MOVES)
def test_a_promise_that_is_moved_leads_nowhere(sealed, tmp_path, secret, act) -> None:
    """The host moves its own copy, below its own folder: nothing of the host is read, replaced or written."""
    before = sorted(os.listdir(tmp_path))
    made = "import shutil\nshutil.rmtree('turn_9')\n" + act.format(secret=str(secret), folder=str(tmp_path))
    result = sealed.execute(made, contract=PROMISED, turn_id=9, timeout_s=10)
    assert result.status in ("ok", "contract_failed"), result.report_text
    assert sorted(os.listdir(tmp_path)) == before
    assert secret.read_text() == SECRET
    assert [artifact.file.read_text() for artifact in result.artifacts] in ([], ["mine"])
    assert [name for name in result.out_dir.rglob("*") if name.is_symlink()] == []


MODELS = """
def replaced():
    os.unlink("/mnt/data")
def beside():
    open("/mnt/other", "w").close()
answer = [attempt(replaced), attempt(beside), os.path.realpath("/mnt/data"), os.listdir("/mnt")]
"""


@pytest.mark.embedded
def test_the_other_name_of_out_is_the_jails_alone(sealed, without) -> None:
    """/mnt/data can be neither replaced nor moved, and nothing made beside it; both can where the root is writable."""
    assert inside(sealed, MODELS) == ["EROFS", "EROFS", "/workspace/out", ["data"]]
    assert inside(without("read_only", "landlock"), MODELS)[:2] == ["ok", "ok"]


HOSTILE = {
    "LD_PRELOAD": "/workspace/out/evil.so",
    "PYTHONSTARTUP": "/workspace/out/evil.py",
    "PYTHONPATH": "/workspace/out",
    "PYTHONHOME": "/nowhere",
    "PATH": "/workspace/out",
    "HOME": "/root",
    "TMPDIR": "/etc",
}


def test_variables_are_the_programs_alone(sealed) -> None:
    """They change neither the walls nor the loader, and the next run of the same zygote does not have them."""
    code = "answer = {name: os.environ.get(name) for name in " + repr(sorted(HOSTILE)) + "}"
    plain = inside(sealed, code)
    assert inside(sealed, code, env=HOSTILE) == HOSTILE
    assert inside(sealed, code) == plain
    assert not set(HOSTILE.values()) & set(plain.values())
