"""Slots that wait for promised files, on every backend: when there are some, that they find what others find, and what
a program sees of them.
"""

import time
from pathlib import Path

import pytest

from isorun import SyncRuntime
from tests import artifacts as made
from tests.artifacts import HAND_OUT, contract, given

pytestmark = pytest.mark.timeout(300)  # each makes a dozen slots, which are containers on two kinds
BAD_TABLE = "is not a table: line 2 has 1 field, the header 2"


def waits(runtime: SyncRuntime, count: int) -> None:
    """Return once *count* inspectors wait; a jail, or as many containers, are started for the first."""
    until = time.monotonic() + 60
    while runtime.waiting_inspectors != count and time.monotonic() < until:
        time.sleep(0.02)
    assert runtime.waiting_inspectors == count


def found(runtime: SyncRuntime, folder: Path, files: dict[str, bytes]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """What a run that hands out *files* is told of each, by its name."""
    folder.mkdir(exist_ok=True)
    result = runtime.execute(HAND_OUT, contract=contract(*files), inputs=given(folder, files), turn_id=1, timeout_s=20)
    shown = {item.path.rpartition("/")[2]: item for item in result.items}
    return {
        name: (one.state, tuple(hint.removeprefix(f"{one.path} ") for hint in one.hints)) for name, one in shown.items()
    }


def test_they_wait_once_a_contract_needs_one_and_answer_as_others_do(own, tmp_path: Path) -> None:
    """None before, and none for a text. Then each check finds one, and finds what the first, which found none, did."""
    good, bad = {"a.csv": b"a,b\n1,2\n", "b.json": b"[1]"}, {"a.csv": b"a,b\n1\n", "b.json": b"[1]"}
    with own(pool_size=2) as runtime:
        assert found(runtime, tmp_path / "0", {"a.txt": b"x"}) == {"a.txt": ("ok", ())}
        assert runtime.waiting_inspectors == 0
        first = found(runtime, tmp_path / "1", good), found(runtime, tmp_path / "2", bad)
        assert first == (
            {"a.csv": ("ok", ()), "b.json": ("ok", ())},
            {"a.csv": ("invalid", (BAD_TABLE,)), "b.json": ("ok", ())},
        )
        waits(runtime, 2)
        for number in range(2):
            again = found(runtime, tmp_path / f"3{number}", good), found(runtime, tmp_path / f"4{number}", bad)
            assert again == first
        waits(runtime, 2)


def test_another_kind_of_file_is_looked_into_as_well(own, tmp_path: Path) -> None:
    """Before and after its library is there for those that wait."""
    book, wrong = {"a.xlsx": made.xlsx({"S": [["a"], [1]]})}, {"a.xlsx": b"PK"}
    with own(pool_size=1) as runtime:
        assert found(runtime, tmp_path / "0", {"a.csv": b"a\n"}) == {"a.csv": ("ok", ())}
        waits(runtime, 1)
        for number in range(3):
            assert found(runtime, tmp_path / f"1{number}", book) == {"a.xlsx": ("ok", ())}
            ((state, _),) = found(runtime, tmp_path / f"2{number}", wrong).values()
            assert state == "invalid"


def test_without_a_pool_none_waits(own, tmp_path: Path) -> None:
    """Each is made when it is needed, as each program's slot is."""
    with own(pool_size=0) as runtime:
        for number in range(2):
            assert found(runtime, tmp_path / str(number), {"a.json": b"{}"}) == {"a.json": ("ok", ())}
        assert runtime.waiting_inspectors == 0


def test_a_program_finds_nothing_of_them_imported(own, sealed, tmp_path: Path) -> None:
    """The libraries of inspectors are in no interpreter that programs are forked from."""
    with own(pool_size=1) as runtime:
        found(runtime, tmp_path / "0", {"a.png": made.png(), "a.json": b"{}"})
        waits(runtime, 1)
        names = {"isorun.runtime.inspection.inspector", "isorun.runtime.inspection.no_numpy", "PIL", "csv"}
        asked = runtime.execute(f"import sys; print(sorted({names!r} & set(sys.modules)))\nimport csv")
    assert asked.stdout == "[]\n"
