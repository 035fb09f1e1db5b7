"""SPEC A5, A7 and A8 of tool calls: who may call what, how long, what is told, and what a dead supervisor costs.

Clauses. Deny by default: decorated tools of the run's bundle that the run was granted ·
deadline per call and per tool, budgets, concurrency, a sync tool blocks nobody · prints and
logs in infra.log · only a ToolError's text reaches the program · records and index in out/
· `[supervisor] ready …`, AWS line, `[tool_call] …` · the environment by allow-list, nothing
on argv, big bundles by stdin · network none · a dead supervisor is replaced, a dead host
leaves none.
"""

import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import isorun
from tests.bundles import inspected, supervisors, write_bundle
from tests.conformance.conftest import IN_CONTAINERS, SECRETS, options_for
from tests.servers import answering, postgres_server, redis_server

TOOLS = '''
import asyncio, ctypes, os, signal, socket, subprocess, sys, time

@isorun.tool
def add(a: int, b: int = 1) -> int:
    """Add."""
    return a + b

def helper(a: int) -> int:
    """No tool."""
    return a

class Box:
    secret = "s3cret"
    @isorun.tool
    def method(self) -> str:
        """A method."""
        return "of an instance"
    def helper(self) -> str:
        """No tool."""
        return self.secret

box = Box()

@isorun.tool
def context(ctx: isorun.ToolContext) -> dict:
    """What a tool knows."""
    return {
        "output_dir": str(ctx.output_dir), "user": ctx.user_id, "turn": ctx.turn_id, "exec": ctx.exec_id,
        "seconds": ctx.deadline - time.monotonic(), "env": dict(ctx.env), "log": ctx.log.name,
    }

@isorun.tool
def process() -> dict:
    """What can be seen of the process."""
    words = open("/proc/self/cmdline", "rb").read()
    return {"pid": os.getpid(), "environ": dict(os.environ), "argv": words, "cwd": os.getcwd()}

@isorun.tool
def sleep(seconds: float) -> float:
    """Block a thread."""
    time.sleep(seconds)
    return time.monotonic()

@isorun.tool
async def wait(seconds: float) -> float:
    """Block nobody."""
    await asyncio.sleep(seconds)
    return time.monotonic()

@isorun.tool(timeout_s=0.2)
async def short(seconds: float) -> str:
    """Has a fifth of a second."""
    await asyncio.sleep(seconds)
    return "done"

@isorun.tool(max_calls=2)
def twice() -> str:
    """May be called two times."""
    return "done"

@isorun.tool
def prints(text: str, ctx: isorun.ToolContext) -> None:
    """Say it in every way."""
    print("out", text)
    print("err", text, file=sys.stderr)
    ctx.log.warning("log %s", text)
    sys.stdout.write("no end " + text)
    subprocess.run(["echo", "child", text], check=True)

@isorun.tool
def says(text: str) -> None:
    """Refuse in its own words."""
    raise isorun.ToolError(text)

@isorun.tool
async def fails(text: str) -> None:
    """Fail."""
    raise ValueError(text)

@isorun.tool
def writes(path: str, data: bytes, ctx: isorun.ToolContext) -> str:
    """Write a file."""
    with ctx.open_output(path) as file:
        file.write(data)
    return str(ctx.output_dir / path)

@isorun.tool
def reaches(port: int) -> bool:
    """Whether a port of the loopback takes a connection."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True

@isorun.tool
async def blocks(path: str) -> None:
    """Hold the event loop, as no coroutine should, once *path* is made."""
    open(path, "w").close()
    time.sleep(600)

@isorun.tool
async def stalls() -> None:
    """Hold the event loop for ever."""
    time.sleep(600)

@isorun.tool
def ends(how: str) -> None:
    """End the process."""
    if how == "exit":
        os._exit(3)
    if how == "segfault":
        ctypes.string_at(0)
    os.kill(os.getpid(), signal.SIGKILL)
'''
ENDS = ("exit", "segfault", "SIGKILL")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(
        tmp_path_factory.mktemp("bundles") / "probes",
        probe=TOOLS,
        other='@isorun.tool\ndef f() -> int:\n    """Another alias."""\n    return 5\n',
    )


