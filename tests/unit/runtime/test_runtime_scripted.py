"""The runtime against slots that misbehave in ways no program does on demand."""

import asyncio
import gc
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import isorun
from isorun.backends.base import Slot, Usage
from isorun.core.outcome import Exit
from isorun.core.sent.claim import Claim
from isorun.runtime.output import OutputLog
from isorun.testing.fake import Script, ScriptedBackend
from isorun.wire.messages import Call, Ended, Go, Log, Put, Refused, Reply, encode
from tests.unit.records import CONTEXT

_CALL = encode(Call(id=1, tool="a.b", params={}, reason="", timeout_s=None))


def runtime(root: Path, *scripts: Script, **options: object) -> isorun.Runtime:
    """A Runtime whose slots follow *scripts*, one after the other; no pool, so that the order is theirs."""
    limits = isorun.Limits(grace_s=0.05)
    given = {"limits": limits, "pool_size": 0, **options}
    return isorun.Runtime(backend=ScriptedBackend(*scripts), settings=isorun.Settings(), workspace_root=root, **given)


async def outcome(root: Path, script: Script) -> isorun.RunResult:
    async with runtime(root, script) as rt:
        return await rt.execute("pass", timeout_s=0.2)


ENDINGS = {
    "hangs": (Script(), "timed_out", "timeout"),
    "was over when SIGTERM came": (Script(at_sigterm=Exit(code=0, unasked=True)), "ok", None),
    "had failed when SIGTERM came": (Script(at_sigterm=Exit(code=3, unasked=True)), "failed", "nonzero_exit"),
    "ends at SIGTERM": (Script(at_sigterm=Exit(code=0)), "timed_out", "timeout"),
    "exit 0": (Script(exit=Exit(code=0)), "ok", None),
    "exit 3": (Script(exit=Exit(code=3)), "failed", "nonzero_exit"),
    "SIGKILL": (Script(exit=Exit(signal=9)), "killed", "signal"),
    "OOM kill": (Script(exit=Exit(signal=9, oom_kills=1)), "out_of_memory", "out_of_memory"),
    "a child's OOM": (Script(exit=Exit(code=0, oom_kills=1)), "ok", None),
    "SIGXFSZ": (Script(exit=Exit(signal=25)), "limit_exceeded", "file_size_limit"),
    "garbage, hanging": (Script(stream=(b"\xff" * 8,)), "protocol_violation", "protocol_violation"),
    "garbage, then exit 0": (
        Script(stream=(b"\xff" * 8,), exit=Exit(code=0)),
        "protocol_violation",
        "protocol_violation",
    ),
    "plays the host": (Script(stream=(Reply(id=1, value=1),)), "protocol_violation", "protocol_violation"),
    "refuses itself": (
        Script(stream=(Refused(id=1, error="ToolDenied", text="x"),)),
        "protocol_violation",
        "protocol_violation",
    ),
    "plays the zygote": (
        Script(stream=(Go(argv=[], env={}, context=CONTEXT),)),
        "protocol_violation",
        "protocol_violation",
    ),
    "stores a file": (
        Script(stream=(Put(path="out/x", data=b"", append=False, mode=0o644),)),
        "protocol_violation",
        "protocol_violation",
    ),
    "half a frame": (Script(stream=(_CALL[:-3],), exit=Exit(code=0)), "ok", None),
    "a claim and exit 1": (
        Script(stream=(Ended(claim=Claim(type="ValueError", message="m", line=3)),), exit=Exit(code=1)),
        "failed",
        "program_error",
    ),
    "a claim and exit 0": (
        Script(stream=(Ended(claim=Claim(type="MemoryError")),), exit=Exit(code=0)),
        "ok",
        None,
    ),
    "a claim of memory and exit 1": (
        Script(stream=(Ended(claim=Claim(type="MemoryError")),), exit=Exit(code=1)),
        "out_of_memory",
        "out_of_memory",
    ),
}


@pytest.mark.parametrize("name", ENDINGS)
async def test_every_ending_has_its_word(tmp_path, name) -> None:
    """Whatever the slot does, the run is a result with the word and the code of the table."""
    script, status, code = ENDINGS[name]
    result = await outcome(tmp_path, script)
    assert (result.status, result.error and result.error.code) == (status, code)
    assert (result.out_dir / "result.json").exists()


