"""A list of runs names the file that asked for a run, where nobody named the program."""

import threading
from pathlib import Path

import isorun
from isorun.core.outcome import Exit
from isorun.store.recovery import listing
from isorun.testing.fake import Script, ScriptedBackend
from tests.unit.runtime.test_runtime_scripted import runtime

HERE = Path(__file__).name
ENDS = Script(exit=Exit(code=0))


def names(root: Path) -> list[str]:
    return [run.prog_name for run in listing(root)]


async def test_a_run_of_a_coroutine_has_its_file(tmp_path: Path) -> None:
    """Awaited, by `map`, and with inputs, which are read in a thread."""
    async with runtime(tmp_path, ENDS) as rt:
        await rt.execute("pass")
        await rt.execute("pass", inputs={"a": b"x"})
        assert [result.prog_name async for result in rt.map(["pass"])] == [""]
    assert names(tmp_path) == [HERE] * 3


def test_a_run_without_a_loop_has_its_file(tmp_path: Path) -> None:
    """From any thread; a name that was given comes first."""
    given = {
        "backend": ScriptedBackend(ENDS),
        "settings": isorun.Settings(),
        "workspace_root": tmp_path,
        "pool_size": 0,
    }
    with isorun.SyncRuntime(**given) as rt:
        thread = threading.Thread(target=lambda: rt.execute("pass"))
        thread.start()
        thread.join()
        rt.start("pass", inputs={"a": b"x"}).result()
        list(rt.map(["pass"]))
        rt.execute("pass", prog_name="mine")
    assert sorted(names(tmp_path)) == ["mine", *[HERE] * 3]
