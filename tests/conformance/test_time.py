"""SPEC B8: time.

Clauses: timeout_s above PY_CODE_EXEC_TIMEOUT, 0, negative, NaN are refused · time starts at
the program's first instruction · on timeout SIGTERM to the program, the grace, then
everything is killed · partial output and files are kept.
"""

import math
import time

import pytest

import isorun


@pytest.mark.parametrize(
    ("timeout", "code"),
    [
        (0, "invalid_timeout"),
        (-1, "invalid_timeout"),
        (math.nan, "invalid_timeout"),
        (math.inf, "invalid_timeout"),
        ("5", "invalid_timeout"),
        (True, "invalid_timeout"),
        (600.1, "timeout_too_large"),
    ],
)
def test_bad_timeouts_are_refused(rt, timeout, code) -> None:
    """Nothing starts, no folder is made, and the code says why."""
    before = set(rt.root.iterdir())
    with pytest.raises(isorun.InvalidRequest) as caught:
        rt.execute("pass", timeout_s=timeout)
    assert caught.value.code == code
    assert set(rt.root.iterdir()) == before


def test_the_operators_ceiling_is_named(rt) -> None:
    """The message names the setting that an operator would change."""
    with pytest.raises(isorun.InvalidRequest, match="PY_CODE_EXEC_TIMEOUT") as caught:
        rt.execute("pass", timeout_s=601)
    assert str(caught.value) == "timeout_s is 601, more than ISORUN_MAX_WALL_S (PY_CODE_EXEC_TIMEOUT) allows: 600"


@pytest.mark.alone
def test_the_build_is_not_charged(own) -> None:
    """With no slot waiting and a timeout shorter than a build, a short program still ends well."""
    with own() as rt:
        result = rt.execute("time.sleep(0.02)", timeout_s=0.06)
    assert result.status == "ok"
    assert 0.02 <= result.usage["wall_s"] < 0.06
    assert not result.timings["pool_hit"]


@pytest.mark.alone
def test_inputs_are_not_charged(own, tmp_path) -> None:
    """Copying what the caller gave comes before the program's first instruction."""
    (tmp_path / "big").write_bytes(bytes(60 << 20))
    with own() as rt:
        result = rt.execute("print(os.path.getsize('../work/big'))", inputs=[tmp_path / "big"], timeout_s=0.05)
    assert (result.status, result.stdout) == ("ok", f"{60 << 20}\n")


@pytest.mark.alone
def test_timeout_keeps_output_and_files(run) -> None:
    """A program that hangs is timed_out at its deadline, with all that it had printed and written."""
    result = run(
        """
        print("before", end="")
        print("error before", file=sys.stderr)
        Path("turn_1/files/part.txt").write_text("part")
        while True: pass
        """,
        timeout_s=0.5,
        contract=[{"filename": f"turn_1/files/{n}.txt", "description": "d"} for n in ("part", "rest")],
    )
    assert (result.status, result.error.code, result.error.message) == (
        "timed_out",
        "timeout",
        "exceeded its timeout of 0.5 s",
    )
    assert (result.stdout, result.stderr) == ("before", "error before\n")
    assert result.succeeded == ("turn_1/files/part.txt",)
    assert result.missing == ("turn_1/files/rest.txt",)
    assert 0.5 <= result.usage["wall_s"] < 1.5
    assert result.signal == 15


@pytest.mark.alone
def test_a_handler_runs_within_the_grace(run) -> None:
    """SIGTERM comes first, and what its handler prints and writes is kept."""
    result = run(
        """
        import signal
        def stop(number, frame):
            print("handler"); Path("saved.txt").write_text("saved"); sys.exit(0)
        signal.signal(signal.SIGTERM, stop)
        time.sleep(99)
        """,
        timeout_s=0.3,
    )
    assert (result.status, result.stdout) == ("timed_out", "handler\n")
    assert result.workspace_diff["created"] == ("saved.txt",)
    assert result.usage["wall_s"] < 1.5


@pytest.mark.alone
def test_after_the_grace_everything_is_killed(own) -> None:
    """A program that ignores SIGTERM, and its children, are dead when the grace is over."""
    code = """
import signal, subprocess
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(987.5)"], start_new_session=True)
print("still here")
time.sleep(99)
"""
    with own(limits=isorun.Limits(grace_s=0.4)) as rt:
        began = time.monotonic()
        result = rt.execute(code, timeout_s=0.3)
        took = time.monotonic() - began
    assert (result.status, result.signal, result.stdout) == ("timed_out", 9, "still here\n")
    assert 0.7 <= result.usage["wall_s"] < 1.5
    assert took < 3
    assert _commands_with("987.5") == []


def _commands_with(word: str) -> list[str]:
    import pathlib

    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [text for text in [path.read_text(errors="replace")] if word in text]
        except OSError:
            continue
    return found


def test_the_default_is_the_ceiling(own) -> None:
    """Without timeout_s a run has the operator's time and no more."""
    with own(limits=isorun.Limits(wall_s=0.3)) as rt:
        result = rt.execute("time.sleep(99)")
    assert (result.status, result.limits["wall_s"]) == ("timed_out", 0.3)


def test_a_program_that_ends_at_sigterm_with_zero_is_still_timed_out(run) -> None:
    """The host knows why it ended the run; an exit code of 0 does not turn that into a success."""
    result = run("import signal; signal.signal(15, lambda *_: os._exit(0)); time.sleep(99)", timeout_s=2)
    assert (result.ok, result.status, result.exit_code) == (False, "timed_out", 0)
