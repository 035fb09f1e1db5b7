"""Sessions: files that are carried from run to run, on each backend."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import pytest

import isorun
from isorun.api import SyncSession
from isorun.runtime.runtime import Runtime
from isorun.store import collect, saving, sessions
from isorun.store.sessions import take
from isorun.tools import exec_tools
from tests.artifacts import contract

LIST = "print(sorted(p.as_posix() for p in Path().rglob('*') if p.is_file()))"


@pytest.fixture
def session(rt: isorun.SyncRuntime, request: pytest.FixtureRequest) -> Iterator[SyncSession]:
    """One of the test's own, in the shared Runtime."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower())[:64]
    made = rt.session(name)
    yield made
    if made.files:
        made.remove()


def test_each_run_finds_what_the_one_before_left(session, rt) -> None:
    """Files new, changed and removed; no other run sees one of them."""
    first = session.execute("Path('a').write_text('1'); Path('sub').mkdir(); Path('sub/b').write_text('2')")
    second = session.execute("Path('a').unlink(); print(Path('sub/b').read_text()); Path('c').write_text('3')")
    assert (second.stdout, session.files) == ("2\n", ("c", "sub/b"))
    assert dict(second.workspace_diff) == {"created": ("c",), "modified": (), "deleted": ("a",)}
    assert [artifact.path for artifact in second.artifacts] == ["c"]
    assert (session.path / "sub/b").read_text() == "2"
    assert (first.out_dir / "a").exists()
    assert session.execute(LIST).stdout == "['c', 'sub/b']\n"
    for other in (rt.execute(LIST), rt.session("another").execute(LIST)):
        assert other.stdout == "[]\n"


def test_what_is_large_is_carried_and_saved_in_turns(session, monkeypatch, tmp_path: Path) -> None:
    """In a thread of the lane that rests while other runs are under way; what is usual goes at once."""
    lanes: dict[str, set[str]] = {}

    def noted(module: ModuleType) -> None:
        def rest() -> None:
            lane = threading.current_thread().name.partition("_")[0]
            lanes.setdefault(module.__name__.rpartition(".")[2], set()).add(lane)

        monkeypatch.setattr(module, "rest", rest)

    for module in (collect, saving, sessions):
        noted(module)
    code = "for n in range(int(input())): Path(str(n)).write_text('x')"
    session.execute(code, stdin="300", save_to=tmp_path / "many")
    session.execute("Path('a').write_text('x')", save_to=tmp_path / "large")  # what stands is as large
    assert lanes == {name: {"isorun-large"} for name in ("collect", "saving", "sessions")}


@pytest.mark.parametrize(
    "ending",
    ["raise ValueError", "sys.exit(3)", "sys.stdout.flush(); time.sleep(60)", "os.kill(os.getpid(), 9)"],
)
def test_however_a_run_ends_its_files_are_carried(session, ending: str) -> None:
    """What was worked out before the fault is there for the run that mends it."""
    session.execute("Path('old').write_text('o')")
    assert not session.execute(f"Path('new').write_text('n')\n{ending}", timeout_s=1).ok
    assert session.files == ("new", "old")


def test_what_is_written_beside_the_program_is_carried(session) -> None:
    """It is handed out as if it stood in out/, so the next run finds it there; inputs and a taken place are not it."""
    beside = "Path(__file__).parent.joinpath"
    code = f"{beside}('side').write_text('s'); {beside}('a').write_text('lost'); Path('a').write_text('1')"
    first = session.execute(f"{code}; {beside}('sub').mkdir(); {beside}('sub/b').write_text('2')", inputs={"in": b"i"})
    assert sorted(artifact.path for artifact in first.artifacts) == ["a", "side", "sub/b"]
    assert session.files == ("a", "in", "side", "sub/b")
    assert (session.path / "a").read_text() == "1"
    assert session.execute(LIST).stdout == "['a', 'in', 'side', 'sub/b']\n"


def test_a_cancelled_run_is_carried_too(session) -> None:
    """It was under way; what it had written is whole."""
    run = session.start("Path('a').write_text('1'); print('there', flush=True); time.sleep(60)")
    for event in run.events():
        if event.kind == "output":
            break
    assert run.cancel().status == "cancelled"
    assert session.files == ("a",)


