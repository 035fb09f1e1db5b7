"""`isorun demo`, run as a user runs it: what it shows, what it leaves, and what it says if a wall fails."""

import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from isorun.cli.scenes.demo import acts, demo, find_data, says, wrong_with
from isorun.core.errors import InvalidRequest
from isorun.tools.bundles import bundle_module, example_bundle

ENDINGS = {
    "A report on real data": "ok ok",
    "A promised file": "missing_output_files missing_output_files",
    "Reach the network": "program_error program_error",
    "Read the host's files": "program_error program_error",
    "Fork bomb": "process_limit process_limit",
    "Eat all memory": "out_of_memory out_of_memory",
    "Fill the disk": "workspace_limit workspace_limit",
    "Never end": "timeout timeout",
}
MESSAGES = {
    "A promised file": "the contract was not kept: turn_demo/files/report.md: missing_file",
    "Reach the network": "the program has no network",
    "Read the host's files": "Read-only file system",
    "Fork bomb": "exceeded its limit of 128 processes and threads",
    "Eat all memory": "its memory limit",
    "Fill the disk": "no space left in /workspace (256 MiB)",
    "Never end": "exceeded its timeout of 1.5 s",
}


def run_demo(root: Path, *options: str, columns: int = 80) -> "subprocess.CompletedProcess[str]":
    """The command, with the runs' folders below *root*."""
    return subprocess.run(
        [sys.executable, "-m", "isorun.cli.main", "demo", *options],
        env=os.environ | {"ISORUN_WORKSPACE_ROOT": str(root), "COLUMNS": str(columns), "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        timeout=55,
    )


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> "subprocess.CompletedProcess[str]":
    return run_demo(tmp_path_factory.mktemp("shown"))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    """The demo's JSON, and the folder that its files were copied to."""
    folder = tmp_path_factory.mktemp("told")
    done = run_demo(folder, "--json", "--out", str(folder / "copied"))
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout), folder / "copied"


def test_every_wall_holds(shown) -> None:
    """The demo exits with 0, says so last, and writes nothing to stderr."""
    assert (shown.returncode, shown.stderr) == (0, ""), shown.stdout
    assert shown.stdout.splitlines()[-1].startswith("every wall held (")


@pytest.mark.parametrize("title", ENDINGS)
def test_a_row_tells_what_was_expected_and_what_was_seen(shown, title) -> None:
    """The closing table has a row for each program, whose expected and real endings are the same."""
    rows = [" ".join(line.split()) for line in shown.stdout.splitlines() if line.startswith(title)]
    assert len(rows) == 1
    before, _, after = rows[0].removeprefix(title).strip().rpartition(" s ")
    assert (before.rpartition(" ")[0], after) == (ENDINGS[title], "✔")


def test_the_screen_has_its_parts(shown) -> None:
    """Credit, excerpt, live and partial output, hints, walls and the folder are shown in 80 columns."""
    for part in (
        "Horst AM, Hill AP, Gorman KB (2020), CC-0",
        "def draw(birds: pd.DataFrame, to: Path) -> None:",
        'axes.scatter(x, y, label=f"{species} (n = {len(group)})", **dots)',
        "│ read 344 penguins, 342 of them measured",
        "tool     reference_tools.species, 3 calls",
        "hint     found out/report.md, promised turn_demo/files/report.md",
        "│ /etc/shadow: No such file or directory",
        "│ 20 digits: 141421356237309504880",
        "hint     last line executed: ",
        "walls uid 1001, no capabilities, seccomp filters 1",
    ):
        assert part in shown.stdout
    folder = [line for line in shown.stdout.splitlines() if line.startswith("files /")]
    assert Path(folder[0].removeprefix("files ")).is_dir()
    assert max(len(line) for line in shown.stdout.splitlines() if line not in folder) <= 80


