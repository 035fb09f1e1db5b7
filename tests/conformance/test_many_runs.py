"""Many runs of one Runtime on each backend: a ceiling on those at once, results in order."""

import threading

SLEEPS = "import time\nprint(time.time())\ntime.sleep(0.4)\nprint(time.time())"


def test_a_ceiling_on_runs_holds(own) -> None:
    """Of three that each take most of their limit, no two overlap; two are in the queue for a while."""
    with own(max_runs=1) as rt:
        results = []
        threads = [threading.Thread(target=lambda: results.append(rt.execute(SLEEPS, timeout_s=2))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [result.status for result in results] == ["ok"] * 3
    spans = sorted([float(part) for part in result.stdout.split()] for result in results)
    assert spans[0][1] <= spans[1][0]
    assert spans[1][1] <= spans[2][0]
    assert sorted(result.timings["queued_s"] > 0.3 for result in results) == [False, True, True]


def test_programs_are_mapped_to_results(rt) -> None:
    """In their order, though the first takes longest; a time-out and an error are results among them."""
    programs = ["time.sleep(0.5); print(0)", "print(1)", "1 / 0", "time.sleep(60)", "print(4)"]
    results = list(rt.map(programs, at_once=3, timeout_s=2))
    assert [result.status for result in results] == ["ok", "ok", "failed", "timed_out", "ok"]
    assert [result.stdout for result in results] == ["0\n", "1\n", "", "", "4\n"]


def test_many_programs_leave_nothing_with_keep_false(rt) -> None:
    """A batch that is not kept: each result has its own file."""
    before = set(rt.root.glob("codegen_*"))
    programs = (f"(OUT / 'n.txt').write_text('{n}')" for n in range(40))
    assert [result["n.txt"].read_text() for result in rt.map(programs, keep=False, timeout_s=20)] == [
        str(n) for n in range(40)
    ]
    assert set(rt.root.glob("codegen_*")) == before
