"""`isorun mcp`, started as a model's client starts it: by the real client in both eras, and line by line."""

import asyncio
import base64
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.shared.exceptions import MCPError
from mcp_types import BlobResourceContents, ImageContent, ResourceLink, TextContent, TextResourceContents

from tests.conformance.conftest import inherited

pytestmark = [pytest.mark.slow, pytest.mark.any_user]
MODES = {"auto": "2026-07-28", "legacy": "2025-11-25"}
DEADLINE_S = 50
PICTURE = """
import matplotlib
matplotlib.use("Agg")
from matplotlib import pyplot
pyplot.plot([1, 3, 2])
pyplot.savefig("chart.png")
open("data.csv", "w").write("x,y\\n1,2\\n")
open("raw.bin", "wb").write(bytes(range(256)))
os.symlink("/etc/passwd", "link.txt")
print("drawn")
6 * 7
"""
#: Says that it has begun, and never ends.
ENDLESS = "import time\nprint('begun', flush=True)\nwhile True: time.sleep(0.1)"

Serve = Callable[[str], AbstractAsyncContextManager[Client]]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The user's own, with a workspace root of the test's."""
    return {**inherited(), "ISORUN_WORKSPACE_ROOT": str(tmp_path / "runs")}


@pytest.fixture
def serve(environment: dict[str, str], tmp_path: Path) -> Serve:
    """Starts the server as a client does, and is that client."""

    @asynccontextmanager
    async def opened(mode: str) -> AsyncIterator[Client]:
        started = StdioServerParameters(
            command=sys.executable, args=["-m", "isorun", "mcp"], env=environment, cwd=tmp_path
        )
        with (tmp_path / "stderr").open("w") as errors:
            async with asyncio.timeout(DEADLINE_S), Client(stdio_client(started, errors), mode=mode) as client:
                assert client.protocol_version == MODES[mode]
                yield client

    return opened


def text_of(answer: Any) -> str:  # noqa: ANN401 - an answer
    return "\n".join(one.text for one in answer.content if isinstance(one, TextContent))


@pytest.mark.parametrize("mode", MODES)
async def test_a_conversation(mode, serve) -> None:
    """A program with a picture and files, the files as resources and in the next program, and a promise not kept."""
    async with serve(mode) as client:
        assert "run_python" in (client.instructions or "")
        drawn = await client.call_tool("run_python", {"code": PICTURE})
        assert not drawn.is_error, text_of(drawn)
        told = drawn.structured_content
        assert (told["status"], told["stdout"], told["value"]) == ("ok", "drawn\n", "42")
        assert [one.mime_type for one in drawn.content if isinstance(one, ImageContent)] == ["image/png"]
        links = {one.name: one.uri for one in drawn.content if isinstance(one, ResourceLink)}
        assert set(links) == {"chart.png", "data.csv", "raw.bin"}

        (csv,) = (await client.read_resource(links["data.csv"])).contents
        (raw,) = (await client.read_resource(links["raw.bin"])).contents
        assert isinstance(csv, TextResourceContents)
        assert csv.text == "x,y\n1,2\n"
        assert isinstance(raw, BlobResourceContents)
        assert base64.b64decode(raw.blob) == bytes(range(256))
        shown = await client.call_tool("read_output", {"exec_id": told["exec_id"], "path": "chart.png"})
        assert [one.mime_type for one in shown.content if isinstance(one, ImageContent)] == ["image/png"]

        again = {"code": "print(open('d/in.csv').read())", "files": [{"name": "d/in.csv", "uri": links["data.csv"]}]}
        assert (await client.call_tool("run_python", again)).structured_content["stdout"] == "x,y\n1,2\n\n"

        contract = [{"filename": "report.md", "description": "A report.", "min_bytes": 10}]
        broken = await client.call_tool("run_python", {"code": "open('report.md', 'w')", "contract": contract})
        assert broken.is_error
        assert broken.structured_content["status"] == "contract_failed"
        assert "has no bytes" in broken.structured_content["hint"]
        assert "hint: " in text_of(broken)

        listed = (await client.call_tool("list_runs", {})).structured_content["runs"]
        assert [run["status"] for run in listed] == ["contract_failed", "ok", "ok"]


@pytest.mark.parametrize("mode", MODES)
async def test_what_is_refused(mode, serve, tmp_path) -> None:
    """Ways out of a run's folder, wrong arguments and unknown tools: each with a sentence, none with a path of ours."""
    async with serve(mode) as client:
        told = (await client.call_tool("run_python", {"code": PICTURE})).structured_content
        at = f"isorun://runs/{told['exec_id']}/out"
        said = []
        for uri in (f"{at}/../work/user_code.py", f"{at}/%2e%2e/x", f"{at}/link.txt", f"{at}/result.json", "file:///x"):
            with pytest.raises(MCPError) as caught:
                await client.read_resource(uri)
            said.append(str(caught.value))
        with pytest.raises(MCPError, match="'rm' is not a tool; the tools are run_python, read_output, list_runs"):
            await client.call_tool("rm", {})
        for name, arguments in (
            ("run_python", {}),
            ("run_python", {"code": "1", "timeout_s": "soon"}),
            ("run_python", {"code": "1", "inputs": {"a": {"path": "/etc/passwd"}}}),
            ("run_python", {"code": "1", "contract": []}),
            ("read_output", {"exec_id": told["exec_id"], "path": "../run.json"}),
            ("read_output", {"exec_id": told["exec_id"], "path": "link.txt"}),
            ("read_output", {"exec_id": "mcp-0", "path": "a"}),
            ("list_runs", {"limit": "all"}),
        ):
            answer = await client.call_tool(name, arguments)
            assert answer.is_error, (name, arguments)
            said.append(text_of(answer))
        assert len((await client.call_tool("list_runs", {})).structured_content["runs"]) == 1
    for text in said:
        assert text
        assert str(tmp_path) not in text
        assert "Traceback" not in text
        assert "root:" not in text


