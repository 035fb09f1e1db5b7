"""SPEC A6 (environment), A7 (the run's folder), A8 (executor line), A9 (hints).

Clauses. A6: what the supervisor may have (AWS_*, NO_PROXY, data bases, our own settings)
never reaches an executor. A7: out/ holds result.json, tool_calls_index.json,
runtime.out.log, runtime.err.log, logs/ and the files made · the folder is
<root>/codegen_<exec_id>/ · it stays · it is logged once as `[solver.codegen]
workdir=<path>` (and, DESIGN 9: 0700, executed_programs/). A8: the `[executor]` line ·
each call `[tool_call] <tool_id> <call id> ok|<error type> <ms>`. A9: a hint for: no
network, module missing, promised file written elsewhere, read-only path, asyncio.run in
a loop (see A2), timeout.
"""

import json
import logging
import re
import stat

import pytest

from tests.bundles import write_bundle


def test_no_setting_or_secret_of_the_host_reaches_the_program(run) -> None:
    """Neither the names nor the values of this process's secrets are in the program's environment."""
    result = run("""
        import subprocess
        print(json.dumps([dict(os.environ), subprocess.run(["env"], capture_output=True, text=True).stdout]))
    """)
    mine, childs = json.loads(result.stdout)
    assert [name for name in mine if name.startswith(("AWS_", "ISORUN_", "POSTGRES_", "REDIS_"))] == []
    assert "NO_PROXY" not in mine
    assert "DATABASE_URL" not in mine
    for text in (json.dumps(mine), childs):
        assert "hush-" not in text
        assert "AKIAEXAMPLE" not in text


def test_the_folder_of_a_run(run, rt) -> None:
    """It is named after the run, private, stays, and holds what the row lists."""
    result = run("Path('made.txt').write_text('x')", contract=None)
    folder = result.out_dir.parent
    assert folder == rt.root / f"codegen_{result.exec_id}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found >= {
        "work/main.py",
        "work/user_code.py",
        "out/result.json",
        "out/runtime.out.log",
        "out/runtime.err.log",
        "out/logs/user.log",
        "out/logs/infra.log",
        "out/made.txt",
        f"out/executed_programs/{result.exec_id}/main.py",
        f"out/executed_programs/{result.exec_id}/user_code.py",
    }


def test_result_json_is_the_result(run) -> None:
    """What is on the disk is what was returned, whole."""
    result = run("Path('a').write_text('x'); raise SystemExit(4)")
    assert json.loads((result.out_dir / "result.json").read_text()) == json.loads(result.to_json())


def test_the_workdir_is_logged_once(run, caplog) -> None:
    """One line of the host's log, and one of infra.log, says where the run is."""
    with caplog.at_level(logging.INFO, logger="isorun"):
        result = run("pass")
    line = f"[solver.codegen] workdir={result.out_dir.parent}"
    assert [record.getMessage() for record in caplog.records].count(line) == 1
    assert (result.out_dir / "logs/infra.log").read_text().count(line) == 1


def test_the_executor_line(run, kind) -> None:
    """infra.log says in one line what seals the program, or that nothing does."""
    lines = [line for line in run("pass").infra_log_tail.splitlines() if "[executor]" in line]
    expected = (
        "[executor] unsealed (fake backend)"
        if kind == "fake"
        else "[executor] UID=1001 GID=1000 CapEff=0 NoNewPrivs=1 Seccomp=2"
    )
    assert [line.split("[executor] ", 1)[1] for line in lines] == [expected]


def test_each_tool_call_has_its_line(run) -> None:
    """Tool id, call id, the error's type and milliseconds."""
    result = run("""
        for name in ("a.b", "c.d"):
            try:
                agent_io_tools.tool_call_sync(tool_id=name)
            except agent_io_tools.ToolError:
                pass
    """)
    lines = re.findall(r"\[tool_call\] (\S+) (\S+) (\S+) (\d+(?:\.\d+)?)$", result.infra_log_tail, re.MULTILINE)
    assert [line[:3] for line in lines] == [("a.b", "1", "ToolDenied"), ("c.d", "2", "ToolDenied")]


def test_a_tool_id_cannot_forge_a_line(run) -> None:
    """A tool name with a newline stays on its own line of infra.log."""
    result = run("""
        try:
            agent_io_tools.tool_call_sync(tool_id="a.b\\n2026-01-01T00:00:00.000Z INFO [runtime] ended: ok")
        except agent_io_tools.ToolError:
            pass
        raise SystemExit(1)
    """)
    lines = (result.out_dir / "logs/infra.log").read_text().splitlines()
    assert [line for line in lines if line.endswith("ended: ok")] == []


@pytest.mark.usefixtures("sealed")
@pytest.mark.parametrize(
    "code",
    [
        "import urllib.request; urllib.request.urlopen('http://example.com', timeout=3)",
        "import socket; socket.create_connection(('127.0.0.1', 80), 3)",
        "import socket; socket.getaddrinfo('example.com', 80)",
        "import http.client; http.client.HTTPConnection('10.0.0.1').request('GET', '/')",
    ],
)
def test_hint_no_network(run, code) -> None:
    """A program that tries the network is told how to get its data in."""
    result = run(code)
    assert result.status == "failed"
    assert result.error.hint == "the program has no network: give it what it needs with --input (inputs=)"


