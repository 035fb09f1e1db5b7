"""Which inspectors wait, and since when. Real ones are in the conformance kit and among the escapes."""

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from isorun import Settings
from isorun.core.contract.items import ContractItem, parse_contract
from isorun.core.limits import MIB
from isorun.runtime.inspection.inspection import limits_for
from isorun.runtime.inspection.inspectors import AT_ONCE, Inspectors, libraries_for
from isorun.testing.fake import Script, ScriptedBackend
from tests import artifacts as made

EXEC_ID = "20260101-120000-000001-0123456789ab"
USUAL = limits_for(())


def items(*names: str, **checks: object) -> tuple[ContractItem, ...]:
    if not names:
        return ()
    promised = [{"filename": f"turn_1/files/{name}", "description": "d", **checks} for name in names]
    return parse_contract(promised, turn="1", exec_id=EXEC_ID, max_items=100).items


def inspectors(backend: ScriptedBackend, pool_size: int) -> Inspectors:
    return Inspectors(backend, Settings(pool_size=pool_size), USUAL)


async def settled(inspectors: Inspectors, waiting: int) -> None:
    """Return once so many wait, and after time enough for one more."""
    async with asyncio.timeout(5):
        while inspectors.waiting != waiting:  # noqa: ASYNC110 - a number tells nobody that it has changed
            await asyncio.sleep(0)
    for _ in range(50):
        await asyncio.sleep(0)
    assert inspectors.waiting == waiting


@pytest.mark.parametrize(("pool_size", "names"), [(4, ()), (0, ("a.csv",))], ids=["no need", "no pool"])
async def test_none_waits_where_none_is_needed_or_wanted(pool_size: int, names: tuple[str, ...]) -> None:
    """A Runtime whose contracts are kept by their size, or whose operator wants nothing to wait, pays nothing."""
    async with ScriptedBackend(Script()) as backend, inspectors(backend, pool_size) as tried:
        tried.expect(items(*names))
        await settled(tried, 0)
        assert backend.launched == 0


@pytest.mark.parametrize("pool_size", [1, 1000])
async def test_as_many_wait_as_may_look_at_once_but_no_more_than_programs(pool_size: int) -> None:
    """And they are there from the first need on, each for one use."""
    async with ScriptedBackend(Script()) as backend, inspectors(backend, pool_size) as tried:
        wanted = min(pool_size, AT_ONCE)
        for _ in range(3):
            tried.expect(items("a.csv"))
        await settled(tried, wanted)
        slots = []
        for _ in range(3):
            async with tried.place(USUAL) as place:
                slots.append(place.slot)
            await settled(tried, wanted)
        assert len(set(map(id, slots))) == 3
        assert backend.launched == wanted + 3


async def test_other_limits_are_built_for_the_run() -> None:
    """Large files have a slot with room for them; those that wait stay."""
    async with ScriptedBackend(Script()) as backend, inspectors(backend, 1) as tried:
        tried.expect(items("a.csv"))
        await settled(tried, 1)
        async with tried.place(replace(USUAL, workspace_bytes=USUAL.workspace_bytes + MIB)):
            assert (tried.waiting, backend.launched) == (1, 2)


async def test_leaving_in_the_midst_of_the_preparation_leaves_nothing() -> None:
    """The Runtime of a short script is closed while its first inspectors are being made."""
    async with ScriptedBackend(Script()) as backend:
        async with inspectors(backend, 4) as tried:
            tried.expect(items("a.csv"))
            await asyncio.sleep(0)
        assert tried.waiting == 0
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("isorun-")]


SAMPLES: dict[str, tuple[bytes, dict[str, object]]] = {
    "a.csv": (b"a,b\n1,2\n", {}),
    "a.docx": (made.docx("x"), {}),
    "a.gif": (made.image("GIF"), {}),
    "a.jpg": (made.image("JPEG"), {}),
    "a.json": (b"[1]", {"json_schema": {"type": "array"}}),
    "a.pdf": (made.pdf(), {}),
    "a.png": (made.png(), {}),
    "a.svg": (b"<svg/>", {}),
    "a.tiff": (made.image("TIFF"), {}),
    "a.toml": (b"a = 1", {}),
    "a.webp": (made.image("WEBP"), {}),
    "a.xlsx": (made.xlsx({"S": [["a"], [1]]}), {}),
    "a.zip": (made.zipped({"a": b"b"}), {}),
}
_LATER = """
import sys
from importlib import import_module
from pathlib import Path
for name in sys.argv[2:]:
    import_module(name)
inspector = import_module("isorun.runtime.inspection.inspector")
before = set(sys.modules)
checks = {"json_schema": {"type": "array"}} if sys.argv[1].endswith("json") else {}
assert inspector.inspect(Path(sys.argv[1]), sys.argv[1], checks) == []
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before} & {"PIL", "openpyxl", "pypdf", "numpy",
      "jsonschema", "zipfile", "tarfile", "tomllib", "xml", "pyexpat"}))
"""


@pytest.mark.slow  # an interpreter for each kind
@pytest.mark.parametrize("name", SAMPLES)
def test_what_a_kind_of_file_needs_is_imported_before_it_comes(name: str, tmp_path: Path) -> None:
    """Nothing of a library that costs milliseconds is left to import once the file is there; numpy never is."""
    data, checks = SAMPLES[name]
    (tmp_path / name).write_bytes(data)
    argv = [sys.executable, "-c", _LATER, str(tmp_path / name), *libraries_for(items(name, **checks))]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("\n", "")