def test_the_files_are_real(told) -> None:
    """A chart, a workbook and a report are handed out, with the sizes and digests that were told."""
    result, copied = told
    artifacts = result["acts"][0]["result"]["artifacts"]
    files = {Path(artifact["path"]).name: copied / artifact["path"] for artifact in artifacts}
    assert sorted(files) == ["chart.png", "report.md", "summary.xlsx"]
    for artifact in artifacts:
        data = (copied / artifact["path"]).read_bytes()
        assert (artifact["bytes"], artifact["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert files["chart.png"].read_bytes()[16:24] == (1200).to_bytes(4) + (750).to_bytes(4)  # its pixels
    assert "| Gentoo | 123 | 217.2 | 5076.0 | 0.7 |" in files["report.md"].read_text()
    with zipfile.ZipFile(files["summary.xlsx"]) as book:
        assert "xl/worksheets/sheet2.xml" in book.namelist()


@pytest.mark.parametrize("title", MESSAGES)
def test_json_tells_how_each_attack_was_stopped(told, title) -> None:
    """Each attack's record holds its expected status and code, the same real ones, and why."""
    act = next(act for act in told[0]["acts"] if act["title"] == title)
    result = act["result"]
    assert act["wrong"] == []
    assert act["expected"] == {"status": result["status"], "code": result["error"]["code"]}
    assert MESSAGES[title] in result["error"]["message"] + result["error"]["hint"]
    assert result["isolation"]["level"] == "full"


def test_a_wall_that_fails_is_told(tmp_path) -> None:
    """An ending, an output or a wall that is not as expected is named, and the demo would fail."""
    import isorun

    report, network = acts()[0], acts()[2]
    with isorun.SyncRuntime(pool_size=0, workspace_root=tmp_path) as runtime:
        result = runtime.execute("print('GOT OUT by a name')")
    weakened = replace(result, isolation={**result.isolation, "level": "weakened"})
    wrong = wrong_with(network, result)
    assert wrong[:2] == ("status: expected 'failed', got 'ok'", "code: expected 'program_error', got None")
    assert wrong[-1] == "the program got out"
    assert wrong_with(report, weakened) == (
        "succeeded: expected 3, got 0",
        "notes: expected 1, got 0",
        f"calls: expected {report.expected.calls!r}, got ()",
        "the program got out",
        "isolation is weakened",
    )


def test_missing_packages_are_named_with_the_remedy(monkeypatch) -> None:
    """Without the science packages there is one line, with the two ways to get them."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "palmerpenguins", None)
    with pytest.raises(InvalidRequest) as caught:
        find_data()
    assert str(caught.value) == (
        "the demo needs pandas, palmerpenguins: pip install 'isorun[science,demo]', or `make demo` in a checkout"
    )


def test_a_full_folder_is_refused_before_anything_runs(tmp_path) -> None:
    """--out into a folder that holds something is an error at once."""
    (tmp_path / "mine").touch()
    with pytest.raises(InvalidRequest, match="is not empty"):
        demo(out=tmp_path)


def test_the_data_is_not_imported() -> None:
    """The data set's package is found, not run: its import would be unread code outside the walls."""
    code = "import sys, isorun.cli.scenes.demo as d; d.find_data(); sys.exit('palmerpenguins' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("act", acts(), ids=lambda act: act.title)
def test_each_program_says_what_it_does(act, shown) -> None:
    """The first line of each program is a sentence, and the demo shows it."""
    assert re.fullmatch(r"[A-Z][a-z]* .+\.", says(act))
    if act is not acts()[0]:  # of that one an excerpt is shown
        assert says(act) in " ".join(shown.stdout.split())


def test_the_demo_is_a_list_of_scenarios() -> None:
    """Four are the bundle's own, with its programs and what it expects of them."""
    listed = bundle_module(example_bundle(), "exec").SCENARIOS
    shared = [act for act in acts() if act.number]
    assert [act.number for act in shared] == [13, 15, 5, 19]
    for act in shared:
        assert (act.program, act.expected) == (listed[act.number].program, listed[act.number].expected)