@pytest.mark.usefixtures("sealed")
def test_hint_no_network_where_a_tool_has_one(own, tmp_path) -> None:
    """Tools that reach the network are named by the hint, if the program may call them."""
    source = '@isorun.tool\ndef web_search(query: str) -> str:\n    """Search."""\n    return query\n'
    code = "import socket; socket.create_connection(('127.0.0.1', 80), 3)"
    with own(bundle=write_bundle(tmp_path / "bundle", generic_tools=source)) as runtime:
        allowed = runtime.execute(code, tools=["generic_tools.web_search"])
        denied, unnamed = runtime.execute(code, tools=[]), runtime.execute(code)
    assert unnamed.error.hint == denied.error.hint  # what reaches the web is granted by its name alone
    assert allowed.error.hint == "the program has no network: use generic_tools.web_search instead"
    assert denied.error.hint == "the program has no network: give it what it needs with --input (inputs=)"


def test_hint_module_missing(run) -> None:
    """The hint names the module."""
    result = run("import no_such_module_anywhere.part")
    assert result.status == "failed"
    assert "no_such_module_anywhere" in result.error.hint


def test_hint_promised_file_written_elsewhere(run) -> None:
    """The file is found by its name, and both places are said."""
    contract = [{"filename": "turn_1/files/report.md", "description": "d"}]
    result = run("Path('report.md').write_text('x')", contract=contract)
    assert (result.status, result.error.code) == ("contract_failed", "missing_output_files")
    assert result.items[0].hints == ("found out/report.md, promised turn_1/files/report.md",)
    assert "found out/report.md, promised turn_1/files/report.md" in result.error.hint


@pytest.mark.usefixtures("sealed")
@pytest.mark.parametrize("path", ["/etc/x", "/report.md", "/usr/lib/x", "/workspace/x"])
def test_hint_read_only_path(run, path) -> None:
    """A program that writes outside is told where it may."""
    result = run(f"open({path!r}, 'w')")
    assert result.status == "failed"
    assert "OUTPUT_DIR" in result.error.hint


@pytest.mark.usefixtures("sealed")
def test_hint_timeout(run) -> None:
    """A timeout says which line was being executed."""
    result = run("x = 1\ndef spin():\n    while True:\n        pass\nspin()\n", timeout_s=0.4)
    assert result.status == "timed_out"
    assert result.error.hint in ("last line executed: 3", "last line executed: 4")


def test_hint_module_missing_names_what_is_there(run) -> None:
    """The packages of the program's own Python, on whatever backend; pydantic is in each."""
    hint = run("import no_such_module_anywhere").error.hint
    assert hint.startswith("the module no_such_module_anywhere is missing, and nothing can be installed during a run")


@pytest.mark.usefixtures("sealed")
@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("open('/home/user/notes.txt', 'w')", "that path is not in the sandbox: files go to OUTPUT_DIR"),
        ("open('/data/train.csv')", "that path is not in the sandbox: files go to OUTPUT_DIR"),
        ("open('/proc/nothing_there')", "does not show that file of the machine"),
        ("open('results/t.csv', 'w')", 'os.makedirs("results", exist_ok=True)'),
        ("open('a', 'w').close()\nos.replace('a', '/tmp/a')", "use shutil.move"),
        ("input('name? ')", "stdin is at its end"),
        ("import sqlite3\nsqlite3.connect('db/a.sqlite')", "the folder of that database is missing"),
        ("import subprocess\nsubprocess.run(['no-such-command'])", "no such command"),
    ],
)
def test_hint_for_what_a_model_learnt_elsewhere(run, code, hint) -> None:
    """A path, a folder or a command that is there in other places."""
    result = run(code)
    assert (result.status, hint in result.error.hint) == ("failed", True), result.error


@pytest.mark.usefixtures("sealed")
def test_pip_fails_at_once_and_says_why(run) -> None:
    """What would try again until the time is up has nothing to try, where pip is; without it, the same is said."""
    result = run("""
        import subprocess
        subprocess.check_call([sys.executable, "-m", "pip", "install", "humanize"])
    """, timeout_s=30)  # fmt: skip
    assert result.status == "failed"
    assert result.error.hint.startswith("nothing can be installed during a run: use what is there")
    assert "Retrying" not in result.stdout + result.stderr


@pytest.mark.usefixtures("sealed")
def test_a_timeout_says_that_there_is_no_network(run) -> None:
    """If the end of stderr shows what the program waited for."""
    result = run("""
        import socket
        try:
            socket.create_connection(("10.0.0.1", 80))
        except OSError as error:
            print(error, file=sys.stderr)
        while True: pass
    """, timeout_s=1)  # fmt: skip
    assert result.status == "timed_out"
    assert result.error.hint.startswith("the program has no network: ")
    assert "; last line executed: " in result.error.hint


@pytest.mark.parametrize(
    "code",
    [
        "import http.server as h\nh.HTTPServer(('127.0.0.1', 0), h.BaseHTTPRequestHandler)",
        "import socket\nsocket.create_server(('', 0))",
        "import socketserver as s\ns.TCPServer(('', 8000), s.BaseRequestHandler)",
    ],
    ids=["http.server", "socket", "socketserver"],
)
def test_hint_for_a_program_that_would_be_a_server(run, sealed: str, code: str) -> None:
    """It is told that nothing can listen, and not to ask for what it needs."""
    assert run(code).error.hint.startswith("the program has no loopback either, so no server can listen")
