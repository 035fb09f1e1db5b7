"""SPEC B7: the result (DESIGN 6) and the order of `report_text`.

Clauses: the fields are those of DESIGN 6 · report_text says status, runtime failure, file
errors, missing outputs, succeeded, infra errors, program log tail, side effects, in this
order · stdout and stderr are exact, capped, and what was cut is said · usage and timings
name their units · raise_for_status, text, _repr_html_.
"""

import dataclasses
import json
import re

import pytest

import isorun

_FIELDS = [
    "ok",
    "status",
    "exec_id",
    "turn_id",
    "prog_name",
    "exit_code",
    "signal",
    "error",
    "stdout",
    "stderr",
    "truncated",
    "artifacts",
    "items",
    "succeeded",
    "missing",
    "notices",
    "workspace_diff",
    "tool_calls",
    "report_text",
    "user_log_tail",
    "infra_log_tail",
    "user_error_lines",
    "user_tracebacks",
    "out_dir",
    "timings",
    "usage",
    "limits",
    "isolation",
    "schema",
]


def test_the_fields_are_those_of_the_design(run) -> None:
    """No field is missing, and each survives a round trip through JSON."""
    result = run("print('x')", prog_name="report_generator")
    assert {field.name for field in dataclasses.fields(result)} >= set(_FIELDS)
    assert set(json.loads(result.to_json())) >= set(_FIELDS)
    assert (result.ok, result.status, result.prog_name, result.error) == (
        True,
        "ok",
        "report_generator",
        None,
    )
    assert set(result.usage) == {"cpu_s", "wall_s", "max_rss_bytes", "output_bytes"}
    assert result.usage["output_bytes"] == 2
    assert result.usage["max_rss_bytes"] > 1 << 20
    assert 0 < result.usage["wall_s"] < 10
    assert 0 <= result.usage["cpu_s"] < 10
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", result.timings["accepted"])
    assert result.timings["accepted"] <= result.timings["ended"]
    assert result.limits["wall_s"] == 10


def test_isolation_is_said(run, kind) -> None:
    """The result says which walls stood, and that there were none where there were none."""
    isolation = run("pass").isolation
    backend = {"fake": "fake", "docker": "docker", "gvisor": "docker"}.get(kind, "namespace")
    assert (isolation["level"], isolation["backend"]) == ("none" if kind == "fake" else "full", backend)
    held = {"fake": "none", "namespace-cgroup": "cgroup-", "docker": "cgroup-", "gvisor": "engine"}
    assert isolation["limits"].startswith(held.get(kind, "rlimits+watcher"))


def test_report_text_order(run) -> None:
    """A run with every kind of trouble says them in the row's order."""
    contract = [
        {"filename": f"turn_1/files/{name}", "description": "d"} for name in ("fine.txt", "empty.txt", "none.txt")
    ]
    result = run(
        """
        print("log line of mine")
        Path("turn_1/files/fine.txt").write_text("x")
        Path("turn_1/files/empty.txt").touch()
        raise ValueError("wrong")
        """,
        contract=contract,
    )
    text = result.report_text
    parts = [
        "status: failed",
        "runtime failure: ",
        "file errors:",
        "missing outputs:",
        "succeeded:",
        "log line of mine",
    ]
    at = [text.index(part) for part in parts]
    assert at == sorted(at)
    assert (result.succeeded, result.missing) == (("turn_1/files/fine.txt",), ("turn_1/files/none.txt",))
    assert {item.path.split("/")[-1]: item.codes for item in result.items} == {
        "fine.txt": (),
        "empty.txt": ("empty_file",),
        "none.txt": ("missing_file",),
    }


def test_report_text_ends_with_the_side_effects(run) -> None:
    """Without a contract the lists of the comparison follow the log."""
    text = run("print('log line'); Path('made.txt').write_text('x')").report_text
    assert text.index("log line") < text.index("made.txt")


def test_streams_are_exact(run) -> None:
    """Each stream has its own bytes and none of the other's."""
    result = run("for n in range(300): print(n); print(-n, file=sys.stderr)")
    assert result.stdout == "".join(f"{n}\n" for n in range(300))
    assert result.stderr == "".join(f"{-n}\n" for n in range(300))
    assert not result.truncated
    assert result.text == result.stdout


def test_bytes_that_are_not_utf8_do_not_break_the_result(run) -> None:
    """Whatever is written, the result is text and JSON."""
    result = run(r"os.write(1, b'\xff\xfe ok \x00\n'); sys.stderr.buffer.write(b'\xc3')")
    assert result.stdout == "\ufffd\ufffd ok \x00\n"
    assert json.loads(result.to_json())["stderr"] == "\ufffd"


def test_a_long_stream_is_cut_and_said(own) -> None:
    """The result keeps the beginning and the end, says how much is between them, and that it did."""
    with own(limits=isorun.Limits(result_bytes=10_000)) as rt:
        result = rt.execute("print('first'); print('x' * 50_000); print('last')")
    assert result.status == "ok"
    assert result.truncated
    assert result.stdout.startswith("first\n")
    assert result.stdout.endswith("last\n")
    (cut,) = re.findall(r"\[\.\.\. (\d+) bytes were cut here \.\.\.\]", result.stdout)
    assert int(cut) == len("first\nlast\n") + 50_001 - 10_000
    assert any("output was cut: 50012 bytes were printed" in notice for notice in result.notices)


def test_raise_for_status(run) -> None:
    """A result that is not ok raises with the whole result; an ok one is returned."""
    good = run("pass")
    assert good.raise_for_status() is good
    bad = run("raise SystemExit(3)")
    with pytest.raises(isorun.RunFailed) as caught:
        bad.raise_for_status()
    assert caught.value.result is bad
    assert str(caught.value) == "failed: exit code 3"


def test_html_escapes_what_the_program_says(run) -> None:
    """A notebook shows the output as text."""
    html = run("print('<script>alert(1)</script>')")._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_result_json_says_where_the_files_are(run) -> None:
    """`out_dir` in result.json is the folder that holds it, and each artifact's file lies in it."""
    result = run("open('x', 'w').write('y')")
    told = json.loads((result.out_dir / "result.json").read_text())
    assert told["out_dir"] == str(result.out_dir)
    assert [item["file"] for item in told["artifacts"]] == [str(result.out_dir / "x")]
