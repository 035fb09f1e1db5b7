"""DESIGN 4 and 6 beside the rows: handles, events, many runs, what is left behind.

Clauses: events in order, late subscribers get them too, the outcome is last · cancel gives
a partial result · several runs at once do not mix · two Runtimes on one root · SyncRuntime
and `isorun.run`, inside a running loop too · pool refill · zygote rotation and death ·
leaving a Runtime leaves no process, descriptor, cgroup or temporary file.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conformance.conftest import options_for

import isorun
from isorun.core.text import shown
from isorun.runtime import finish
from isorun.store.collect import Collected


def wait_until(holds: Callable[[], bool], within_s: float = 20) -> None:
    """Return once *holds*; fails after *within_s* seconds."""
    ended = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < ended, "it never came to hold"
        threading.Event().wait(0.005)


def test_events_come_in_order_and_the_outcome_is_last(rt) -> None:
    """started, then output and calls as they arrive, then artifacts, then the outcome."""
    run = rt.start(
        textwrap.dedent("""
            print("one")
            try:
                agent_io_tools.tool_call_sync(tool_id="a.b")
            except agent_io_tools.ToolError:
                print("two", file=sys.stderr)
            Path("made.txt").write_text("x")
        """),
        timeout_s=10,
    )
    events = list(run.events())
    kinds = [event.kind for event in events]
    assert (kinds[0], sorted(kinds[1:4]), kinds[4:]) == (
        "started",
        ["output", "output", "tool_call"],  # three channels, each exact, taken by arrival
        ["artifact", "outcome"],
    )
    assert {event.data["stream"]: event.data["text"] for event in events if event.kind == "output"} == {
        "stdout": "one\n",
        "stderr": "two\n",
    }
    assert events[0].data["exec_id"] == run.exec_id
    assert dict(events[-1].data) == {"status": "ok", "ok": True}
    assert [event.at_s for event in events] == sorted(event.at_s for event in events)


def test_late_and_many_subscribers_get_everything(rt) -> None:
    """Whoever subscribes after the end gets the same events as one who watched."""
    run = rt.start("for n in range(5): print(n)", timeout_s=10)
    watched = list(run.events())
    run.result()
    assert list(run.events()) == watched
    assert list(run.events()) == watched
    assert watched[-1].kind == "outcome"
    assert "".join(event.data["text"] for event in watched if event.kind == "output") == "0\n1\n2\n3\n4\n"


def test_output_is_live(rt) -> None:
    """A line arrives while the program still runs."""
    run = rt.start("print('alive'); time.sleep(60)", timeout_s=60)
    for event in run.events():
        if event.kind == "output":
            assert event.data["text"] == "alive\n"
            break
    assert run.cancel().status == "cancelled"


def test_a_listener_that_raises_loses_nothing(rt) -> None:
    """Every line is in the result and in user.log, whichever call of `on_output` raised; a notice counts them."""
    got: list[bytes] = []

    def raises_first(stream: str, data: bytes) -> None:
        got.append(data)
        if len(got) == 1:
            raise ValueError

    code = "for n in range(5): print('line', n, flush=True); time.sleep(0.05)"
    result = rt.start(code, on_output=raises_first, timeout_s=10).result()
    printed = "".join(f"line {n}\n" for n in range(5))
    assert (result.status, result.stdout, b"".join(got).decode()) == ("ok", printed, printed)
    assert result.user_log_tail.splitlines() == printed.splitlines()
    assert (result.usage["output_bytes"], len(result.notices)) == (len(printed), 1)
    assert result.notices[0].startswith(f"on_output raised ValueError in 1 of {len(got)} calls; ")


def test_a_program_is_the_path_of_a_file(rt, tmp_path) -> None:
    """A Path is read, where a text would be the program itself; one input is given as one path."""
    (tmp_path / "x.py").write_text("print(Path(__file__).with_name('a.txt').read_text())")
    (tmp_path / "a.txt").write_text("given")
    assert rt.execute(tmp_path / "x.py", inputs=tmp_path / "a.txt", timeout_s=10).stdout == "given\n"
    assert rt.execute(tmp_path / "x.py", inputs=str(tmp_path / "a.txt"), timeout_s=10).stdout == "given\n"
    with pytest.raises(isorun.InvalidRequest) as refused:
        rt.execute(tmp_path / "y.py")
    name = shown(str(tmp_path / "y.py"))
    assert str(refused.value) == f"the program {name} cannot be read: No such file or directory"


def test_cancel_gives_what_there_is(rt) -> None:
    """Status cancelled, with the output and the files so far."""
    run = rt.start("Path('part.txt').write_text('p'); print('so far'); time.sleep(60)", timeout_s=60)
    for event in run.events():
        if event.kind == "output":
            break
    result = run.cancel()
    assert (result.ok, result.status, result.error.code) == (False, "cancelled", "cancelled")
    assert result.stdout == "so far\n"
    assert result.workspace_diff["created"] == ("part.txt",)
    assert result.usage["wall_s"] < 10


def test_cancel_of_an_ended_run_keeps_its_outcome(rt) -> None:
    """An outcome is final."""
    run = rt.start("print('x')", timeout_s=10)
    ended = run.result()
    assert run.cancel() is ended
    assert ended.status == "ok"


def test_cancel_before_the_slot_stands(own) -> None:
    """A run that is cancelled at once ends as cancelled, and the next one is not affected."""
    with own() as rt:
        assert rt.start("time.sleep(60)").cancel().status == "cancelled"
        assert rt.execute("pass").status == "ok"


def test_twenty_runs_at_once_do_not_mix(rt) -> None:
    """Each has its own output, files, id and folder."""
    code = """
