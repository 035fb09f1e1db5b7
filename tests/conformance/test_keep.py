"""`keep=False` on each backend: the files are in the result, and nothing of the run is on the disk."""

import pytest

WRITES = "(OUT / 'a.csv').write_text('a,b')\nprint('x')\n"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (WRITES, "ok"),
        (f"{WRITES}raise ValueError", "failed"),
        (f"{WRITES}sys.stdout.flush()\ntime.sleep(60)", "timed_out"),
        (f"{WRITES}os.symlink('/etc/passwd', OUT / 'link')", "ok"),
    ],
)
def test_a_run_that_is_not_kept(rt, code, status) -> None:
    """However the program ends, its file can be read and its folder is gone."""
    before = set(rt.root.glob("codegen_*"))
    result = rt.execute(code, keep=False, timeout_s=1)
    assert (result.status, result.stdout, result["a.csv"].read_text()) == (status, "x\n", "a,b")
    assert set(rt.root.glob("codegen_*")) == before
