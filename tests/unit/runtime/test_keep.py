"""`keep=False`: nothing of the run stays on the disk, however it ends, and small files are in the result."""

import asyncio
import json
from pathlib import Path

import pytest

import isorun
from isorun.core.outcome import Exit
from isorun.store import unkept
from isorun.store.folder import Lease, RunFolder
from isorun.store.recovery import recover
from isorun.testing.fake import Script
from tests.unit.runtime.test_runtime_scripted import ENDINGS, runtime

_WRITES = Script(stdout=b"x\n", files={"a.csv": b"a,b\n", "deep/b.bin": bytes(10)}, exit=Exit(code=0))


def folders(root: Path) -> list[Path]:
    return list(root.glob("codegen_*"))


async def test_small_files_are_in_the_result(tmp_path) -> None:
    """Read, opened and saved as those of a run that is kept; the result says that its folder is gone."""
    async with runtime(tmp_path, _WRITES) as rt:
        result = await rt.execute("pass", keep=False)
        assert folders(tmp_path) == []
    assert (result.ok, result.kept, result.stdout, result.notices) == (True, False, "x\n", ())
    assert result["a.csv"].read_text() == "a,b\n"
    assert result["b.bin"].open().read(3) == bytes(3)
    assert result["b.bin"].save(tmp_path / "copy").read_bytes() == bytes(10)
    assert not result.out_dir.exists()


async def test_a_result_in_json_has_no_bytes_of_files(tmp_path) -> None:
    """The shape is that of any result, but for what `kept` says."""
    async with runtime(tmp_path, _WRITES) as rt:
        told = [json.loads((await rt.execute("pass", keep=keep)).to_json()) for keep in (True, False)]
    assert (told[0].pop("kept"), told[1].pop("kept")) == (True, False)
    assert told[0].keys() == told[1].keys()
    assert [sorted(one) for one in told[0]["artifacts"]] == [sorted(one) for one in told[1]["artifacts"]]


async def test_what_is_too_large_is_named(tmp_path, monkeypatch) -> None:
    """It cannot be read any more, and the error says why; what fits after it is held."""
    monkeypatch.setattr(unkept, "HELD_BYTES", 5)
    async with runtime(tmp_path, _WRITES) as rt:
        result = await rt.execute("pass", keep=False)
    assert result["a.csv"].read_bytes() == b"a,b\n"
    assert result.notices == ("removed with the run's folder (keep=False holds 0 MiB): deep/b.bin (10 bytes)",)
    with pytest.raises(FileNotFoundError, match=r"the run's folder was removed, by keep=False or by a cleanup"):
        result["b.bin"].read_bytes()


@pytest.mark.parametrize("name", ENDINGS)
async def test_however_it_ends_nothing_stays(tmp_path, name) -> None:
    """A time-out, a flood, a violation: the result tells of it as ever."""
    script, status, _ = ENDINGS[name]
    async with runtime(tmp_path, script) as rt:
        result = await rt.execute("pass", timeout_s=0.2, keep=False)
        assert folders(tmp_path) == []
    assert result.status == status


@pytest.mark.parametrize(
    "script",
    [
        Script(lost=isorun.SetupFailed("zygote", "it died")),
        Script(start=isorun.SetupFailed("start", "the slot is gone")),
        Script(build=isorun.SetupFailed("/proc", "Operation not permitted")),
    ],
)
async def test_a_sandbox_that_fails_leaves_nothing(tmp_path, script) -> None:
    """Before the program started, and under it: the exception is all there is."""
    async with runtime(tmp_path, script) as rt:
        with pytest.raises(isorun.SetupFailed):
            await rt.execute("pass", keep=False)
        assert folders(tmp_path) == []


async def test_a_cancelled_run_leaves_nothing(tmp_path) -> None:
    """Its partial result comes back all the same."""
    async with runtime(tmp_path, Script(stdout=b"so far\n", at_sigterm=Exit(code=0))) as rt:
        run = await rt.start("pass", timeout_s=60, keep=False)
        await anext(run.events())
        result = await run.cancel()
        assert folders(tmp_path) == []
    assert (result.status, result.stdout) == ("cancelled", "so far\n")


def test_a_run_whose_host_died_is_removed_and_not_ended(tmp_path) -> None:
    """The next Runtime finds its folder without a host; one that was to be kept becomes lost."""
    with Lease.take(tmp_path) as lease:
        RunFolder.create(tmp_path, "unkept", lease, {"keep": False})
        RunFolder.create(tmp_path, "kept", lease, {})
        assert recover(tmp_path) == []
    assert recover(tmp_path) == ["kept"]
    assert [one.name for one in folders(tmp_path)] == ["codegen_kept"]


async def test_others_stay(tmp_path) -> None:
    """It is an option of one run, not of its Runtime."""
    async with runtime(tmp_path, _WRITES) as rt:
        kept, gone = await asyncio.gather(rt.execute("pass"), rt.execute("pass", keep=False))
    assert (kept.out_dir.exists(), gone.out_dir.exists()) == (True, False)
