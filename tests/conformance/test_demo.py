"""`isorun demo`, run as a user runs it: what it shows, what it leaves, and what it says if a wall fails.

Root's half of CI judges how each attack was stopped, and what was written, by the JSON; what the screen shows is the
same for both.
"""

import asyncio
import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from html import escape
from pathlib import Path

import pytest
from pypdf import PdfReader
from rich.console import Console

from isorun.cli.scenes.acts import Act, acts, is_useful, programs, says, wrong_with
from isorun.cli.scenes.demo import demo, run, runtime_for
from isorun.core.errors import InvalidRequest
from isorun.runtime.runtime import Runtime
from isorun.tools.bundles import bundle_module, example_bundle

SEARCHES = json.loads(Path(str(programs() / "searches.json")).read_text("utf-8"))["searches"]
ENDINGS = {
    "A report on real data": "done: three files, each checked",
    "A report with sources": "done: a PDF with its sources, checked",
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


#: What a caller may have set for searches of his own; nothing answers there.
SEARCH = {
    "ISORUN_SEARCH_PROVIDERS": "searxng",
    "ISORUN_SEARXNG_URL": "http://127.0.0.1:9",
    "ISORUN_WEB_PROXY": "http://127.0.0.1:9",
}


def by_title(title: str) -> Act:
    return next(act for act in acts() if act.title == title)


def run_demo(root: Path, *options: str, columns: int = 80, **env: str) -> "subprocess.CompletedProcess[str]":
    """The command, with the runs' folders below *root*."""
    return subprocess.run(
        [sys.executable, "-m", "isorun.cli.main", "demo", *options],
        env=os.environ | {"ISORUN_WORKSPACE_ROOT": str(root), "COLUMNS": str(columns), "PYTHONUTF8": "1"} | env,
        capture_output=True,
        text=True,
        timeout=55,
    )


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> "subprocess.CompletedProcess[str]":
    return run_demo(tmp_path_factory.mktemp("shown"))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    """The demo's JSON, and the folder that its files were copied to, where the caller has set a search of his own."""
    folder = tmp_path_factory.mktemp("told")
    done = run_demo(folder, "--json", "--out", str(folder / "copied"), **SEARCH)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout), folder / "copied"


@pytest.mark.any_user
def test_every_wall_holds(shown) -> None:
    """The demo exits with 0, says so last, and writes nothing to stderr."""
    assert (shown.returncode, shown.stderr) == (0, ""), shown.stdout
    assert shown.stdout.splitlines()[-1].startswith("every wall held (")


@pytest.mark.any_user
@pytest.mark.parametrize("title", ENDINGS)
def test_a_row_tells_how_a_program_ended(shown, title) -> None:
    """The closing table has a row for each program: what stopped it, in words, and that this was foreseen."""
    rows = [" ".join(line.split()) for line in shown.stdout.splitlines() if line.startswith(title)]
    assert len(rows) == 1
    before, _, after = rows[0].removeprefix(title).strip().rpartition(" s ")
    assert (before.rpartition(" ")[0], after) == (ENDINGS[title], "✔")


@pytest.mark.any_user
def test_the_screen_has_its_parts(shown) -> None:
    """Credit, excerpt, live and partial output, hints, walls and the folder are shown in 80 columns."""
    for part in (
        "Horst AM, Hill AP, Gorman KB (2020), CC-0",
        "def draw(birds: pd.DataFrame, to: Path) -> None:",
        'axes.scatter(x, y, label=f"{species} (n = {len(group)})", **dots)',
        "│ read 344 penguins, 342 of them measured",
        "tool     reference_tools.species, 3 calls",
        "pages = await generic_tools.web_search(query=query, n=3)",
        "│ 342 birds contradict 2 of 6 pages",
        "tool     generic_tools.web_search, 3 calls",
        "tool     generic_tools.write_pdf, 1 call",
        "hint     found out/report.md, promised turn_demo/files/report.md",
        "│ /etc/shadow: No such file or directory",
        "│ 20 digits: 141421356237309504880",
        "✔ ending   stopped: a program has no network, after ",
        "hint     last line executed: ",
        "walls uid 1001, no capabilities, seccomp filters 1",
    ):
        assert part in shown.stdout
    *files, report = [line for line in shown.stdout.splitlines() if line.startswith(("files /", "report /"))]
    written = [sorted(path.name for path in Path(line.removeprefix("files ")).iterdir()) for line in files]
    assert written == [["chart.png", "report.md", "summary.xlsx"], ["report.pdf", "report.png"]]
    assert Path(report.removeprefix("report ")).is_file()
    assert max(len(line) for line in shown.stdout.splitlines() if line not in (*files, report)) <= 80


def test_the_report_shows_the_pictures_and_every_ending(told) -> None:
    """report.html has both pictures in itself, each attempt with its ending, and the walls."""
    result, copied = told
    assert result["report"] == str(copied / "report.html")
    text = (copied / "report.html").read_text(encoding="utf-8")
    for name in ("chart.png", "report.png"):
        picture = (copied / "turn_demo" / "files" / name).read_bytes()
        assert f'alt="{name}" src="data:image/png;base64,{base64.b64encode(picture).decode()}"' in text
    for title, ending in ENDINGS.items():
        assert title.replace("'", "&#x27;") in text
        assert f'<span class="held">✔ {ending}</span>' in text
    for wall in ("seccomp", "landlock abi", "namespaces", "isolation", "limits held by"):
        assert f"<tr><td>{wall}</td>" in text
    assert not re.search(r"""<script|<link|@import|(src|href)="(?!data:)""", text)  # it needs nothing beside it