print(EXECUTION_ID, sys.argv[1])
Path("mine.txt").write_text(sys.argv[1])
time.sleep(0.05)
print(Path("mine.txt").read_text(), len(os.listdir(".")))
"""
    runs = [rt.start(code, argv=[str(n)], timeout_s=30) for n in range(20)]
    results = [run.result() for run in runs]
    assert [result.status for result in results] == ["ok"] * 20
    assert [result.stdout.split() for result in results] == [
        [result.exec_id, str(n), str(n), "1"] for n, result in enumerate(results)
    ]
    assert [(result.out_dir / "mine.txt").read_text() for result in results] == [str(n) for n in range(20)]
    assert len({result.out_dir for result in results}) == 20


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize("pool_size", [0, 4, 8])
def test_a_burst_far_above_the_pool_ends_well(own, pool_size) -> None:
    """More builds at once than the zygote's socket has room for: each is built, and none is forgotten."""
    with own(pool_size=pool_size) as rt:
        runs = [rt.start("print(sys.argv[1])", argv=[str(n)], timeout_s=60) for n in range(128)]
        assert [run.result().stdout for run in runs] == [f"{n}\n" for n in range(128)]


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize(("program", "in_loop"), [("print('a')", True), ("print('a' * 50_000)", False)])
def test_what_a_usual_run_left_is_taken_without_a_thread(rt, monkeypatch, program, in_loop) -> None:
    """A thread costs more than the work for a few small files; a run that printed more has one."""
    threads, taken = [], finish.collect

    def collect(*args: object, **options: object) -> Collected:
        threads.append(threading.current_thread().name)
        return taken(*args, **options)

    monkeypatch.setattr(finish, "collect", collect)
    assert rt.execute(program).ok
    assert [name == "isorun-loop" for name in threads] == [in_loop]


def test_a_run_that_gets_no_folder_gives_its_slot_back(own) -> None:
    """A slot that waited has the program's files by then: it is taken down, and nothing of the program has run."""
    with own(pool_size=1) as rt:
        assert rt.execute("pass", exec_id="taken").ok
        for _ in range(3):
            wait_until(lambda: rt.waiting_slots == 1)
            with pytest.raises(isorun.InvalidRequest) as refused:
                rt.execute("print('never')", exec_id="taken")
            assert refused.value.code == "exec_id_taken"
        wait_until(lambda: rt.waiting_slots == 1)


def test_two_runtimes_on_one_root(own, new_backend, tmp_path) -> None:
    """Neither takes the other's runs for lost, and both write their folders."""
    with own() as first:
        run = first.start("time.sleep(60)", timeout_s=60)
        with own() as second:
            assert second.root == first.root
            assert second.execute("print(2)").stdout == "2\n"
        result = run.cancel()
    assert result.status == "cancelled"
    assert len(list((tmp_path / "root").glob("codegen_*/out/result.json"))) == 2