def test_a_run_that_was_never_started_changes_nothing(session, rt, tmp_path: Path) -> None:
    """A bad request is refused before, one whose files do not fit is refused by the workspace."""
    session.execute("Path('a').write_text('1')")
    with pytest.raises(isorun.InvalidRequest):
        session.execute("Path('b').write_text('1')", contract=[])
    assert session.files == ("a",)
    with pytest.raises(isorun.InvalidRequest, match="starts from the session's files"):
        session.execute("pass", start_from=tmp_path)
    with pytest.raises(isorun.InvalidRequest):
        rt.session("refused").execute("pass", contract=[])
    assert rt.session("refused").files == ()


@pytest.mark.usefixtures("sealed")
def test_files_that_do_not_fit_a_run_are_refused_and_stay(session) -> None:
    """The limits of a run hold for what it starts from, and a refusal loses none of it."""
    session.execute("Path('a').write_bytes(bytes(4 << 20))")
    with pytest.raises(isorun.InvalidRequest) as caught:
        session.execute("pass", limits={"workspace_bytes": 2 << 20})
    assert caught.value.code == "inputs_too_large"
    assert session.files == ("a",)


def test_inputs_are_carried_and_a_newer_one_replaces(session) -> None:
    """A file that was given once is there for every later run, until another of its name is given."""
    read = "print(Path('in.csv').read_text())"
    first = session.execute(read, inputs={"in.csv": "one"})
    assert (first.stdout, first.artifacts) == ("one\n", ())
    assert session.execute(read).stdout == "one\n"
    result = session.execute(read, inputs={"in.csv": "two"})
    assert (result.stdout, dict(result.workspace_diff)["deleted"]) == ("two\n", ())
    assert session.execute(read).stdout == "two\n"


def test_a_file_of_an_earlier_run_is_not_freshly_written(session) -> None:
    """A promise by its bare name is not met by it; one by its whole path is, with a notice that says so."""
    session.execute(
        "Path('a.md').write_text('x'); os.makedirs('turn_1/files'); Path('turn_1/files/a.md').write_text('x')"
    )
    bare = session.execute("pass", contract=[{"filename": "a.md", "description": "a"}])
    assert (bare.status, bare.missing) == ("contract_failed", (f"{bare.turn_id}/files/a.md",))
    whole = session.execute("pass", contract=contract("a.md"))
    assert (whole.ok, whole.notices) == (True, ("turn_1/files/a.md was in out/ before the run and was not changed",))
    fresh = session.execute("Path('a.md').write_text('y')", contract=[{"filename": "a.md", "description": "a"}])
    assert fresh.ok, fresh.report_text
    assert "a.md" in session.files  # where the program left it


def test_a_run_that_is_not_kept_leaves_the_session(session) -> None:
    """The folder of the run goes; its files do not. What is saved is what this run wrote."""
    result = session.execute("Path('a').write_text('1')", keep=False)
    assert (result.out_dir.exists(), session.files) == (False, ("a",))


def test_what_is_saved_is_what_this_run_wrote(session, tmp_path: Path) -> None:
    """Not what the session had before."""
    session.execute("Path('a').write_text('1')")
    session.execute("Path('b').write_text('1')", save_to=tmp_path / "to")
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["b"]


def test_runs_that_are_started_together_go_in_their_order(session) -> None:
    """Each finds what all those before it wrote, and a run that waits says so."""
    code = "n = len(Path('log').read_text()) if Path('log').exists() else 0; open('log', 'a').write('x'); print(n)"
    runs = [session.start(code, timeout_s=10) for _ in range(4)]
    assert [run.result().stdout for run in runs] == ["0\n", "1\n", "2\n", "3\n"]
    assert [next(e.kind for e in run.events()) for run in runs] == ["started", "waiting", "waiting", "waiting"]
    assert runs[3].result().timings["queued_s"] > 0


def test_a_run_that_waits_can_be_cancelled(session) -> None:
    """At once, and without a slot; the one before it is not touched."""
    first = session.start("Path('a').write_text('1'); time.sleep(1)")
    second = session.start("Path('b').write_text('1')")
    result = second.cancel()
    assert (result.status, second.program_started) == ("cancelled", False)
    assert first.result().ok
    assert session.files == ("a",)


