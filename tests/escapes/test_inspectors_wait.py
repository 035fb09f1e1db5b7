"""ATTACKS, artifacts: inspectors that wait. One that a hostile file has taken over leaves nothing for the next check.

A program stands here for a file that has taken the inspector over: it runs in the inspector's place, in a slot that
waited for one.
"""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from isorun import Settings, SyncRuntime
from isorun.backends.namespace import jail
from isorun.backends.namespace.backend import NamespaceBackend, Options
from isorun.core.contract.items import parse_contract
from isorun.runtime.inspection.inspection import _request, limits_for
from isorun.runtime.inspection.inspectors import Inspectors, Place
from isorun.runtime.run import Options as RunOptions
from isorun.runtime.run import program_for
from isorun.store.folder import Lease, RunFolder, open_root
from tests import artifacts as made
from tests.artifacts import HAND_OUT, contract, given
from tests.escapes.attacking import attack
from tests.escapes.soak import descendants

pytestmark = [pytest.mark.usefixtures("unharmed"), pytest.mark.embedded]
EXEC_ID = "20260101-120000-000001-0123456789ab"
_PLACES = ("/tmp", "/dev/shm", "/workspace/work", "/workspace/out")
LEAVES = f"""
import os, subprocess, sys
from isorun.runtime.inspection import inspector
inspector.inspect = lambda file, name, checks: []
sys.modules["left_here"] = sys
os.environ["LEFT_HERE"] = "1"
for place in {_PLACES}:
    open(place + "/left_here", "w").write("of another run")
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
"""
SEES = f"""
import os, sys
from isorun.runtime.inspection import inspector
print("lies" if inspector.inspect.__name__ == "<lambda>" else "tells the truth")
print("module" if "left_here" in sys.modules else "no module", "variable" if "LEFT_HERE" in os.environ else "none")
print([place for place in {_PLACES} if os.path.exists(place + "/left_here")])
print(sorted(os.listdir("/workspace/work")), "a child" if "child" in globals() else "alone")
"""
NOTHING = "tells the truth\nno module none\n[]\n['.isorun-last-trace', 'job.json', 'main.py', 'user_code.py'] alone\n"


@asynccontextmanager
async def waiting(ceilings: str) -> AsyncIterator[Inspectors]:
    """Inspectors of which two wait."""
    options = Options(use_cgroup=ceilings == "cgroup")
    items = parse_contract(contract("a.csv"), turn="1", exec_id=EXEC_ID, max_items=1).items
    async with (
        NamespaceBackend(options) as backend,
        Inspectors(backend, Settings(pool_size=2), limits_for(())) as inspectors,
    ):
        inspectors.expect(items)
        async with asyncio.timeout(60):
            while inspectors.waiting < 2:  # noqa: ASYNC110 - a number tells nobody that it has grown
                await asyncio.sleep(0.01)
        yield inspectors


async def said(place: Place, folder: RunFolder, code: str) -> str:
    """What *code* prints, run as the inspector at *place*."""
    slot = place.slot
    await slot.start(program_for(_request([], folder, code.encode()), RunOptions()))
    async with asyncio.timeout(20):
        await slot.wait()
    await slot.kill()
    printed = b""
    with suppress(BlockingIOError):
        while part := os.read(slot.stdout, 4096):
            printed += part
    return printed.decode()


async def test_the_next_check_sees_nothing_of_one_that_was_taken_over(ceilings: str, tmp_path: Path) -> None:
    """Every slot that waits is used once. Control: what comes next in the same slot sees all of it."""
    with Lease.take(open_root(tmp_path)) as host:
        folder = RunFolder.create(tmp_path, EXEC_ID, host, {})
        async with waiting(ceilings) as inspectors:
            async with inspectors.place(limits_for(())) as place:
                left = (await said(place, folder, LEAVES + SEES)).splitlines()
            assert left[:3] == ["lies", "module variable", str(list(_PLACES))]
            assert "left_here" in left[3]
            assert left[3].endswith("a child")
            slots = [place.slot]
            for _ in range(3):  # the one that waited beside it, and two that were built since
                async with inspectors.place(limits_for(())) as place:
                    assert place.slot.isolation["level"] == "full"
                    assert await said(place, folder, SEES) == NOTHING
                slots.append(place.slot)
            assert len(set(map(id, slots))) == 4


async def test_a_jail_that_is_replaced_while_another_is_being_started_is_ended(
    ceilings: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries are added while slots are built, each of which starts a jail here: every jail is ended by its owner."""
    before, stood = descendants(), Counter[str]()
    start = jail.start

    @asynccontextmanager
    async def counted(*args: object) -> AsyncIterator[jail.RunningJail]:
        async with start(*args) as started:
            stood["started"] += 1
            yield started
        stood["ended"] += 1

    monkeypatch.setattr(jail, "start", counted)
    async with NamespaceBackend(Options(use_cgroup=ceilings == "cgroup", zygote_runs=1)) as backend:

        async def built() -> None:
            for _ in range(5):
                async with backend.launch(limits_for(())) as slot:
                    assert slot.isolation["level"] == "full"

        async def reloaded() -> None:
            for _ in range(5):
                await backend.reload(("csv",))

        await asyncio.gather(built(), reloaded())
    assert stood["started"] == stood["ended"] > 5
    assert descendants() == before


HOSTILE: dict[str, tuple[bytes, str, str]] = {
    "a.zip": (made.zip_bomb(600), "artifact_too_large", "unpacks to 629145600 bytes, the limit is 536870912"),
    "a.png": (
        made.png_bomb(20_000, 10_000),
        "artifact_too_large",
        "has 20000 x 10000 pixels, the limit is 50000000 in all",
    ),
    "a.json": (made.deep_json(100_000), "artifact_invalid", "is nested too deep"),
    "a.csv": (b'a\n"' + b"x" * (3 << 19), "artifact_invalid", "is not CSV: field larger than field limit (1048576)"),
}


def test_hostile_files_end_at_the_same_limits_in_those_that_wait(ceilings: str, tmp_path: Path) -> None:
    """And the check after each finds a good file good. The controls of the files stand in `test_artifacts_parsers`."""
    backend = NamespaceBackend(Options(use_cgroup=ceilings == "cgroup"))
    with SyncRuntime(backend=backend, settings=Settings(), pool_size=2, workspace_root=tmp_path / "runs") as runtime:
        for name, (data, code, hint) in HOSTILE.items():
            bad = attack(runtime, HAND_OUT, contract=contract(name), inputs=given(tmp_path, {name: data})).items[0]
            assert (bad.state, bad.codes, bad.hints) == ("invalid", (code,), (f"{bad.path} {hint}",))
            fine = runtime.execute("Path('turn_1/files/b.json').write_text('1')", contract=contract("b.json"))
            assert fine.ok, fine.report_text
        assert runtime.waiting_inspectors <= 2