async def test_a_sync_runtime_works_inside_a_running_loop(own) -> None:
    """In a notebook a loop is running already; SyncRuntime does not mind."""
    assert asyncio.get_running_loop().is_running()
    with own() as rt:
        assert rt.execute("print('in a notebook')").stdout == "in a notebook\n"


async def test_run_works_inside_a_running_loop(rt, new_backend, tmp_path) -> None:
    """`isorun.run` is one call, wherever it stands."""
    made = options_for(new_backend(), tmp_path)
    assert isorun.run("print(6 * 7)", timeout_s=10, **made).stdout == "42\n"


async def test_an_async_caller_that_is_cancelled_cancels_its_run(rt, new_backend, tmp_path) -> None:
    """Leaving by cancellation ends the program before the exception is seen."""
    async with isorun.Runtime(**options_for(new_backend(), tmp_path, pool_size=0)) as own:
        task = asyncio.ensure_future(own.execute("time.sleep(60)", timeout_s=60))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (folder,) = own.root.glob("codegen_*")
        assert json.loads((folder / "out/result.json").read_text())["status"] == "cancelled"


def test_a_bad_request_starts_nothing(rt) -> None:
    """A refused contract, name or code leaves no folder."""
    before = set(rt.root.iterdir())
    for bad in (
        {"contract": []},
        {"contract": [{"filename": "/etc/x", "description": "d"}]},
        {"prog_name": "x" * 65},
    ):
        with pytest.raises(isorun.InvalidRequest):
            rt.execute("pass", **bad)
    with pytest.raises(isorun.InvalidRequest):
        rt.execute("  \n")
    assert set(rt.root.iterdir()) == before


def test_the_pool_refills(own) -> None:
    """A run takes a waiting slot, says so, and another one takes its place."""
    with own(pool_size=2) as rt:
        wait_until(lambda: rt.waiting_slots == 2)
        for _ in range(3):
            assert rt.execute("pass").timings["pool_hit"]
            wait_until(lambda: rt.waiting_slots == 2)


@pytest.mark.usefixtures("embedded")
def test_the_zygote_is_replaced_after_its_runs(own) -> None:
    """With zygote_runs=2 the third run comes from another jail, and the first jail is gone."""
    with own(backend_options={"zygote_runs": 2}) as rt:
        jails = []
        for _ in range(4):
            assert rt.execute("print(1)").stdout == "1\n"
            jails.append(rt.backend._jail.jail.process.pid)
        assert jails[0] == jails[1] != jails[2] == jails[3]
        wait_until(lambda: not Path(f"/proc/{jails[0]}").exists())


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize("pool_size", [0, 3])
def test_a_dead_zygote_costs_the_runs_in_flight_and_no_later_one(own, pool_size) -> None:
    """The run in flight raises SetupFailed, naming the zygote; slots that died waiting are not handed out."""
    with own(pool_size=pool_size) as rt:
        wait_until(lambda: rt.waiting_slots == pool_size)
        run = rt.start("time.sleep(60)", timeout_s=60)
        next(iter(event for event in run.events() if event.kind == "started"))
        rt.backend._jail.jail.process.kill()
        with pytest.raises(isorun.SetupFailed) as caught:
            run.result()
        assert caught.value.step == "zygote"
        assert [rt.execute("print('on')", timeout_s=10).stdout for _ in range(4)] == ["on\n"] * 4


_LEAVES = """
import glob, json, os, sys, tempfile, threading
from pathlib import Path
from conformance.conftest import options_for
import isorun
from isorun.testing.fake import FakeBackend
from isorun.backends.namespace.backend import NamespaceBackend, Options

def held():
    return {
        "fds": sorted(os.listdir("/proc/self/fd")),
        "children": sorted(int(p.name) for p in Path("/proc").glob("[0-9]*") if parent(p) == os.getpid()),
        "cgroups": glob.glob(f"/sys/fs/cgroup/**/isorun-{os.getpid()}-*", recursive=True),
        "temporary": sorted(set(glob.glob(f"{tempfile.gettempdir()}/isorun-*"))),
        "threads": threading.active_count(),
    }

def parent(path):
    try:
        return int((path / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except OSError:
        return 0

kind, root = sys.argv[1:]
def backend():
    options = Options(use_cgroup=kind == "namespace-cgroup")
    return FakeBackend() if kind == "fake" else NamespaceBackend(options)

def session():
    with isorun.SyncRuntime(**options_for(backend(), Path(root), pool_size=2)) as rt:
        inside = rt.start("print(1)", timeout_s=10)
        inside.result()
        rt.execute("import subprocess; subprocess.Popen(['sleep', '96.5']); 1/0", timeout_s=10)
        rt.start("time.sleep(60)")  # left running: leaving the Runtime ends it
        return held()

tempfile.tempdir = root
session()  # whatever is made once in a process
before, during = held(), session()
after = held()
print(json.dumps({"same": before == after, "before": before, "after": after,
                  "did": [len(during["fds"]) > len(before["fds"]), len(during["children"]) > 0]}))
"""


