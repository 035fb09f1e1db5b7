"""Programs as a person or a model writes them who has read nothing: inputs by name, outputs beside them.

SPEC A2: given inputs are found in the working directory, lie beside the program as well, and never count as
outputs; it is otherwise empty. B2: a promise without a turn is met by out/NAME, and the file is moved.
"""

from pathlib import Path

import pytest

import isorun

SUMMARY = [{"filename": "summary.csv", "description": "the summary"}]
WRITE = "open('summary.csv', 'w').write('a\\n')"

PROGRAMS = {
    "pandas": "import pandas as pd; pd.read_csv('sales.csv').describe().to_csv('summary.csv')",
    "open": "text = open('sales.csv').read()\nopen('summary.csv', 'w').write(text.upper())",
    "pathlib": "from pathlib import Path\nPath('summary.csv').write_text(Path('sales.csv').read_text())",
    "csv": """
        import csv
        with open("sales.csv", newline="") as source, open("summary.csv", "w", newline="") as target:
            csv.writer(target).writerows(csv.reader(source))
        """,
    "every file of the folder": """
        import os
        sizes = {name: len(open(name).read()) for name in os.listdir()}
        with open("summary.csv", "w") as file:
            for name, size in sizes.items():
                print(name, size, sep=",", file=file)
        """,
    "glob": f"import glob\nassert glob.glob('*.csv') == ['sales.csv']\n{WRITE}",
    "walk": f"import os\nassert [n for _, _, names in os.walk('.') for n in names] == ['sales.csv']\n{WRITE}",
    "an absolute path of its own": f"import os\nopen(os.path.abspath('sales.csv')).close()\n{WRITE}",
    "OUTPUT_DIR": "import os\nopen(os.path.join(os.environ['OUTPUT_DIR'], 'summary.csv'), 'w').write('a')",
    "a main guard": f"""
        def main():
            open("sales.csv").close()
            {WRITE}
        if __name__ == "__main__":
            main()
        """,
    "a temporary file first": """
        import os
        open("summary.csv.part", "w").write("a")
        os.replace("summary.csv.part", "summary.csv")
        """,
    "a database": """
        import sqlite3
        with sqlite3.connect("scratch.db") as base:
            base.execute("create table t (a)")
        open("summary.csv", "w").write("a")
        """,
    "a subprocess": f"import subprocess\nsubprocess.run(['cat', 'sales.csv'], check=True)\n{WRITE}",
    "a helper beside it": f"from pathlib import Path\nassert Path(__file__).with_name('sales.csv').exists()\n{WRITE}",
    "the folder for this turn": "open(f'{TURN_ID}/files/summary.csv', 'w').write('a')",
    "the path of the promise": "open(CONTRACT[0]['filename'] if CONTRACT else 'summary.csv', 'w').write('a')",
}


@pytest.fixture
def sales(tmp_path: Path) -> Path:
    file = tmp_path / "sales.csv"
    file.write_text("item,price\na,1\nb,2\n")
    return file


@pytest.mark.parametrize("code", PROGRAMS.values(), ids=PROGRAMS)
def test_it_works_as_it_would_anywhere(run, sales: Path, code: str) -> None:
    """Without a contract the summary comes back, and the input does not."""
    result = run(code, inputs=[sales])
    assert result.status == "ok", result.report_text
    assert [Path(path).name for path in result.workspace_diff["created"] if "scratch" not in path] == ["summary.csv"]
    assert result.workspace_diff["modified"] == result.workspace_diff["deleted"] == ()
    assert "sales.csv" not in {artifact.path for artifact in result.artifacts}


@pytest.mark.parametrize("code", PROGRAMS.values(), ids=PROGRAMS)
def test_it_keeps_a_promise_that_names_no_folder(run, sales: Path, code: str) -> None:
    """The same program under a contract: the promised file is where the promise says, wherever it was written."""
    result = run(code, inputs=[sales], contract=SUMMARY)
    assert result.status == "ok", result.report_text
    (artifact,) = result.artifacts
    assert artifact.path == f"{result.turn_id}/files/summary.csv"
    assert artifact.file.stat().st_size == artifact.bytes > 0
    assert not (result.out_dir / "summary.csv").exists()
    moved = f"out/summary.csv was moved to {artifact.path}, where it is promised"
    assert (moved in result.notices) == ("TURN_ID" not in code and "CONTRACT" not in code)


