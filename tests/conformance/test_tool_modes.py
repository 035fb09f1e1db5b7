"""SPEC E1 and E2: a run is recorded the same wherever its tools run, and a mode that cannot be had is refused."""

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import isorun
from isorun.backends.base import Backend
from tests.bundles import write_bundle
from tests.conformance.conftest import IN_CONTAINERS, options_for

TOOLS = '''
import os, signal, subprocess, sys, time

@isorun.tool
def report(text: str, ctx: isorun.ToolContext) -> dict:
    """Write a file, print and log."""
    with ctx.open_output("tools/report.txt", "w") as file:
        file.write(text)
    print("printed", text)
    ctx.log.warning("logged %s", text)
    return {"path": str(ctx.output_dir / "tools/report.txt"), "bytes": text.encode(), "run": [ctx.user_id, ctx.turn_id]}

@isorun.tool
def pooled(name: str, ctx: isorun.ToolContext) -> int:
    """The number of a source in the turn's pool, as the web tools have it."""
    from isorun.tools.sources_pool import add_sources
    rows = [{"sid": 1, "url": f"http://{name}.example/", "title": name, "text": "", "published": None}]
    return add_sources(ctx, rows, lock_s=20)[1][1]

@isorun.tool
async def fails() -> None:
    """Fail."""
    raise ValueError("s3cret")

@isorun.tool
def ends() -> int:
    """End the process."""
    os.kill(os.getpid(), signal.SIGSEGV)

@isorun.tool
def leaves(mark: str) -> None:
    """Start a process that has left its session and its parent."""
    if os.fork() == 0:
        os.setsid()
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", mark], start_new_session=True)
        os._exit(0)
    time.sleep(600)

@isorun.tool
def found(mark: str) -> list[int]:
    """The processes with *mark* on their command line, as the supervisor sees them."""
    pids = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = open(f"/proc/{name}/cmdline", "rb").read()
        except OSError:
            continue
        if mark.encode() in words:
            pids.append(int(name))
    return pids

@isorun.tool(network=False)
def sealed() -> str:
    """Without a network."""
    import socket
    try:
        socket.socket()
    except OSError as error:
        return os.strerror(error.errno)
'''
PROGRAM = """
print(await files.report(text="ä"))
for call in (files.fails(), files.report(text=3), files.report(text="x", more=1)):
    try:
        print(await call)
    except agent_io_tools.ToolError as error:
        print(type(error).__name__, error)
"""
IDS = ("files.report", "files.fails", "files.ends")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = write_bundle(tmp_path / "bundle", files=TOOLS)
    for path in (tmp_path, folder, folder / "tools"):
        path.chmod(0o755)
    return folder


Opened = Callable[..., isorun.SyncRuntime]


@pytest.fixture
def opened(new_backend: Callable[[], Backend], rt: isorun.SyncRuntime, bundle: Path, tmp_path: Path) -> Opened:
    """`opened(mode)`: a Runtime whose tools run so; those of *others* as these say."""

    def make(mode: str, **others: str) -> isorun.SyncRuntime:
        modes = {**dict.fromkeys(IDS, mode), **{f"files.{name}": other for name, other in others.items()}}
        settings = isorun.Settings(tool_runtime=tuple(f"{tool_id}={named}" for tool_id, named in modes.items()))
        return isorun.SyncRuntime(
            **options_for(new_backend(), tmp_path / "runs", settings=settings, pool_size=0, bundle=bundle)
        )

    return make


def _number(record: Path) -> int:
    return int(record.stem.rpartition("-")[2])


def _kept(result: isorun.RunResult) -> tuple[str, list[Mapping[str, Any]], list[str], dict[str, bytes]]:
    """What a run leaves: output, records, the tools' lines in infra.log, files."""
    timed = ("ms", "started_at", "started", "record")
    whole = [json.loads(path.read_text()) for path in sorted(result.out_dir.rglob("files.*-*.json"), key=_number)]
    assert len(whole) == len(result.tool_calls)
    records = [{key: value for key, value in call.items() if key not in timed} for call in (*result.tool_calls, *whole)]
    log = (result.out_dir / "logs" / "infra.log").read_text()
    lines = [line.split(" ", 1)[1] for line in log.splitlines() if "[tool]" in line]
    files = {path.name: path.read_bytes() for path in (result.out_dir / "tools").rglob("*") if path.is_file()}
    return result.stdout, records, [re.sub(r"^\S+ ", "", line) for line in lines], files


