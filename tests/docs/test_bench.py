"""`make bench` measures its peers wherever the checkout lies: its `.venv`, and so the Python of a peer, lies in it."""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import pytest
from rich.console import Console

from bench import chromium, cold, documents, peers
from bench.__main__ import built_in_and_own
from bench.measure import Spread
from tests.docs.pages import ROOT

PLACES = {"below /tmp": "/tmp", "where programs see memory": "/dev/shm"}


@pytest.mark.parametrize("below", PLACES.values(), ids=PLACES)
async def test_the_peer_in_bubblewrap_starts_a_python_of_any_place(below: str) -> None:
    """Its own /tmp and /dev hide no virtual environment; nor does a blank, or a folder that is its owner's alone."""
    with tempfile.TemporaryDirectory(prefix="isorun bench ", dir=below) as place:  # with mode 0700
        venv.create(Path(place) / "venv", symlinks=True)
        python = f"{place}/venv/bin/python"
        code = f"import sys; assert sys.executable == {python!r}; {peers.HELLO}"
        assert await peers.bubblewrapped_python(code, python) > 0


def test_a_cold_start_is_told_by_stage(require) -> None:
    """The jail's stages in their order; root stages it in a child. The first byte alone has a gate."""
    first, stages = cold.figures(1)
    assert (first.gate, stages.ok) == ("≤ 190 ms", None)
    at = stages.raw["ms"]
    if "zygote warm" not in at:
        require("namespace", f"another backend ran it: {stages.value}")
    order = ["jail started", *(["staged"] if os.geteuid() == 0 else []), "zygote warm", "slot sealed", "first byte"]
    assert sorted(order, key=at.__getitem__) == order
    assert at["jail started"] < at["host imported"] < at["exit"]


#: An engine that has the image, and can run nothing.
_BROKEN = """#!/bin/sh
case "$1" in image) exit 0;; esac
echo "no room for $WHAT_IS_FULL" >&2
exit 125
"""


def test_a_peer_that_fails_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    """Measuring takes minutes. The engine asked is the one on the caller's PATH, in the caller's environment."""
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(_BROKEN)
    docker.chmod(0o755)
    environ = {**os.environ, "PATH": f"{docker.parent}:{os.environ['PATH']}", "WHAT_IS_FULL": "it"}
    argv = [sys.executable, "-m", "bench", "--count", "1", "--no-write"]
    done = subprocess.run(argv, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith(f"a peer failed: {docker}: no room for it")
    assert "slot hit" not in done.stdout + done.stderr


PEER = "peer: Chromium's PDF of the same page, browser open, in a new page"
AGAIN = "peer: the same in a page that is used again"
GATES = {
    "held call, `tools={'calc.add': …}` is a coroutine function, one after the other": "p50 ≤ 500 µs",
    "held call, `tools={'calc.add': …}` is a plain function, one after the other": "p50 ≤ 500 µs",
    "`write_pdf`, one page, warm": "p50 ≤ 25 ms",
    "`write_docx`, one page, warm": "p50 ≤ 80 ms",
    "`write_pptx`, one page, warm": "p50 ≤ 50 ms",
    "`write_html`, one page, warm": "",
    "`write_xlsx`, 200 rows, warm": "",
    PEER: "ours ≥ 20× faster",
    "the first run of a Runtime with a tool: its supervisor starts, and `write_pdf` is called once": "≤ 1.5 s",
    "memory of one tool worker (PSS, all its processes, each kind of document written)": "≤ 120 MB",
    "`web_fetch` of a page of 100 kB from loopback, called by a program, one after the other": "p50 ≤ 80 ms",
    "`fetch` of a page of 100 kB from loopback, through the guard, one after the other": "p50 ≤ 80 ms",
}


@pytest.mark.timeout(300)  # it starts seven supervisors and a browser
async def test_the_built_in_tools_and_held_calls_are_measured() -> None:
    """Each has its figure, and what has a goal its gate. The peer's row is there with a browser and without one."""
    found = {figure.name: figure for figure in await built_in_and_own(2, Console(quiet=True).print)}
    gates = {name: figure.gate for name, figure in found.items()}
    has_peer = chromium.program() is not None
    assert gates == {**GATES, **({AGAIN: ""} if has_peer else {})}
    if not has_peer:
        assert found.pop(PEER).value == chromium.MISSING
    for figure in found.values():
        assert (figure.ok is None) == (figure.gate == ""), figure
        assert figure.raw["mb"] > 20 if "mb" in figure.raw else 0 < figure.raw["ms"]["least"] < 30_000, figure


async def test_a_chromium_that_is_missing_is_said_and_not_judged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As the engine's rows are not: its absence misses no gate."""
    monkeypatch.setenv("PATH", str(tmp_path))
    await chromium.check()
    (peer,) = await documents.peer_figures("<p>", Spread.of([0.01]), 2)
    assert (peer.name, peer.value, peer.ok) == (PEER, "not here: apt install chromium", None)


async def test_a_chromium_that_cannot_print_is_told_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One that ends well, and has written nothing."""
    program = tmp_path / "chromium"
    program.write_text("#!/bin/sh\necho no display >&2\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=f"a peer failed: {program}: no display"):
        await chromium.check()