@pytest.mark.parametrize("mode", MODES)
async def test_a_cancelled_call_ends_its_run(mode, serve) -> None:
    """Output comes while the program runs; after the client's cancel the run ends, and the next call is answered."""
    begun = asyncio.Event()
    told: list[tuple[float, str | None]] = []

    async def progress(count: float, total: float | None, message: str | None) -> None:
        told.append((count, message))
        begun.set()

    async with serve(mode) as client:
        call = asyncio.create_task(client.call_tool("run_python", {"code": ENDLESS}, progress_callback=progress))
        await begun.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        status = "running"
        while status == "running":
            (run,) = (await client.call_tool("list_runs", {})).structured_content["runs"]
            status = run["status"]
        assert status == "cancelled"
        log = await client.call_tool("read_output", {"exec_id": run["exec_id"], "path": "logs/user.log"})
        assert "begun" in text_of(log)
    assert told[0] == (1, "begun")


async def test_huge_output_is_a_bounded_answer(serve) -> None:
    """A hundred thousand lines: few messages of progress, an answer of some kilobytes, and the rest part by part."""
    told: list[float] = []

    async def progress(count: float, total: float | None, message: str | None) -> None:
        told.append(count)

    async with serve("auto") as client:
        begun = time.monotonic()
        answer = await client.call_tool(
            "run_python", {"code": "for n in range(100_000): print('line', n)"}, progress_callback=progress
        )
        took = time.monotonic() - begun
        assert len(answer.model_dump_json()) < 60_000
        found = answer.structured_content
        assert found["stdout"].startswith("[... ")
        assert found["stdout"].endswith("line 99999\n")
        assert told == sorted(set(told))
        assert len(told) <= took * 10 + 3
        part = await client.call_tool(
            "read_output", {"exec_id": found["exec_id"], "path": "logs/user.log", "offset": 1000}
        )
        assert "go on with offset=" in text_of(part)
        assert len(text_of(part)) < 60_000


def message(number: int, method: str, **params: Any) -> bytes:  # noqa: ANN401 - JSON
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode() + b"\n"


HELLO = message(
    1, "initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo={"name": "test", "version": "0"}
) + (b'{"jsonrpc": "2.0", "method": "notifications/initialized"}\n')


def run_call(code: str) -> bytes:
    return message(2, "tools/call", name="run_python", arguments={"code": code}, _meta={"progressToken": 7})