def test_a_run_is_the_same_whatever_the_mode(opened: Opened) -> None:
    """What the program sees, the records, the lines of infra.log and the files."""
    left = []
    for mode in ("none", "local"):
        with opened(mode) as runtime:
            result = runtime.execute(PROGRAM, turn_id="turn_1")
            assert result.status == "ok", result.report_text
            left.append(_kept(result))
    assert left[0] == left[1]
    assert left[0][3]["report.txt"] == "ä".encode()
    assert any("s3cret" in line for line in left[0][2])
    assert "ToolFailed the tool failed (call 2)\nToolInputInvalid" in left[0][0]


def test_a_tool_that_crashes_costs_its_own_call(opened: Opened) -> None:
    """The next calls of the run are answered, by the same supervisor; a tool without network can make no socket."""
    code = """
for call in (files.ends(), files.ends(), files.report(text="after"), files.sealed()):
    try:
        print(await call)
    except agent_io_tools.ToolError as error:
        print(type(error).__name__, error)
"""
    with opened("local") as runtime:
        result = runtime.execute(code)
    first, second, third, fourth = result.stdout.splitlines()
    assert first == "ToolFailed the tool's process ended by signal 11 (call 1)"
    assert second == "ToolFailed the tool's process ended by signal 11 (call 2)"
    assert third.startswith("{'path': '/workspace/out/tools/report.txt'")
    assert fourth == "Permission denied"
    assert "the supervisor died" not in (result.out_dir / "logs" / "infra.log").read_text()


def test_at_the_deadline_what_a_tool_started_is_gone(opened: Opened) -> None:
    """Also what has left its session and its parent, and where no PID namespace can be made."""
    code = """
import asyncio
import sys
mark = "left-by-" + sys.argv[1]
leaving = asyncio.ensure_future(agent_io_tools.tool_call(tool_id="files.leaves", params={"mark": mark}, timeout_s=10))
while not await files.found(mark=mark):
    await asyncio.sleep(0.05)
try:
    await leaving
except agent_io_tools.ToolTimeout as error:
    print(error)
while await files.found(mark=mark):
    await asyncio.sleep(0.05)
print("gone")
"""
    with opened("none", leaves="local") as runtime:
        result = runtime.execute(code, argv=[str(os.getpid())], timeout_s=30)
    assert result.stdout == "files.leaves took longer than 10 s\ngone\n", result.report_text


def test_a_mode_that_cannot_be_had_is_refused(opened: Opened, kind: str) -> None:
    """A container where there is none, a network of its own in a container without rights: never another mode."""
    mode = "local_network" if kind in IN_CONTAINERS else "docker"
    runtime = opened("none", report=mode)
    with pytest.raises(isorun.Unavailable, match=r"^files\.report is to run "):
        runtime.__enter__()
    with opened("none", report="docker" if kind in IN_CONTAINERS else "local_network") as runtime:
        assert runtime.execute("print((await files.report(text='x'))['bytes'])").stdout == "b'x'\n"


def test_the_pool_of_sources_is_the_same_in_every_mode(opened: Opened, bundle: Path) -> None:
    """Calls that overlap lose no source. A link that the program puts in its place while they write is not followed,
    neither is one of its folder's; the calls have their numbers all the same."""
    code = """
import asyncio, json, os, threading
numbers = await asyncio.gather(*(files.pooled(name=f"n{n % 10}") for n in range(30)))
pool = json.load(open(OUT / "sources_pool.json"))
found = {one["title"]: one["sid"] for one in pool}
print(sorted(found.values()), all(found[f"n{n % 10}"] == number for n, number in enumerate(numbers)))
open("mine", "w").write("untouched")
done = threading.Event()
def plant():
    while not done.is_set():
        for target in ("mine", "/etc/hostname"):
            os.symlink(os.path.abspath(target), "planted")
            os.replace("planted", OUT / "sources_pool.json")
        open("plain", "w").write("[]")
        os.replace("plain", OUT / "sources_pool.json")
planting = threading.Thread(target=plant)
planting.start()
numbers = await asyncio.gather(*(files.pooled(name=f"n{n}") for n in range(30)))
done.set()
planting.join()
print(all(number >= 1 for number in numbers), open("mine").read())
"""
    descriptor = bundle / "tools_descriptor.py"
    entry = {"module": "isorun.tools.generic_tools", "alias": "generic_tools"}  # what has the pool, in a container too
    descriptor.write_text(f"{descriptor.read_text()}TOOLS += [{entry}]\n")
    for mode in ("none", "local"):
        with opened(mode, pooled=mode) as runtime:
            result = runtime.execute(code, timeout_s=60)
        assert result.stdout.splitlines() == [f"{[*range(1, 11)]} True", "True untouched"], (mode, result.report_text)
