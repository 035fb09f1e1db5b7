"""The records of tool calls in out/: named by us, whatever a program called its tools."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isorun.store.folder import Lease, RunFolder, open_root
from isorun.store.journal import INDEX, listed, publish

STARTED = 1_700_000_000.123456


def record(**fields: object) -> dict[str, Any]:
    given_ = {
        "call_id": 1,
        "tool_id": "x.f",
        "reason": "because",
        "status": "ok",
        "ms": 1.5,
        "started_at": STARTED,
        "params": {"a": 1},
        "result": 2,
    }
    return {**given_, **fields}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    root = open_root(tmp_path / "root")
    return RunFolder.create(root, "an-id", Lease.take(root), {"prog_name": "", "turn": "turn_1", "timeout_s": 1.0})


def files(folder: RunFolder) -> dict[str, bytes]:
    """What there is in out/ itself, and what anywhere else below the root that is not the run's own."""
    out = Path(folder.path) / "out"
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def test_a_run_without_calls_has_no_journal(folder: RunFolder) -> None:
    """No index either: a program that called nothing gets no file for it."""
    before = files(folder)
    publish(folder, [])
    assert files(folder) == before


def test_each_call_has_a_file_and_its_line_in_the_index(folder: RunFolder) -> None:
    """The index shows what the result shows; the file adds params, and result or error."""
    records = [record(), record(call_id=2, status="ToolFailed", error="no", result=None)]
    del records[1]["result"]
    publish(folder, records)
    index = json.loads(files(folder)[INDEX])
    assert index == {"schema": 1, "exec_id": "an-id", "calls": list(listed(records))}
    assert index["calls"][0] == {
        "call_id": 1,
        "tool_id": "x.f",
        "reason": "because",
        "status": "ok",
        "ms": 1.5,
        "started": "2023-11-14T22:13:20.123Z",
        "record": "x.f-20231114T221320.123456-1.json",
    }
    first, second = (json.loads(files(folder)[entry["record"]]) for entry in index["calls"])
    assert first == {**index["calls"][0], "params": {"a": 1}, "result": 2}
    assert second == {**index["calls"][1], "params": {"a": 1}, "error": "no"}


HOSTILE = [
    "../../etc/passwd", "/etc/passwd", "..", ".", "", "a/b", "a\0b", ".hidden", "x" * 10_000, "é" * 300,
    "\u202ereversed",
    "a\nb", "-rf", "con:", "tool_calls_index", "result", "~root", "*", "$HOME", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("tool_id", HOSTILE)
def test_a_name_stays_in_out(folder: RunFolder, tool_id: str) -> None:
    """What a program called a tool is a part of the name only where it is letters, and never leads out or hides."""
    before = sorted(Path(folder.path).rglob("*"))
    publish(folder, [record(tool_id=tool_id)])
    made = [path for path in sorted(Path(folder.path).rglob("*")) if path not in before]
    assert len(made) == 2
    assert {path.parent for path in made} == {Path(folder.path) / "out"}
    (name,) = (path.name for path in made if path.name != INDEX)
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}-20231114T221320\.123456-1\.json", name)


@given(names=st.lists(st.text(max_size=300), min_size=1, max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_names_are_safe_and_different(names: list[str]) -> None:
    """Any names, the same twice too, give as many different files, all the host's, that a shell and a browser take."""
    found = [entry["record"] for entry in listed([record(tool_id=name) for name in names])]
    assert len(set(found)) == len(names)
    for name in found:
        assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.json", name)
        assert len(name) < 200
        assert RunFolder.reserved(name)


def test_bytes_are_told_by_size_and_digest(folder: RunFolder) -> None:
    """Anywhere in params and result; JSON has no place for them."""
    data = b"\x00\xff" * 100
    told = {"bytes": 200, "sha256": hashlib.sha256(data).hexdigest()}
    publish(folder, [record(params={"a": [data]}, result={"b": bytearray(data)})])
    written = json.loads(files(folder)[listed([record()])[0]["record"]])
    assert (written["params"], written["result"]) == ({"a": [told]}, {"b": told})


def test_a_deep_value_is_written(folder: RunFolder) -> None:
    """As deep as a frame can hold."""
    value: Any = 1
    for _ in range(64):
        value = [value]
    publish(folder, [record(params={"a": value})])
    assert json.loads(files(folder)[listed([record()])[0]["record"]])["params"] == {"a": value}