@pytest.fixture(scope="module")
def tooled(rt, new_backend, bundle: Path, tmp_path_factory) -> Iterator[isorun.SyncRuntime]:
    """One Runtime with the bundle, for the tests that break nothing. It asks for `rt` to find a lack out there."""
    root = tmp_path_factory.mktemp("tooled")
    with isorun.SyncRuntime(**options_for(new_backend(), root, pool_size=0, bundle=bundle)) as opened:
        yield opened


Run = Callable[..., isorun.RunResult]


@pytest.fixture
def mine() -> Callable[[], list[int]]:
    """The supervisors that were started since the test began."""
    before = frozenset(supervisors())
    return lambda: [pid for pid in supervisors() if pid not in before]


@pytest.fixture
def call(tooled: isorun.SyncRuntime) -> Run:
    """`call(code)`: a program in that Runtime, which must end well; ten seconds unless told."""

    def execute(code: str, **options: object) -> isorun.RunResult:
        result = tooled.execute(PRELUDE + code, **{"timeout_s": 10, **options})
        assert result.status == "ok", result.report_text
        return result

    return execute


#: `said(coroutine)`: the result, or the error's type and text.
PRELUDE = """
import asyncio, json, os, sys, time
async def said(call):
    try:
        return await call
    except agent_io_tools.ToolError as error:
        return [type(error).__name__, str(error)]
def by_id(tool_id, **params):
    return said(agent_io_tools.tool_call(tool_id=tool_id, params=params))
def show(*values):
    print(json.dumps(values, default=str))
"""


def shown(result: isorun.RunResult) -> list[object]:
    """What the program's last `show` printed."""
    values: list[object] = json.loads(result.stdout.splitlines()[-1])
    return values


def infra(result: isorun.RunResult) -> str:
    return (result.out_dir / "logs" / "infra.log").read_text()


DENIED = ["ToolDenied", "no such tool for this run"]

# Who may call what


def test_a_granted_tool_is_called(call: Run) -> None:
    """By proxy, by fn and by id, with its defaults; a method too; the tools of every alias without a word."""
    result = call("""
show(await probe.add(a=1, b=2), await agent_io_tools.tool_call(fn=probe.add, params={"a": 4}, call_reason="why"),
     await by_id("probe.add", a=7), agent_io_tools.tool_call_sync(tool_id="other.f"), await probe.method())
""")
    assert shown(result) == [3, 5, 8, 5, "of an instance"]
    assert [(c["tool_id"], c["status"], c["reason"]) for c in result.tool_calls] == [
        ("probe.add", "ok", ""),
        ("probe.add", "ok", "why"),
        ("probe.add", "ok", ""),
        ("other.f", "ok", ""),
        ("probe.method", "ok", ""),
    ]


NOT_TOOLS = (
    "probe.helper", "probe.Box", "probe.box", "probe.box.method", "probe.Box.method", "probe._call", "probe.__class__",
    "probe.__init__", "probe.add.__call__", "probe.add.__wrapped__", "probe.os", "probe.os.system", "os.system",
    "builtins.exec", "local_tools.write_note", "add", ".add", "probe.", "", "isorun.tool",
)  # fmt: skip


def test_what_is_no_tool_is_denied(call: Run) -> None:
    """Undecorated neighbours, private and dunder names, modules, other bundles' tools: one answer for all."""
    result = call(f"show(*[await by_id(name) for name in {NOT_TOOLS}])")
    assert shown(result) == [DENIED] * len(NOT_TOOLS)
    assert {c["status"] for c in result.tool_calls} == {"ToolDenied"}


def test_what_was_not_granted_is_denied_like_what_is_not_there(call: Run) -> None:
    """`tools=[…]` grants those; the others have no proxy, no other text, and do nothing. () grants none."""
    code = """
proxy = hasattr(probe, "twice") if "probe" in globals() else None
show(await by_id("probe.add", a=1), await by_id("other.f"), proxy)
"""
    assert shown(call(code, tools=["probe.add"])) == [2, DENIED, False]
    assert shown(call(code, tools=())) == [DENIED, DENIED, None]


