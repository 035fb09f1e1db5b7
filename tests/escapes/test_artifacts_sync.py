"""Artifacts: a sync that would write outside the user's workspace, and user ids that would lead there.

The sync is host code that handles what a program left. Each attack plants what a
program, or a tool that was tricked, could have left in a sandbox or a workspace; its
control does the same with a naive copy or a naive path, and gets out.
"""

import asyncio
import os
import shutil
import textwrap
from pathlib import Path

import pytest

from isorun import InvalidRequest
from isorun.tools import exec_tools
from isorun.tools.workspace import STATE, Workspaces

SECRET = "of the host\n"


@pytest.fixture
def spaces(tmp_path: Path) -> Workspaces:
    return Workspaces(tmp_path / "workspace", tmp_path / "sandbox")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of the host that no workspace may reach, with a file in it."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.txt").write_text(SECRET)
    return folder


def untouched(outside: Path) -> bool:
    return os.listdir(outside) == ["secret.txt"] and (outside / "secret.txt").read_text() == SECRET


def naive_copy(source: Path, target: Path) -> None:
    """What a sync is for somebody who thinks of files: through whatever links there are."""
    for at, folders, names in os.walk(source, followlinks=True):
        inner = target / Path(at).relative_to(source)
        inner.mkdir(exist_ok=True, parents=True)
        for name in names:
            shutil.copyfile(Path(at, name), inner / name)
        del folders


async def test_links_in_the_sandbox_bring_nothing_in(spaces, outside) -> None:
    """Links to a host file and folder, relative, absolute, dangling, looping, are left out and named."""
    async with spaces.open("alice") as space:
        (space.out / "good.txt").write_text("good")
        os.symlink(outside / "secret.txt", space.out / "file")
        os.symlink(outside, space.out / "folder")
        os.symlink("../../../outside/secret.txt", space.out / "relative")
        os.symlink("nowhere", space.out / "dangling")
        os.symlink("loop", space.out / "loop")
        os.mkfifo(space.out / "fifo")
        synced = await space.sync()
        assert files_and_links(space.workspace) == ["out/good.txt"]
    assert {refusal.path for refusal in synced.refused} == {"file", "folder", "relative", "dangling", "loop", "fifo"}
    assert untouched(outside)


def test_control_a_naive_copy_takes_the_hosts_files_in(spaces, outside, tmp_path) -> None:
    """The same links, copied by a walk, are the host's secret in the workspace."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    os.symlink(outside / "secret.txt", source / "file")
    os.symlink(outside, source / "folder")
    naive_copy(source, target)
    assert (target / "file").read_text() == (target / "folder/secret.txt").read_text() == SECRET


@pytest.mark.parametrize("where", ["out/files", "out/files/deep"])
async def test_a_link_in_the_workspace_is_not_written_through(spaces, outside, where) -> None:
    """A folder of the workspace that is a link to a host folder: the next sync replaces the link, not what it names."""
    async with spaces.open("alice"):
        pass
    planted = spaces.workspace_root / "alice" / where
    planted.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(outside, planted)
    async with spaces.open("alice") as space:
        assert [refusal.path for refusal in space.refused] == [where.removeprefix("out/")]
        (space.sandbox / where).mkdir(parents=True)
        (space.sandbox / where / "secret.txt").write_text("overwritten")
        await space.sync()
        assert (space.workspace / where / "secret.txt").read_text() == "overwritten"
        assert not planted.is_symlink()
    assert untouched(outside)


def test_control_a_naive_copy_writes_through_the_link(outside, tmp_path) -> None:
    """The same link, and a copy onto the workspace: the host's file is overwritten."""
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "files").mkdir(parents=True)
    (source / "files/secret.txt").write_text("overwritten")
    target.mkdir()
    os.symlink(outside, target / "files")
    naive_copy(source, target)
    assert not untouched(outside)


@pytest.mark.parametrize("name", ["alice", "alice/out", "alice/work"])
async def test_a_link_in_place_of_a_workspace_folder_is_refused(spaces, outside, name) -> None:
    """A user's folder, its out/ or its work/ as a link to a host folder: nothing is read, written or run."""
    async with spaces.open("alice"):
        pass
    place = spaces.workspace_root / name
    shutil.rmtree(place)
    os.symlink(outside, place)
    with pytest.raises(InvalidRequest, match="must be a folder and is a link or a file") as caught:
        async with spaces.open("alice"):
            pass
    assert caught.value.code == "workspace_not_a_folder"
    assert untouched(outside)
    assert "secret.txt" not in "".join(files_and_links(spaces.sandbox_root))


async def test_a_link_in_place_of_the_sandbox_is_removed_itself(spaces, outside) -> None:
    """The sandbox is emptied before a run; a link there must not empty the folder it names."""
    async with spaces.open("alice"):
        pass
    shutil.rmtree(spaces.sandbox_root / "alice")
    os.symlink(outside, spaces.sandbox_root / "alice")
    async with spaces.open("alice") as space:
        (space.out / "x").write_text("x")
        await space.sync()
    assert untouched(outside)


