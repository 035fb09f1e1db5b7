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
