"""Limits of one run alone: each backend holds it to them, and it never has more than the host's."""

import pytest

import isorun
from isorun.core.limits import MIB

sealed = pytest.mark.usefixtures("sealed")

SIZES = """
for path in ("/workspace/out", "/tmp", "/dev/shm"):
    print(os.statvfs(path).f_blocks * os.statvfs(path).f_frsize >> 20)
"""


@sealed
def test_a_run_with_less_memory_ends_at_that(rt) -> None:
    """It is ended at its own ceiling, which the result tells; the next run has the host's again."""
    hog = "held = []\nfor _ in range(60):\n    held.append(bytearray(b'x') * (4 << 20))\nprint('all')"
    result = rt.execute(hog, limits={"memory_bytes": "96M"}, timeout_s=30)
    assert (result.status, result.limits["memory_bytes"]) == ("out_of_memory", 96 * MIB)
    result = rt.execute(hog, timeout_s=30)
    assert (result.stdout, result.limits["memory_bytes"]) == ("all\n", rt.limits.memory_bytes)


@sealed
def test_a_slot_that_waits_under_other_limits_is_not_used(own) -> None:
    """A run with limits of its own gets a slot that was built under them, though one waits."""
    with own(pool_size=1) as rt:
        rt.execute("pass")
        result = rt.execute(SIZES, limits=isorun.Limits(memory_bytes="256M"))
    assert result.stdout.split() == ["64", "32", "32"]
    assert result.timings["pool_hit"] is False


@sealed
@pytest.mark.parametrize(
    ("limits", "code", "expected"),
    [
        (
            {"processes": 6},
            "import threading\n[threading.Thread(target=sys.stdin.read).start() for _ in range(1)]",
            "ok",
        ),
        ({"file_bytes": "64k"}, "(OUT / 'a').write_bytes(bytes(100_000))", "limit_exceeded"),
        (
            {"output_bytes": "8k", "log_bytes": "8k"},
            "print('x' * 20_000, flush=True)\ntime.sleep(60)",
            "limit_exceeded",
        ),
        ({"workspace_inodes": 20}, "[(OUT / str(n)).touch() for n in range(40)]", "limit_exceeded"),
        ({"wall_s": "500ms", "grace_s": "200ms"}, "time.sleep(60)", "timed_out"),
    ],
)
def test_each_kind_of_limit_is_the_runs_own(rt, limits, code, expected) -> None:
    """Held by the slot, by the host that reads the output, and by its clock."""
    assert rt.execute(code, limits=limits).status == expected


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"memory_bytes": "64G"}, "limits: memory_bytes is 68719476736, more than ISORUN_MAX_MEMORY_BYTES allows: "),
        ({"processes": 100_000}, "limits: processes is 100000, more than ISORUN_MAX_PROCESSES allows: "),
        ({"proceses": 1}, "'proceses' is not a limit; did you mean processes?"),
    ],
)
def test_more_than_the_host_allows_is_refused(rt, limits, says) -> None:
    """By the setting's name, and nothing is started."""
    with pytest.raises(isorun.InvalidRequest) as caught:
        rt.execute("pass", limits=limits)
    assert str(caught.value).startswith(says)


def test_a_timeout_above_the_runs_own_is_refused(rt) -> None:
    """Both were asked for, so neither silently wins."""
    with pytest.raises(isorun.InvalidRequest) as caught:
        rt.execute("pass", limits={"wall_s": 5}, timeout_s=6)
    assert str(caught.value) == "timeout_s is 6, more than wall_s of the run's own limits: 5; leave out one"


@sealed
@pytest.mark.parametrize("what", ["code", "inputs", "stdin", "start_from"])
def test_what_is_larger_than_one_file_may_be_names_that_limit(rt, tmp_path, what) -> None:
    """It fits the workspace, so more of that would not help: the program, an input, its stdin, a file of out/."""
    (tmp_path / "big").write_bytes(b"#" * 5000)
    sent = {"inputs": {"big": b"#" * 5000}, "stdin": "#" * 5000, "start_from": tmp_path}
    code = "#" * 5000 if what == "code" else "pass"
    with pytest.raises(isorun.InvalidRequest, match=r"raise file_bytes or ISORUN_MAX_FILE_BYTES$") as caught:
        rt.execute(code, limits={"file_bytes": 4096}, **({} if what == "code" else {what: sent[what]}))
    assert caught.value.code == "inputs_too_large"