@pytest.mark.parametrize("name", ["new", "probe-a"])
async def test_a_link_in_place_of_a_leftover_is_removed_itself(spaces, outside, name) -> None:
    """What a killed sync left is removed; a link in its place must not remove the folder it names."""
    async with spaces.open("alice"):
        pass
    os.symlink(outside, spaces.workspace_root / STATE / "alice" / name)
    async with spaces.open("alice") as space:
        await space.sync()
    assert untouched(outside)


async def test_out_replaced_during_a_run_is_not_followed(spaces, outside) -> None:
    """The sandbox's out/, or the workspace's, turned into a link during a run: nothing is written there."""
    async with spaces.open("alice") as space:
        shutil.rmtree(space.out)
        os.symlink(outside, space.out)
        with pytest.raises(Exception, match="sync: "):
            await space.sync()
    async with spaces.open("alice") as space:
        (space.out / "x").write_text("x")
        shutil.rmtree(space.workspace / "out")
        os.symlink(outside, space.workspace / "out")
        await space.sync()
        assert files_and_links(space.workspace) == ["out/x"]
    assert untouched(outside)


@pytest.mark.parametrize(
    "user_id", ["..", ".", "", "../outside", "a/../../outside", "/tmp", "a/b", "a\0b", ".isorun", "u" * 129]
)
async def test_a_user_id_that_leads_elsewhere_is_refused(spaces, outside, tmp_path, user_id) -> None:
    """Before anything is made or opened, with its own code."""
    with pytest.raises(InvalidRequest) as caught:
        async with spaces.open(user_id):
            pass
    assert caught.value.code == "invalid_user_id"
    assert os.listdir(tmp_path) == ["outside"]
    assert untouched(outside)


def test_control_a_naive_path_leads_out(spaces, outside, tmp_path) -> None:
    """The same ids, joined to a root, are the host's folders."""
    root = tmp_path / "workspace"
    root.mkdir()
    assert (root / "../outside").samefile(outside)
    assert (root / "..").samefile(tmp_path)
    assert (root / "").samefile(root)
    assert root / "/tmp" == Path("/tmp")


async def test_outdir_and_workdir_are_not_written_through(sealed, outside, tmp_path) -> None:
    """Links planted in the folders of `run_exec_tool` are refused before the run, or replaced themselves after it."""
    work, out = tmp_path / "work", tmp_path / "out"
    work.mkdir()
    out.mkdir()
    os.symlink(outside / "secret.txt", work / "user_code.py")
    os.symlink(outside / "secret.txt", work / "main.py")
    runtime = sealed._original
    run = exec_tools.run_exec_tool_no_contract("open('secret.txt', 'w').write('x')", 10, work, out, runtime=runtime)
    result = await asyncio.to_thread(sealed._loop.call, run)
    assert result.ok
    assert not (work / "main.py").is_symlink()
    assert (work / "user_code.py").read_text() == "open('secret.txt', 'w').write('x')"
    assert untouched(outside)


async def test_what_a_program_leaves_reaches_no_workspace_but_its_own(sealed, spaces, outside) -> None:
    """A program fills out/ with links, dots and names of the host's own: plain files come back, no more."""
    code = f"""
    import os
    os.symlink({str(outside)!r}, "folder")
    os.symlink("../../../../bob/out", "up")
    os.makedirs("a/.isorun/alice")
    open("a/.isorun/alice/lock", "w").write("x")
    open("...", "w").write("x")
    open("good.txt", "w").write("good")
    """
    runtime = sealed._original
    async with spaces.open("alice") as space:
        run = exec_tools.run_exec_tool_no_contract(textwrap.dedent(code), 10, space.work, space.out, runtime=runtime)
        result = await asyncio.to_thread(sealed._loop.call, run)
        assert result.ok, result.report_text
        await space.sync()
        assert files_and_links(space.workspace) == ["out/...", "out/a/.isorun/alice/lock", "out/good.txt"]
    assert sorted(os.listdir(spaces.workspace_root)) == [".isorun", "alice"]
    assert untouched(outside)


def files_and_links(folder: Path) -> list[str]:
    found = []
    for at, folders, names in os.walk(folder):
        links = [name for name in folders if Path(at, name).is_symlink()]
        found += [Path(at, name).relative_to(folder).as_posix() for name in (*names, *links)]
    return sorted(found)


async def test_what_is_forgotten_lies_in_the_users_folder(spaces, outside) -> None:
    """A tool's answer names what is removed, so it may be anything: `..`, a link on the way, a link itself."""
    async with spaces.open("alice") as space:
        out = space.workspace / "out"
    (out / "turn").mkdir()
    (out / "turn" / "a.txt").write_text("a")
    (out / "kept.txt").write_text("kept")
    os.symlink(outside, out / "folder")
    os.symlink(outside / "secret.txt", out / "file")
    attacks = ["../../../outside/secret.txt", "folder/secret.txt", "turn/../../../../outside", "", "..", "none/b.txt"]
    assert {(out / attack).resolve() for attack in attacks[:2]} == {outside / "secret.txt"}  # a naive path gets there
    await spaces.forget("alice", [*attacks, "turn", "file"])
    assert untouched(outside)
    assert sorted(os.listdir(out)) == ["folder", "kept.txt"]
    assert not space.sandbox.exists()