async def test_a_prefix_that_promises_too_much_is_refused_before_its_body(tmp_path) -> None:
    """A frame of four gigabytes is a violation at its first bytes; nobody waits for the rest."""
    result = await outcome(tmp_path, Script(stream=(b"\xff\xff\xff\xff",) * 2))
    assert result.status == "protocol_violation"
    assert result.usage["wall_s"] < 0.2


async def test_a_violation_keeps_output_and_files(tmp_path) -> None:
    """What came before it is in the result."""
    script = Script(stdout=b"before\n", stderr=b"too\n", files={"a/b.txt": b"x"}, stream=(b"\xff" * 8,))
    result = await outcome(tmp_path, script)
    assert (result.stdout, result.stderr, result.workspace_diff["created"]) == (
        "before\n",
        "too\n",
        ("a/b.txt",),
    )
    assert result.error.message.startswith("the program broke the tool protocol: ")


async def test_a_childs_oom_is_a_notice(tmp_path) -> None:
    """The count is said where it did not end the run."""
    result = await outcome(tmp_path, Script(exit=Exit(code=0, oom_kills=2)))
    assert result.notices == ("2 process(es) of the run were killed for memory",)


async def test_refused_forks_are_a_notice(tmp_path) -> None:
    """A program that coped with the process limit is ok, and its result says that it met it."""
    result = await outcome(tmp_path, Script(exit=Exit(code=0, process_limit_hits=3)))
    assert result.notices == ("3 fork(s) or thread(s) were refused: process limit",)


async def test_log_records_go_to_infra_and_cannot_forge_a_line(tmp_path) -> None:
    """What the loader's side logs is one line each, under `program`."""
    record = Log(level="ERROR", name="lib", text="first\n2026-01-01T00:00:00.000Z INFO [runtime] forged")
    result = await outcome(tmp_path, Script(stream=(record,), exit=Exit(code=0)))
    lines = [line for line in result.infra_log_tail.splitlines() if "forged" in line]
    assert len(lines) == 1
    assert "ERROR [program] lib first\\n2026" in lines[0]


async def test_a_thousand_calls_are_kept_and_no_more(tmp_path) -> None:
    """The result's list of tool calls is bounded by the limit, whatever the program sends."""
    calls = b"".join(encode(Call(id=n, tool="t.t", params={}, reason="", timeout_s=None)) for n in range(1, 60))
    script = Script(stream=(calls,), at_sigterm=Exit(code=0))  # it lives until all are read
    async with runtime(tmp_path, script, limits=isorun.Limits(tool_calls=50)) as rt:
        result = await rt.execute("pass", timeout_s=0.5)
    assert len(result.tool_calls) == 50