def test_the_working_directory_is_empty(run) -> None:
    """Nothing of ours stands in it, unless the caller or the program speaks of the turn."""
    look = "import os; print(os.listdir())"
    assert run(look).stdout == "[]\n"
    assert run(look, contract=SUMMARY).stdout == "[]\n"
    assert run(look, turn_id=7).stdout == "['turn_7']\n"
    assert run(look, contract=[{**SUMMARY[0], "filename": "turn_7/files/a.txt"}]).stdout == "['turn_7']\n"
    assert run("import os; print(os.listdir() == [TURN_ID], os.listdir(TURN_ID))").stdout == "True ['files']\n"


def test_a_promise_with_its_folder_stays_strict(run) -> None:
    """A turn that is named is meant; the hint says where the file was found."""
    result = run(WRITE, contract=[{"filename": "turn_1/files/summary.csv", "description": "d"}])
    assert result.status == "contract_failed"
    assert result.error.hint == "found out/summary.csv, promised turn_1/files/summary.csv"
    assert (result.out_dir / "summary.csv").exists()


def test_a_promise_below_a_folder_is_met_below_it(run) -> None:
    """`tables/a.csv` means out/tables/a.csv as well, and no other a.csv."""
    promised = [{"filename": "tables/a.csv", "description": "d"}]
    met = run("import os; os.mkdir('tables'); open('tables/a.csv', 'w').write('a')", contract=promised)
    assert [artifact.path for artifact in met.artifacts] == [f"{met.turn_id}/files/tables/a.csv"]
    beside = run("open('a.csv', 'w').write('a')", contract=promised)
    assert beside.missing == (f"{beside.turn_id}/files/tables/a.csv",)


def test_what_stands_in_the_turn_comes_first(run) -> None:
    """Of two files for one promise the one in its place counts; the other stays, and is told."""
    code = "open('summary.csv', 'w').write('draft')\nopen(f'{TURN_ID}/files/summary.csv', 'w').write('final')"
    result = run(code, contract=SUMMARY)
    assert result.artifacts[0].file.read_text() == "final"
    assert (result.out_dir / "summary.csv").read_text() == "draft"
    assert "also written, not promised: summary.csv (5 bytes)" in result.notices


def test_an_input_keeps_no_promise(run, sales: Path) -> None:
    """A file that the run was given and did not change is nothing that it made."""
    promised = [{"filename": "sales.csv", "description": "d"}]
    assert run("pass", inputs=[sales], contract=promised).status == "contract_failed"
    changed = run("open('sales.csv', 'a').write('c,3\\n')", inputs=[sales], contract=promised)
    assert changed.artifacts[0].file.read_text() == "item,price\na,1\nb,2\nc,3\n"


def test_an_input_that_is_changed_is_an_output(run, sales: Path) -> None:
    """In place, by its name in work/, or replaced; the caller's own file stays as it was."""
    for code in (
        "open('sales.csv', 'a').write('x')",
        "open('/workspace/work/sales.csv' if os.path.exists('/workspace') else '../work/sales.csv', 'a').write('x')",
        "os.remove('sales.csv'); open('sales.csv', 'w').write('x')",
    ):
        result = run(code, inputs=[sales])
        assert result.workspace_diff == {"created": (), "modified": ("sales.csv",), "deleted": ()}, result.report_text
    assert run("os.remove('sales.csv')", inputs=[sales]).workspace_diff["deleted"] == ()
    assert sales.read_text() == "item,price\na,1\nb,2\n"