def test_an_unknown_grant_is_refused_before_anything_starts(tooled: isorun.SyncRuntime, bundle: Path) -> None:
    """A slip in the ids is the caller's error, with the ids that there are; no folder of a run is made."""
    before = sorted(tooled.root.iterdir())
    for tools, text in (
        (["probe.nope"], r"the bundle has no tool 'probe\.nope': it has probe\.add, "),
        (["probe.helper"], r"the bundle has no tool 'probe\.helper'"),
        ("probe.add", "tools must be a list of ids such as local_tools.write_note"),
        ([1], "tools must be a list of ids"),
    ):
        with pytest.raises(isorun.InvalidRequest, match=text):
            tooled.execute("pass", tools=tools)
    assert sorted(tooled.root.iterdir()) == before


def test_without_a_bundle_no_tool_can_be_granted(rt: isorun.SyncRuntime) -> None:
    """The refusal says what to give."""
    with pytest.raises(isorun.InvalidRequest, match="no bundle is loaded; give bundle="):
        rt.execute("pass", tools=["probe.add"])


def test_arguments_are_checked_before_the_tool_runs(call: Run) -> None:
    """What does not fit is the program's error, by place, without the value; the context cannot be given."""
    result = call("""
show(*[await by_id("probe.add", **p) for p in ({}, {"a": "1"}, {"a": True}, {"a": 1, "c": 2})],
     await by_id("probe.context", ctx={}))
""")
    assert shown(result) == [
        ["ToolInputInvalid", "probe.add: a: Field required"],
        ["ToolInputInvalid", "probe.add: a: Input should be a valid integer"],
        ["ToolInputInvalid", "probe.add: a: Input should be a valid integer"],
        ["ToolInputInvalid", "probe.add: c: Extra inputs are not permitted"],
        ["ToolInputInvalid", "probe.context: ctx: Extra inputs are not permitted"],
    ]


def test_the_context_tells_of_the_run(call: Run) -> None:
    """User, turn, execution and deadline are the run's own; env is empty where nothing is allowed."""
    result = call("show(await probe.context())", user_id="ana", turn_id="7", exec_id="my-own-id")
    (told,) = shown(result)
    assert 50 < told.pop("seconds") <= 60  # Limits.tool_call_s
    assert told == {
        "output_dir": "/workspace/out",
        "user": "ana",
        "turn": "turn_7",
        "exec": "my-own-id",
        "env": {},
        "log": "isorun.tool.probe.context",
    }


# Ceilings


def test_deadlines_per_tool_and_per_call(call: Run) -> None:
    """Each is ended at its time, sync tools too, and a call may only shorten it."""
    result = call("""
began = time.monotonic()
show(await said(probe.short(seconds=30)), await said(probe.short(seconds=0)),
     *await asyncio.gather(*[said(agent_io_tools.tool_call(tool_id=i, params={"seconds": 30}, timeout_s=0.3))
                             for i in ("probe.sleep", "probe.wait")]),
     time.monotonic() - began)
""")
    short, done, sleep, wait, seconds = shown(result)
    assert short == ["ToolTimeout", "probe.short took longer than 0.2 s"]
    assert done == "done"
    assert (sleep[0], wait[0]) == ("ToolTimeout", "ToolTimeout")
    assert re.fullmatch(r"probe\.sleep took longer than 0\.(3|29\d) s", sleep[1])
    assert seconds < 8


def test_budgets_of_a_run_and_of_a_tool(own, bundle: Path) -> None:
    """Calls beyond either are refused with the number, and the next run begins anew."""
    code = (
        PRELUDE
        + """
show([await said(probe.twice()) for _ in range(3)], [await by_id("probe.add", a=1) for _ in range(5)])
"""
    )
    with own(bundle=bundle, limits=isorun.Limits(tool_calls=6)) as runtime:
        for _ in range(2):
            result = runtime.execute(code, timeout_s=10)
            of_tool, of_run = shown(result)
            assert of_tool == [
                "done",
                "done",
                ["ToolBudgetExceeded", "this run may call probe.twice 2 times (max_calls of its @isorun.tool)"],
            ]
            assert of_run == [
                2,
                2,
                2,
                *[["ToolBudgetExceeded", "this run may make 6 tool calls (ISORUN_MAX_TOOL_CALLS)"]] * 2,
            ]
            assert len(result.tool_calls) == 6