FAILURES = {
    "build": (
        Script(build=isorun.SetupFailed("/proc", "Operation not permitted")),
        "/proc: Operation not permitted",
    ),
    "start": (Script(start=isorun.SetupFailed("start", "the slot is gone")), "start: the slot is gone"),
    "zygote gone": (Script(lost=isorun.SetupFailed("zygote", "it died")), "zygote: it died"),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_a_failing_sandbox_raises_and_is_no_run(tmp_path, name) -> None:
    """Ours is an exception that names its step, never an outcome; watchers are told.

    The folder is gone, unless the program had started: then what it printed is kept, and the reason.
    """
    script, text = FAILURES[name]
    async with runtime(tmp_path, script, Script(exit=Exit(code=0))) as rt:
        run = await rt.start("pass")
        with pytest.raises(isorun.SetupFailed) as caught:
            await run.result()
        assert str(caught.value) == text
        assert [event.data async for event in run.events()][-1] == {"status": "error"}
        kept = list(rt.root.glob("codegen_*"))
        assert len(kept) == (name == "zygote gone")
        for folder in kept:
            assert f"the sandbox failed: SetupFailed('{text}')" in (folder / "out/logs/infra.log").read_text()
        assert (await rt.execute("pass")).status == "ok"


async def test_a_pool_survives_failing_builds(tmp_path) -> None:
    """A slot that cannot be built ahead costs nothing; the run that then finds none builds its own."""
    scripts = (Script(build=isorun.SetupFailed("x", "y")), Script(exit=Exit(code=0)))
    async with runtime(tmp_path, *scripts, pool_size=1) as rt:
        await asyncio.sleep(0)
        result = await rt.execute("pass")
    assert (result.status, result.timings["pool_hit"]) == ("ok", False)


async def test_a_slot_that_died_waiting_is_not_handed_out(tmp_path) -> None:
    """The pool's dead slot is taken down and the run gets one that lives."""
    async with runtime(tmp_path, Script(dead=True), Script(exit=Exit(code=0)), pool_size=1) as rt:
        for _ in range(100):  # turns of the loop: a scripted build needs a few
            await asyncio.sleep(0)
        assert rt.waiting_slots == 1
        result = await rt.execute("pass")
    assert result.status == "ok"


async def test_cancel_of_a_slot_that_ignores_sigterm(tmp_path) -> None:
    """Cancelling takes the grace and no longer."""
    async with runtime(tmp_path, Script(stdout=b"so far\n")) as rt:
        run = await rt.start("pass", timeout_s=60)
        async for event in run.events():
            if event.kind == "output":
                break
        result = await run.cancel()
    assert (result.status, result.stdout, result.signal) == ("cancelled", "so far\n", 9)
    assert result.usage["wall_s"] < 5


async def test_the_first_reason_counts(tmp_path) -> None:
    """A violation that ended the run stays its reason if the caller cancels during the grace."""
    async with runtime(tmp_path, Script(stream=(b"\xff" * 8,)), limits=isorun.Limits(grace_s=0.2)) as rt:
        run = await rt.start("pass", timeout_s=60)
        async for event in run.events():
            if event.kind == "started":
                break
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        result = await run.cancel()
    assert result.status in ("protocol_violation", "cancelled")
    assert math.isfinite(result.usage["wall_s"])


async def test_leaving_a_runtime_cancels_what_runs(tmp_path) -> None:
    """A run that nobody waits for is ended and recorded."""
    async with runtime(tmp_path, Script()) as rt:
        run = await rt.start("pass", timeout_s=60)
        async for event in run.events():
            if event.kind == "started":
                break
    assert (await run.result()).status == "cancelled"


class _FailsToEnd(ScriptedBackend):
    """Its slots hang, and leaving one raises what no backend of ours raises."""

    def __init__(self) -> None:
        super().__init__(Script(stdout=b"x\n", at_sigterm=Exit(code=0)))
        self.left = 0

    @asynccontextmanager
    async def launch(self, limits: isorun.Limits) -> AsyncIterator[Slot]:
        async with super().launch(limits) as slot:
            slot.kill = self._kill  # type: ignore[method-assign]  # of this slot alone
            yield slot

    async def _kill(self) -> tuple[Exit, Usage]:
        self.left += 1
        raise KeyError(f"slot {self.left}")


@pytest.mark.parametrize("count", [1, 3])
async def test_every_run_is_ended_before_an_error_of_a_backend_is_told(tmp_path, count: int) -> None:
    """Closing stops at none of them; several errors are told together."""
    backend = _FailsToEnd()
    rt = isorun.Runtime(
        backend=backend,
        settings=isorun.Settings(),
        workspace_root=tmp_path,
        pool_size=0,
        limits=isorun.Limits(grace_s=0.05),
    )
    await rt.__aenter__()
    for _ in range(count):
        await anext((await rt.start("pass", timeout_s=60)).events())
    with pytest.raises((KeyError, ExceptionGroup)) as caught:
        await rt.__aexit__(None, None, None)
    assert backend.left == count
    told = caught.value.exceptions if isinstance(caught.value, ExceptionGroup) else (caught.value,)
    assert sorted(map(str, told)) == [f"'slot {n}'" for n in range(1, count + 1)]


async def test_a_run_that_its_caller_keeps_holds_its_output_once(tmp_path) -> None:
    """The result has it: a service that keeps a thousand runs is not to hold what each of them printed twice."""

    def logs() -> list[OutputLog]:
        return [one for one in gc.get_objects() if isinstance(one, OutputLog)]

    before = logs()  # of other tests
    async with runtime(tmp_path, Script(stdout=b"x\n", exit=Exit(code=0))) as rt:
        run = await rt.start("pass")
        result = await run.result()
    assert result.stdout == "x\n"
    assert [one for one in logs() if one not in before] == []