def test_other_runs_do_not_wait_for_a_session(own) -> None:
    """A run that waits for its session takes no place of a Runtime that has few."""
    with own(max_runs=2) as rt:
        session = rt.session("s")
        waiting = [session.start("time.sleep(1)") for _ in range(3)]
        assert rt.execute("print(1)").timings["queued_s"] < 0.5
        session.close()
        assert all(run.result().ok for run in waiting)


def test_another_process_has_it(session, rt, caplog: pytest.LogCaptureFixture) -> None:
    """The run waits as long as it may take itself, says so, and is refused with the session's name."""
    held = take(rt.root, session.name)
    assert held is not None
    with ExitStack() as stack:
        stack.callback(held.release)
        with pytest.raises(isorun.InvalidRequest, match=rf"^session {session.name} was in use by another process") as c:
            session.execute("pass", timeout_s=1.5)
        assert c.value.code == "session_busy"
        assert f"session {session.name} is in use by another process: waiting for it" in caplog.text
        with pytest.raises(isorun.InvalidRequest) as c:
            session.remove()
        assert c.value.code == "session_in_use"
        run = session.start("Path('a').write_text('1')", timeout_s=3)
        first = next(run.events())
        assert (first.kind, first.data) == ("waiting", {"session": session.name})
    assert run.result().ok


@pytest.mark.parametrize("keep", [True, False])
def test_files_that_cannot_be_carried_are_where_the_error_says(session, keep: bool) -> None:
    """The session is as it was and goes on, and the run's folder has the files and the result, kept or not."""
    session.execute("Path('a').write_text('1')")
    run = session.start("Path('b').write_text('1'); time.sleep(1)", keep=keep)
    for event in run.events():
        if event.kind == "started":
            (session.path.parent / "new").mkdir()  # what the copy would be called
            break
    with pytest.raises(isorun.SetupFailed, match=rf"^session: the files of session {session.name} could not be") as c:
        run.result()
    folder = Path(str(c.value).rpartition("whose own files are in ")[2])
    assert (folder / "b").exists()
    assert (folder / "result.json").exists()
    assert session.files == ("a",)
    assert session.execute(LIST).stdout == "['a']\n"


def test_a_session_that_is_closed_starts_nothing(session) -> None:
    """Its runs have ended, its files stay."""
    with session:
        session.start("time.sleep(0.3); Path('a').write_text('1')")
    assert session.files == ("a",)
    with pytest.raises(isorun.Misused, match="is closed; make another"):
        session.execute("pass")


def test_a_request_may_name_it(session, rt) -> None:
    """As an option, in a request, and in each of many programs."""
    rt.execute("Path('a').write_text('1')", session=session.name)
    request = isorun.RunRequest.of("Path('b').write_text('1')", session=session.name)
    rt.execute(request)
    session.execute(request)
    assert [r.ok for r in rt.map(["Path('c').write_text('1')", "Path('c').unlink()"], session=session.name)] == [
        True
    ] * 2
    assert session.files == ("a", "b")
    with pytest.raises(isorun.InvalidRequest, match="the run names session other"):
        session.execute(isorun.RunRequest.of("pass", session="other"))
    with pytest.raises(isorun.InvalidRequest):
        rt.session("No/Name")


@pytest.mark.no_backend
@pytest.mark.usefixtures("kind")
def test_the_tools_of_a_model_run_in_it(tmp_path: Path) -> None:
    """`exec_tools.using` takes a session where it takes a Runtime."""

    async def both() -> tuple[str, ...]:
        from isorun.testing.fake import FakeBackend

        async with Runtime(backend=FakeBackend(), workspace_root=tmp_path, pool_size=0) as rt:
            async with rt.session("s") as session, exec_tools.using(session):
                for name in "ab":
                    await exec_tools.execute_code_python_side_effect(code=f"Path('{name}').write_text('1')")
            return session.files

    assert asyncio.run(both()) == ("a", "b")


def test_another_runtime_on_the_root_goes_on(own) -> None:
    """A session is the root's and not the Runtime's; on another root there is none of it."""
    with own() as rt:
        rt.session("s").execute("Path('a').write_text('1')")
    with own() as rt:
        assert rt.session("s").execute(LIST).stdout == "['a']\n"
    with own(workspace_root=rt.root.parent / "other") as rt:
        assert rt.session("s").execute(LIST).stdout == "[]\n"