def test_no_more_calls_at_once_than_the_limit(own, bundle: Path) -> None:
    """With two at once, six calls of a quarter second take three quarters, and all are answered."""
    code = PRELUDE + "began = time.monotonic()\nawait asyncio.gather(*[probe.wait(seconds=0.25) for _ in range(6)])\n"
    with own(bundle=bundle, limits=isorun.Limits(tool_calls_at_once=2)) as runtime:
        result = runtime.execute(code + "show(time.monotonic() - began)", timeout_s=10)
        assert shown(result)[0] >= 0.74
        result = runtime.execute(code.replace("range(6)", "range(2)") + "show(time.monotonic() - began)", timeout_s=10)
        assert shown(result)[0] < 0.74  # the control: two of them overlap


def test_a_sync_tool_does_not_block_others(call: Run) -> None:
    """While eight sync tools sleep in their threads, calls of this program are answered in the meantime."""
    result = call("""
slow = [asyncio.ensure_future(probe.sleep(seconds=1.5)) for _ in range(8)]
await asyncio.sleep(0)
quick = [await probe.add(a=n) for n in range(20)]
show(quick, [task.done() for task in slow], len(await asyncio.gather(*slow)))
""")
    quick, done, ended = shown(result)
    assert (quick, done, ended) == (list(range(1, 21)), [False] * 8, 8)


# What is told


def test_what_a_tool_prints_goes_to_infra_log(call: Run) -> None:
    """By print, stderr, logging, without a newline and from a child process; never to the program."""
    result = call('await probe.prints(text="CANARY")')
    assert "CANARY" not in result.stdout + result.stderr
    lines = infra(result).splitlines()
    number = result.tool_calls[0]["call_id"]
    for said in ("out CANARY", "err CANARY", "WARNING isorun.tool.probe.prints log CANARY", "no end CANARY"):
        assert any(line.endswith(f" INFO [tool] probe.prints {number}: {said}") for line in lines), said


def test_only_a_tool_errors_text_reaches_the_program(call: Run) -> None:
    """A ToolError speaks for itself; of any other exception the program learns the number of the call."""
    result = call('show(await said(probe.says(text="mine to say")), await said(probe.fails(text="hush-PLANTED")))')
    own_words, silence = shown(result)
    number = result.tool_calls[1]["call_id"]
    assert own_words == ["ToolFailed", "mine to say"]
    assert silence == ["ToolFailed", f"the tool failed (call {number})"]
    log = infra(result)
    assert f"[tool] probe.fails {number}: ValueError: hush-PLANTED" in log
    assert re.search(r"\[tool\] probe\.fails \d+:   File .*probe\.py.*, line \d+, in fails", log)
    for path in result.out_dir.rglob("*"):
        if path.is_file() and path.name not in ("infra.log", "result.json"):
            # But for what the program itself sent: its own code, its own params.
            text = (
                path.read_text(errors="replace")
                .replace('text="hush-PLANTED"', "")
                .replace('"text": "hush-PLANTED"', "")
            )
            assert "hush-PLANTED" not in text, path