@pytest.mark.any_user
@pytest.mark.parametrize("missing", [("pandas",), ("matplotlib", "typst", "mdit_py_plugins")])
def test_the_demo_runs_with_what_isorun_itself_needs(tmp_path, missing) -> None:
    """Without the packages for science another program makes the same three files; nothing needs to be installed.

    Without those that write a PDF the report with sources is left out, and the demo says so.
    """
    code = f"import sys; sys.modules |= dict.fromkeys({missing!r}); from isorun.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "demo", "--json", "--out", str(tmp_path / "files")],
        env=os.environ | {"ISORUN_WORKSPACE_ROOT": str(tmp_path / "runs")},
        capture_output=True,
        text=True,
        timeout=55,
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    first = told["acts"][0]["result"]
    (program,) = (tmp_path / "files" / "executed_programs").rglob("user_code.py")
    assert "pillow draws the chart" in program.read_text()
    assert [artifact["mime"] for artifact in first["artifacts"]][:1] == ["image/png"]
    report = (tmp_path / "files" / "turn_demo" / "files" / "report.md").read_text()
    assert "| Gentoo | 123 | 217.2 | 5076.0 | 0.7 |" in report
    left_out = "A report with sources is left out; it needs typst, mdit-py-plugins: pip install 'isorun[demo]'"
    assert told["left_out"] == (left_out if "typst" in missing else "")
    assert len(told["acts"]) == (8 if "typst" in missing else 9)
    page = (tmp_path / "files" / "report.html").read_text(encoding="utf-8")
    assert (escape(left_out) in page) == ("typst" in missing)


def test_the_pdf_cites_its_sources(told) -> None:
    """report.pdf is a page with a chart, a table and numbers that lead to the sources, each with its address."""
    result, copied = told
    (page,) = PdfReader(copied / "turn_demo" / "files" / "report.pdf").pages
    text = " ".join(page.extract_text().split())
    assert text.startswith("Do web pages know what a penguin weighs? Of 6 pages that a search found, 4 agree")
    assert "Chinstrap 5.00 3.73 +34% no [1]" in text
    assert "The pages are invented for this demo" in text
    links = [annotation.get_object() for annotation in page["/Annots"]]
    addresses = {link["/A"]["/URI"] for link in links if link.get("/A", {}).get("/URI")}
    assert addresses == {row["url"] for search in SEARCHES for row in search["results"]}
    assert len(links) - sum("/URI" in link.get("/A", {}) for link in links) == 8  # from the citations to the sources
    assert result["acts"][1]["expected"] == {"status": "ok", "code": None}


@pytest.mark.parametrize(
    ("title", "granted"),
    [("A report with sources", ["web_search", "write_pdf", "write_png"]), ("Reach the network", [])],
)
def test_only_the_program_that_searches_has_built_in_tools(tmp_path, monkeypatch, title, granted) -> None:
    """One program is granted the three that it needs; the others have the bundle's alone."""
    monkeypatch.setenv("ISORUN_WORKSPACE_ROOT", str(tmp_path))
    found = "dir(globals().get('generic_tools')) if not name.startswith('_')"
    act = replace(by_title(title), program=f"print(sorted(name for name in {found}))", promises=())

    async def played() -> str:
        async with Runtime(bundle=example_bundle(), pool_size=0) as runtime, runtime_for(act, runtime) as its:
            return (await run(its, act, Path(__file__), (), Console(quiet=True))).stdout

    assert asyncio.run(played()) == f"{granted}\n"


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

    report, network = by_title("A report on real data"), by_title("Reach the network")
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


@pytest.mark.any_user
def test_a_full_folder_is_refused_before_anything_runs(tmp_path) -> None:
    """--out into a folder that holds something is an error at once."""
    (tmp_path / "mine").touch()
    with pytest.raises(InvalidRequest, match="is not empty"):
        demo(out=tmp_path)


@pytest.mark.any_user
def test_what_the_programs_use_is_not_imported() -> None:
    """What programs and tools need is looked for and not run: an import would be unread code outside the walls."""
    code = "import sys, isorun.cli.scenes.demo as d; d.acts(); sys.exit(bool({'pandas', 'typst'} & {*sys.modules}))"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.any_user
@pytest.mark.parametrize("act", acts(), ids=lambda act: act.title)
def test_each_program_says_what_it_does(act, shown) -> None:
    """The first line of each program is a sentence, and the demo shows it."""
    assert re.fullmatch(r"[A-Z][a-z]* .+\.", says(act))
    if not is_useful(act):  # of a useful one an excerpt is shown
        assert says(act) in " ".join(shown.stdout.split())


@pytest.mark.any_user
def test_the_demo_is_a_list_of_scenarios() -> None:
    """Four are the bundle's own, with its programs and what it expects of them."""
    listed = bundle_module(example_bundle(), "exec").SCENARIOS
    shared = [act for act in acts() if act.number]
    assert [act.number for act in shared] == [13, 15, 5, 19]
    for act in shared:
        assert (act.program, act.expected) == (listed[act.number].program, listed[act.number].expected)