@contextmanager
def server(environment: dict[str, str], folder: Path, *words: str) -> Iterator["subprocess.Popen[bytes]"]:
    """The server's process, to be written to; it is gone behind the block."""
    command = [sys.executable, "-m", "isorun", "mcp", *words]
    pipe = subprocess.PIPE
    with (folder / "stderr").open("wb") as errors:
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, env=environment, cwd=folder)
    try:
        with process:
            yield process
            process.kill()
    finally:
        process.kill()


def until_begun(process: "subprocess.Popen[bytes]") -> list[dict[str, Any]]:
    """Start `ENDLESS` and read until its output came."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(HELLO + run_call(ENDLESS))
    process.stdin.flush()
    found = []
    for line in process.stdout:
        found.append(json.loads(line))
        if found[-1].get("method") == "notifications/progress":
            break
    return found


def below(pid: int) -> set[tuple[int, str]]:
    """Every process that *pid* started, and those that these started: each with the moment it was started at."""
    children: dict[int, list[tuple[int, str]]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append((int(path.parent.name), fields[19]))
    found: set[tuple[int, str]] = set()
    above = [pid]
    while above:
        for one in children.get(above.pop(), []):
            found.add(one)
            above.append(one[0])
    return found


def alive(processes: set[tuple[int, str]]) -> set[tuple[int, str]]:
    found = set()
    for pid, began in processes:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[19] == began and fields[0] != "Z":
            found.add((pid, began))
    return found


def wait_gone(processes: set[tuple[int, str]]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while alive(processes) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(processes)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_runs_on_after_the_server(number, environment, tmp_path) -> None:
    """Killed, or asked to end while the client keeps its pipes open: no process of it is left, nor of the program."""
    with server(environment, tmp_path) as process:
        until_begun(process)
        started = below(process.pid)
        assert started
        process.send_signal(number)
        code = process.wait(DEADLINE_S)
        wait_gone(started)
    assert code == (130 if number == signal.SIGTERM else -number)
    assert (tmp_path / "stderr").read_bytes() == b""
    if number == signal.SIGTERM:
        (stored,) = (tmp_path / "runs").glob("codegen_mcp-*/out/result.json")
        assert json.loads(stored.read_bytes())["status"] == "cancelled"


def test_the_end_of_stdin_ends_it(environment, tmp_path) -> None:
    """A client that closes its end and waits, as clients do first: the run ends as cancelled, the exit code is 0."""
    with server(environment, tmp_path) as process:
        until_begun(process)
        started = below(process.pid)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(DEADLINE_S) == 0
        wait_gone(started)
    assert (tmp_path / "stderr").read_bytes() == b""
    (stored,) = (tmp_path / "runs").glob("codegen_mcp-*/out/result.json")
    assert json.loads(stored.read_bytes())["status"] == "cancelled"


def test_nothing_but_the_protocol_is_on_stdout(environment, tmp_path) -> None:
    """Neither what is not JSON, nor a program that prints messages of the protocol, puts a line there."""
    forged = 'print(\'{"jsonrpc": "2.0", "id": 2, "result": {}}\', flush=True)'
    lines = HELLO + b"not JSON\n\xff\xfe\n" + run_call(f"{forged}\nimport os\nos.write(1, b'x\\n')")
    with server(environment, tmp_path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(lines)
        process.stdin.flush()
        found = []
        for line in process.stdout:
            found.append(json.loads(line))
            if found[-1].get("id") == 2:
                break
        process.stdin.close()
        rest = process.stdout.read()
    assert all(one["jsonrpc"] == "2.0" for one in found)
    assert found[-1]["result"]["structuredContent"]["stdout"].endswith("x\n")
    assert rest == b""


def test_a_server_that_cannot_start_says_why(environment, tmp_path) -> None:
    """A bundle that is not there: one line on stderr, which clients keep in their logs, and nothing on stdout."""
    command = [sys.executable, "-m", "isorun", "mcp", "--bundle", str(tmp_path / "nothing")]
    done = subprocess.run(command, input=HELLO, capture_output=True, env=environment, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"isorun: ")
    assert b"nothing" in done.stderr
    assert done.stderr.count(b"\n") == 1