def test_every_call_has_a_record_and_the_index_names_it(call: Run) -> None:
    """A file per call with params and result, bytes by their digest; the index and the result show the same."""
    result = call("""
await agent_io_tools.tool_call(tool_id="probe.writes", params={"path": "a/b", "data": b"1234"}, call_reason="to see")
await said(probe.says(text="no"))
""")
    index = json.loads((result.out_dir / "tool_calls_index.json").read_text())
    assert (index["schema"], index["exec_id"], index["calls"]) == (1, result.exec_id, list(result.tool_calls))
    first, second = (json.loads((result.out_dir / c["record"]).read_text()) for c in result.tool_calls)
    assert first["params"]["path"] == "a/b"
    assert first["params"]["data"]["bytes"] == 4
    assert (first["result"], first["reason"], first["status"]) == ("/workspace/out/a/b", "to see", "ok")
    assert (second["error"], second["status"], "result" in second) == ("no", "ToolFailed", False)
    for number, entry in enumerate(result.tool_calls, 1):
        name = re.escape(entry["tool_id"])
        assert re.fullmatch(rf"{name}-\d{{8}}T\d{{6}}\.\d{{6}}-{number}\.json", entry["record"])
    assert (result.out_dir / "a" / "b").read_bytes() == b"1234"


def test_each_call_has_its_line(call: Run) -> None:
    """`[tool_call] <tool_id> <call id> ok|<error type> <ms>`, in the order in which the calls ended."""
    result = call('await probe.add(a=1); await said(probe.says(text="no")); await by_id("no.such")')
    found = re.findall(r"\[tool_call\] (\S+) (\d+) (\S+) (\d+(?:\.\d+)?)$", infra(result), re.MULTILINE)
    assert [(tool, status) for tool, _, status, _ in found] == [
        ("probe.add", "ok"),
        ("probe.says", "ToolFailed"),
        ("no.such", "ToolDenied"),
    ]
    assert [int(number) for _, number, _, _ in found] == [c["call_id"] for c in result.tool_calls]


@pytest.fixture
def listener() -> Iterator[int]:
    """A port of our loopback that takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@pytest.fixture
def redis() -> Iterator[int]:
    """A port of our loopback at which a Redis answers that wants a password."""
    with answering(b"-NOAUTH Authentication required.\r\n") as port:
        yield port


@pytest.fixture
def postgres() -> Iterator[int]:
    """A port of our loopback at which a PostgreSQL asks for a password."""
    with answering(b"R" + struct.pack("!ii", 12, 5) + b"salt") as port:
        yield port


@pytest.fixture
def nobody() -> int:
    """A port of our loopback at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_the_supervisor_says_what_it_found(own, bundle: Path, redis: int, postgres: int, nobody: int) -> None:
    """redis and postgres are ok, not configured or unreachable, and why; AWS keys are present or absent; no secret."""
    base = isorun.Settings()
    url = f"postgresql://u:hush-db@127.0.0.1:{postgres}/d"
    cases = [
        (base, "redis=not configured postgres=not configured", "absent"),
        (replace(base, redis_host="127.0.0.1", redis_port=redis), "redis=ok postgres=not configured", "absent"),
        (
            replace(base, redis_url=f"redis://127.0.0.1:{nobody}/0", database_url=url, aws_access_key_id="hush-key"),
            "redis=unreachable (connection refused) postgres=ok",
            "present, passed to the supervisor only",
        ),
        (
            replace(base, redis_host="x" * 70, postgres_host="127.0.0.1", postgres_port=nobody, aws_profile="hush-p"),
            "redis=unreachable (no host can have that name) postgres=unreachable (connection refused)",
            "present, passed to the supervisor only",
        ),
        (
            replace(base, redis_url="redis://127.0.0.1:notaport/0"),
            "redis=unreachable (REDIS_URL names no host and port) postgres=not configured",
            "absent",
        ),
        (
            replace(base, redis_host="127.0.0.1", redis_port=postgres),
            "redis=unreachable (what answers is not Redis) postgres=not configured",
            "absent",
        ),
    ]
    for settings, services, keys in cases:
        with own(bundle=bundle, settings=settings) as runtime:
            log = infra(runtime.execute("pass", timeout_s=10))
        assert f" INFO [supervisor] ready bundle=probes {services}\n" in log
        assert f"[supervisor] AWS credentials: {keys}\n" in log
        assert "hush" not in log


