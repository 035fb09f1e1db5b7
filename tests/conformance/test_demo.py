"""`isorun demo`, run as a user runs it: what it shows, what it leaves, and what it says if a wall fails."""

import base64
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

from isorun.cli.scenes.demo import acts, demo, says, wrong_with
from isorun.core.errors import InvalidRequest
from isorun.tools.bundles import bundle_module, example_bundle

ENDINGS = {
    "A report on real data": "done: three files, each checked",
    "A promised file": "noticed: it is not where it was promised",
    "Reach the network": "stopped: a program has no network",
    "Read the host's files": "stopped: not there, or not to be changed",
    "Fork bomb": "stopped: it had all processes it may have",
    "Eat all memory": "stopped: it had all memory it may have",
    "Fill the disk": "stopped: its disk space was full",
    "Never end": "stopped: its time was over",
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
def test_a_row_tells_how_a_program_ended(shown, title) -> None:
    """The closing table has a row for each program: what stopped it, in words, and that this was foreseen."""
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
        "✔ ending   stopped: a program has no network, after ",
        "hint     last line executed: ",
        "walls uid 1001, no capabilities, seccomp filters 1",
    ):
        assert part in shown.stdout
    folder = [line for line in shown.stdout.splitlines() if line.startswith(("files /", "report /"))]
    assert Path(folder[0].removeprefix("files ")).is_dir()
    assert Path(folder[1].removeprefix("report ")).is_file()
    assert max(len(line) for line in shown.stdout.splitlines() if line not in folder) <= 80


def test_the_report_shows_the_chart_and_every_ending(told) -> None:
    """report.html has the chart in itself, each attempt with its ending, and the walls."""
    result, copied = told
    assert result["report"] == str(copied / "report.html")
    text = (copied / "report.html").read_text(encoding="utf-8")
    chart = (copied / "turn_demo" / "files" / "chart.png").read_bytes()
    assert f'src="data:image/png;base64,{base64.b64encode(chart).decode()}"' in text
    for title, ending in ENDINGS.items():
        assert title.replace("'", "&#x27;") in text
        assert f'<span class="held">✔ {ending}</span>' in text
    for wall in ("seccomp", "landlock abi", "namespaces", "isolation", "limits held by"):
        assert f"<tr><td>{wall}</td>" in text
    assert not re.search(r"""<script|<link|@import|(src|href)="(?!data:)""", text)  # it needs nothing beside it


@pytest.mark.parametrize("missing", ["pandas", "matplotlib"])
def test_the_demo_runs_with_what_isorun_itself_needs(tmp_path, missing) -> None:
    """Without the packages for science another program makes the same three files; nothing needs to be installed."""
    code = f"import sys; sys.modules[{missing!r}] = None; from isorun.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "demo", "--json", "--out", str(tmp_path / "files")],
        env=os.environ | {"ISORUN_WORKSPACE_ROOT": str(tmp_path / "runs")},
        capture_output=True,
        text=True,
        timeout=55,
    )
    assert (done.returncode, done.stderr) == (0, "")
    first = json.loads(done.stdout)["acts"][0]["result"]
    (program,) = (tmp_path / "files" / "executed_programs").rglob("user_code.py")
    assert "pillow draws the chart" in program.read_text()
    assert [artifact["mime"] for artifact in first["artifacts"]][:1] == ["image/png"]
    report = (tmp_path / "files" / "turn_demo" / "files" / "report.md").read_text()
    assert "| Gentoo | 123 | 217.2 | 5076.0 | 0.7 |" in report


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


def test_a_full_folder_is_refused_before_anything_runs(tmp_path) -> None:
    """--out into a folder that holds something is an error at once."""
    (tmp_path / "mine").touch()
    with pytest.raises(InvalidRequest, match="is not empty"):
        demo(out=tmp_path)


def test_what_the_programs_use_is_not_imported() -> None:
    """Packages for science are looked for and not run: an import would be unread code outside the walls."""
    code = "import sys, isorun.cli.scenes.demo as d; d.acts(); sys.exit('pandas' in sys.modules)"
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