_FORKS = """
import gc, json, multiprocessing, os, sys, tempfile
from pathlib import Path
from conformance.conftest import options_for
import isorun
from isorun.testing.fake import FakeBackend
from isorun.backends.namespace.backend import NamespaceBackend, Options

kind, root = sys.argv[1:]
tempfile.tempdir = root

def runtime():
    backend = FakeBackend() if kind == "fake" else NamespaceBackend(Options(use_cgroup=kind == "namespace-cgroup"))
    return isorun.SyncRuntime(**options_for(backend, Path(root), pool_size=1))

def said(use):
    try:
        return use()
    except isorun.Misused as error:
        return str(error)

def job(number):
    return said(lambda: rt.execute("print(1)", timeout_s=3))

made, parent = runtime(), os.getpid()  # before the fork, and opened in the child
seen = {}
try:
    with runtime() as rt:
        run = rt.start("import time; print('begun', flush=True); time.sleep(1.5); print('done')", timeout_s=20)
        events = run.events()
        next(event for event in events if event.kind == "output")
        reader, writer = os.pipe()
        if (child := os.fork()) == 0:
            uses = (lambda: rt.execute("1"), lambda: rt.start("1"), run.result, run.cancel, lambda: next(events),
                    lambda: next(run.events()), rt.open, lambda: rt.waiting_slots)
            told = [said(use) for use in uses]
            rt.close()
            with made as own:
                told.append(own.execute("print('in the child')", timeout_s=20).stdout)
            os.write(writer, json.dumps(told).encode())
            gc.collect()
            sys.exit(7)  # through the `with`, and the interpreter's own end
        os.close(writer)
        _, status = os.waitpid(child, 0)
        with open(reader) as told:
            seen["child"] = json.load(told)
        seen["exit"] = os.waitstatus_to_exitcode(status)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            seen["pool"] = pool.map(job, range(2))
        result = run.result()
        infra = (result.out_dir / "logs/infra.log").read_text()
        seen["run"] = [result.status, result.stdout, infra.count("sandbox failed")]
        seen["next"] = rt.execute("print('next')", timeout_s=20).stdout
        seen["leases"] = len(list(rt.root.glob(".isorun-*/*.lease")))
finally:
    if os.getpid() == parent:
        print(json.dumps(seen))
"""


@pytest.mark.usefixtures("embedded")
def test_a_forked_child_touches_nothing_of_its_parents_runtime(rt, kind, temporary) -> None:
    """In the child every use is an error at once; the parent's run, slots and lease go on, however the child leaves."""
    tests = Path(__file__).parents[1]
    script = f"import sys; sys.path.insert(0, {str(tests)!r})\n{_FORKS}"
    done = subprocess.run(
        [sys.executable, "-c", script, kind, temporary], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    told = "this SyncRuntime was opened in another process; open one here"
    assert {one.replace("this Runtime", "this SyncRuntime") for one in seen["child"][:-1]} == {told}
    assert (seen["child"][-1], seen["exit"], set(seen["pool"])) == ("in the child\n", 7, {told})
    assert seen["run"] == ["ok", "begun\ndone\n", 0]
    assert (seen["next"], seen["leases"]) == ("next\n", 1)


@pytest.fixture
def temporary() -> Iterator[str]:
    """A folder for temporary files that the jail's unprivileged user can pass through, as it can /tmp."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield folder


def test_leaving_a_runtime_leaves_nothing(rt, kind, temporary) -> None:
    """No descriptor, child, thread, cgroup or temporary file more than before, though a run still went."""
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "dev",
            "-c",
            f"import sys; sys.path.insert(0, {str(tests)!r})\n{_LEAVES}",
            kind,
            temporary,
        ],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["did"] == [True, True]
    assert seen["after"] == seen["before"]
    assert "ResourceWarning" not in done.stderr