@pytest.mark.parametrize("service", ["redis", "postgres"])
def test_whether_a_service_answers_is_the_supervisors_word(own, bundle: Path, service: str, request) -> None:
    """A supervisor without network reaches nothing, whatever this process does; its tools are not told the address."""
    port = request.getfixturevalue(service)
    given = {f"{service}_host": "127.0.0.1", f"{service}_port": port, "network_mode": "none"}
    with own(bundle=bundle, settings=replace(isorun.Settings(), **given)) as runtime:
        result = runtime.execute(PRELUDE + "show(await probe.process())", timeout_s=10)
    assert re.search(rf" {service}=unreachable \((network is unreachable|connection refused)\)", infra(result))
    with socket.create_connection(("127.0.0.1", port)):
        pass  # the control: this process reaches it
    (process,) = shown(result)
    assert not {name for name in process["environ"] if name.startswith("ISORUN")}


def test_real_servers_are_ok_without_their_passwords(own, bundle: Path, tmp_path: Path, require) -> None:
    """A Redis and a PostgreSQL that want a password, which the supervisor is not told."""
    rules = tmp_path / "redis.conf"
    rules.write_text("requirepass hush-redis\n")
    with redis_server(require, str(rules)) as redis, postgres_server(require) as postgres:
        settings = replace(
            isorun.Settings(),
            redis_url=f"redis://:hush-redis@127.0.0.1:{redis}/0",
            database_url=f"postgresql://app:hush-db@127.0.0.1:{postgres}/app",
        )
        with own(bundle=bundle, settings=settings) as runtime:
            log = infra(runtime.execute("pass", timeout_s=10))
    assert " INFO [supervisor] ready bundle=probes redis=ok postgres=ok\n" in log
    assert "hush" not in log


def test_without_a_bundle_there_is_no_such_line(run) -> None:
    """No supervisor is ready where none is."""
    assert "[supervisor]" not in infra(run("pass"))


# What the process gets