def test_folders_and_contents_are_inputs_as_well(run, tmp_path: Path) -> None:
    """A folder with what is below it; texts, bytes and files by the name that the caller gives them."""
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "deep" / "a.txt").write_text("deep")
    look = "print(open('data/deep/a.txt').read(), open('../work/data/deep/a.txt').read())"
    assert run(look, inputs=[tmp_path / "data"]).stdout == "deep deep\n"
    given = {"a.csv": b"\xff", "notes/b.txt": "text", "c.txt": tmp_path / "data" / "deep" / "a.txt"}
    code = "print(open('a.csv', 'rb').read(), open('notes/b.txt').read(), open('c.txt').read())"
    result = run(code, inputs=given)
    assert result.stdout == "b'\\xff' text deep\n"
    assert result.artifacts == ()


def test_out_comes_before_an_input_of_its_name(run, sales: Path, tmp_path: Path) -> None:
    """The folder that out/ starts as keeps its files; the input then stands beside the program alone."""
    (tmp_path / "before").mkdir()
    (tmp_path / "before" / "sales.csv").write_text("mine")
    code = "print(open('sales.csv').read(), len(open('../work/sales.csv').read()))"
    result = run(code, inputs=[sales], out=tmp_path / "before")
    assert result.stdout == "mine 19\n"
    assert result.workspace_diff == {"created": (), "modified": (), "deleted": ()}


def test_modules_beside_the_program_are_imported(run, tmp_path: Path) -> None:
    """A helper file and a package, given as inputs."""
    (tmp_path / "helper.py").write_text("x = 1")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("y = 2")
    result = run(
        "import helper, package; print(helper.x, package.y)", inputs=[tmp_path / "helper.py", tmp_path / "package"]
    )
    assert (result.stdout, result.artifacts) == ("1 2\n", ())


def test_models_name_for_the_output_folder(run, sealed: str) -> None:
    """`/mnt/data` is where some models write: it is the working directory by another name."""
    result = run("os.makedirs('/mnt/data', exist_ok=True)\nopen('/mnt/data/notes.txt', 'w').write('x')")
    assert [artifact.path for artifact in result.artifacts] == ["notes.txt"], result.report_text


@pytest.mark.parametrize("env", [{"GREETING": "hello world"}, {"A": "", "B": "é=1\n2"}])
def test_a_run_has_variables_of_its_own(run, env: dict[str, str]) -> None:
    """The program and its children see them, and the next run does not."""
    code = f"""
        import subprocess
        names = {list(env)!r}
        child = "import os, sys; print([os.environ[n] for n in sys.argv[1:]])"
        print([os.environ.get(n) for n in names])
        subprocess.run([sys.executable, "-c", child, *names], check=True)
    """
    assert run(code, env=env).stdout == f"{list(env.values())}\n" * 2
    assert run("print([n for n in os.environ if n in ('GREETING', 'A', 'B')])").stdout == "[]\n"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"env": {"a b": "1"}}, "invalid_env"),
        ({"env": {"OUTPUT_DIR": "/tmp"}}, "invalid_env"),
        ({"env": {"A": "x" * 70_000}}, "invalid_env"),
        ({"env": {"A": 1}}, "invalid_env"),
        ({"inputs": {"../a": b""}}, "invalid_input"),
        ({"inputs": {"/etc/passwd": b""}}, "invalid_input"),
        ({"inputs": {"a": 1}}, "invalid_input"),
        ({"inputs": {"a": b"", "a/b": b""}}, "duplicate_input"),
    ],
)
@pytest.mark.no_backend
def test_what_cannot_be_given_is_refused(run, options: dict[str, object], code: str) -> None:
    """With the name, and without the value of a variable."""
    with pytest.raises(isorun.InvalidRequest) as refused:
        run("pass", **options)
    assert refused.value.code == code
    assert "xxx" not in str(refused.value)


def test_a_zone_that_is_given_counts(run) -> None:
    """For the program itself as for its children, as if it had been started with it."""
    result = run("print(time.strftime('%H', time.localtime(0)), time.tzname[0])", env={"TZ": "AAA-3"})
    assert result.stdout == "03 AAA\n"
    assert run("print(time.strftime('%H', time.localtime(0)))").stdout == "00\n"