def test_the_supervisor_gets_the_allowed_names_and_no_others(own, bundle: Path, mine, kind: str) -> None:
    """Base names, the allow-list, its bundle: no secret of ours is there, and nothing is on its command line.

    Nor does an engine tell of any: not even of those that are allowed.
    """
    environ = {
        "ISORUN_TOOL_ENV": "MY_TOKEN, NOT_SET",
        "MY_TOKEN": "t0ken",
        "OTHER": "x",
        "AWS_REGION": "eu-1",
        **SECRETS,
    }
    environ = {name: value for name, value in environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    settings = isorun.Settings.load(environ=environ)
    with own(bundle=bundle, settings=settings) as runtime:
        result = runtime.execute(PRELUDE + "show(await probe.process(), await probe.context())", timeout_s=10)
        (pid,) = mine()
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        told = inspected() if kind in IN_CONTAINERS else b""
    process, context = shown(result)
    aws = {name for name in SECRETS if name.startswith("AWS_")} | {"NO_PROXY"}
    allowed = {"MY_TOKEN", *aws}
    base = {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "SSL_CERT_FILE"}
    base |= {"SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "RUNTIME_GLOBALS_JSON"}
    assert set(process["environ"]) - base == allowed
    assert set(context["env"]) == allowed
    assert (context["env"]["MY_TOKEN"], context["env"]["AWS_REGION"]) == ("t0ken", "hush-region")
    assert process["cwd"] == "/"
    if kind in IN_CONTAINERS:
        known = [value.encode() for name, value in environ.items() if name.startswith(("AWS_", "MY_"))]
        assert [value for value in known if value in words + told] == []
        return
    assert process["pid"] == pid
    _, *argv = words.decode().rstrip("\0").split("\0")
    assert (argv[:2], len(argv), argv[3].isdigit()) == (["-I", "-c"], 4, True)
    assert argv[2].endswith("; from isorun.supervisor.process import main; main()")
    assert all(text not in words.decode() for text in ("t0ken", "hush", str(bundle)))
    assert json.loads(process["environ"]["RUNTIME_GLOBALS_JSON"])["bundle"] == str(bundle)


def test_a_bundle_of_hundreds_of_entries_goes_by_stdin(own, tmp_path: Path) -> None:
    """What is too long for an environment is not in it, and every tool is there."""
    source = '@isorun.tool\ndef f() -> list[str]:\n    """F."""\n    import os\n    return sorted(os.environ)\n'
    folder = write_bundle(tmp_path / "bundle", **{f"alias_{n:04}_{'x' * 40}": source for n in range(400)})
    with own(bundle=folder) as runtime:
        assert len(runtime.tools) == 400
        result = runtime.execute(PRELUDE + f"show(await alias_0399_{'x' * 40}.f())", timeout_s=20)
    assert "RUNTIME_GLOBALS_JSON" not in shown(result)[0]


@pytest.mark.parametrize("name", ["ISORUN_NETWORK_MODE", "PY_CODE_EXEC_NETWORK_MODE"])
def test_a_supervisor_without_network_reaches_nothing(own, bundle: Path, listener: int, name: str) -> None:
    """With mode none a tool cannot reach our loopback; the control, mode host, does."""
    for mode, reached in (("none", False), ("host", True)):
        settings = isorun.Settings.load(environ={name: mode})
        with own(bundle=bundle, settings=settings) as runtime:
            result = runtime.execute(PRELUDE + f"show(await probe.reaches(port={listener}))", timeout_s=10)
            assert shown(result) == [reached], result.report_text


# When it dies


@pytest.mark.parametrize("how", ENDS)
def test_a_supervisor_that_dies_is_replaced(own, bundle: Path, how: str, mine) -> None:
    """The call that was in flight is unavailable and journalled; the next of this run, and of another, is answered."""
    with own(bundle=bundle) as runtime:
        (before,) = mine()
        other = runtime.start(
            PRELUDE + "print('up', flush=True)\nwhile await by_id('probe.add', a=1) == 2: time.sleep(0.01)\n"
            "while (last := await by_id('probe.add', a=1)) != 2: time.sleep(0.01)\nshow(last)"
        )
        next(event for event in other.events() if event.kind == "output")
        code = f"""
one = await probe.add(a=1)
await asyncio.sleep(0.2)  # until its record has left the supervisor: that goes in batches
show(one, await said(probe.ends(how={how!r})), await probe.add(a=2))
"""
        result = runtime.execute(PRELUDE + code, timeout_s=30)
        first, lost, after = shown(result)
        assert (first, after) == (2, 3)
        assert lost == [
            "ToolUnavailable",
            "the supervisor was restarted: this call may or may not have been carried out",
        ]
        assert [(c["tool_id"], c["status"]) for c in result.tool_calls] == [
            ("probe.add", "ok"),
            ("probe.ends", "ToolUnavailable"),
            ("probe.add", "ok"),
        ]
        record = json.loads((result.out_dir / result.tool_calls[1]["record"]).read_text())
        assert record["error"] == "the supervisor died: this call may or may not have been carried out"
        log = infra(result)
        assert re.search(r"ERROR \[supervisor\] the supervisor died \((exit code 3|signal 11|signal 9)\)", log)
        assert "INFO [supervisor] the supervisor was started anew" in log
        assert other.result().status == "ok"
        assert shown(runtime.execute(PRELUDE + "show(await probe.add(a=5))", timeout_s=20)) == [6]
        assert mine() != [before]
        assert len(mine()) == 1


def test_a_call_that_ended_just_before_is_journalled_as_unreported(own, bundle: Path) -> None:
    """What a dead supervisor had done and not yet told is in the journal by name, in the order in which it began."""
    with own(bundle=bundle) as runtime:
        code = "show([await probe.add(a=n) for n in range(5)], await said(probe.ends(how='SIGKILL')))"
        result = runtime.execute(PRELUDE + code, timeout_s=30)
    assert shown(result)[0] == [1, 2, 3, 4, 5]
    told = [(c["tool_id"], c["status"]) for c in result.tool_calls]
    assert told[-1] == ("probe.ends", "ToolUnavailable")
    assert [tool for tool, _ in told[:-1]] == ["probe.add"] * 5
    assert {status for _, status in told[:-1]} <= {"ok", "unreported"}


def test_one_that_dies_again_and_again_is_given_up_and_tried_again(own, bundle: Path, mine) -> None:
    """After five deaths within a minute calls say that it is gone; the next run gets a new one."""
    code = PRELUDE + "show(*[await said(probe.ends(how='exit')) for _ in range(7)], await by_id('probe.add', a=1))"
    with own(bundle=bundle) as runtime:
        result = runtime.execute(code, timeout_s=60)
        *deaths, after = shown(result)
        assert {error for error, _ in deaths} == {"ToolUnavailable"}
        assert after == ["ToolUnavailable", "the supervisor is gone"]
        assert "the supervisor is not started again: supervisor: it died 5 times within 60 s" in infra(result)
        assert mine() == []
        for _ in range(2):
            again = runtime.execute(
                PRELUDE + "await asyncio.sleep(3)\nshow(await by_id('probe.add', a=1))", timeout_s=20
            )
            assert shown(again) == [2], again.report_text


def test_one_that_answers_nobody_is_killed_and_replaced(own, bundle: Path, mine) -> None:
    """Where a run ends and its supervisor takes no notice; the next run has its tools."""
    with own(bundle=bundle, pool_size=0) as runtime:
        (first,) = mine()
        task = "asyncio.create_task(said(probe.stalls()))\nawait asyncio.sleep(0.3)\nshow('on')"
        result = runtime.execute(PRELUDE + task, timeout_s=20)
        assert shown(result) == ["on"]
        assert "the supervisor does not answer; it is killed" in infra(result)
        after = runtime.execute(PRELUDE + "show(await probe.add(a=1))", timeout_s=30)
        assert shown(after) == [2], after.report_text
        assert first not in mine()


def test_a_program_outlives_the_supervisor_it_does_not_need(own, bundle: Path, mine) -> None:
    """Killed from outside while a program works without tools, it changes nothing of the outcome."""
    with own(bundle=bundle) as runtime:
        run = runtime.start("print('up', flush=True)\nimport time\ntime.sleep(1)\nprint('done')")
        next(event for event in run.events() if event.kind == "output")
        (pid,) = mine()
        os.kill(pid, signal.SIGKILL)
        result = run.result()
        assert (result.status, result.stdout) == ("ok", "up\ndone\n")


HOST = """
import os, sys, time
import isorun
from isorun.testing.fake import FakeBackend
runtime = isorun.SyncRuntime(
    backend=FakeBackend(), settings=isorun.Settings(), bundle=sys.argv[1], workspace_root=sys.argv[2], pool_size=0
)
runtime.__enter__()
result = runtime.execute("print(agent_io_tools.tool_call_sync(tool_id='probe.process')['pid'])")
if sys.argv[3:]:
    runtime.start(f"agent_io_tools.tool_call_sync(tool_id='probe.blocks', params={{'path': {sys.argv[3]!r}}})")
    while not os.path.exists(sys.argv[3]):
        time.sleep(0.01)
print(result.stdout, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("blocked", [False, True])
def test_a_host_that_is_killed_leaves_no_supervisor(bundle: Path, tmp_path: Path, blocked: bool) -> None:
    """kill -9 of the process that holds the Runtime ends its supervisor too, also one whose loop stands still."""
    words = [sys.executable, "-c", HOST, bundle, tmp_path / "root", *([tmp_path / "blocked"] if blocked else [])]
    host = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert host.stdout is not None
        pid = int(host.stdout.readline())
        watched = os.pidfd_open(pid)
        host.kill()
        host.wait()
        assert _ends(watched)
        os.close(watched)
    finally:
        host.kill()
        host.communicate()


def _ends(pidfd: int, seconds: float = 10.0) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def test_leaving_the_runtime_ends_the_supervisor(own, bundle: Path, mine) -> None:
    """Also with a tool that does not come back."""
    with own(bundle=bundle) as runtime:
        runtime.execute(
            PRELUDE
            + "await said(agent_io_tools.tool_call(tool_id='probe.sleep', params={'seconds': 60}, timeout_s=0.1))",
            timeout_s=10,
        )
        (pid,) = mine()
        watched = os.pidfd_open(pid)
        began = time.monotonic()
    assert _ends(watched, 0.1)
    assert time.monotonic() - began < 8
    os.close(watched)
    assert mine() == []
