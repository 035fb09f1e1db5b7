"""File locks: how many whose, from a list that looks like the kernel's."""

import itertools
import threading
from pathlib import Path

import pytest

from sandbox_runner.linux import file_locks

FEW = """\
1: FLOCK  ADVISORY  WRITE 10 fe:00:1466544 0 EOF
2: POSIX  ADVISORY  READ  20 00:1b:7 0 9
2: -> POSIX  ADVISORY  WRITE 30 00:1b:7 0 9
3: OFDLCK ADVISORY  WRITE -1 00:1b:8 4 4
no lock
"""


def listed(path: Path, text: str) -> list[dict[int, int]]:
    path.write_text(text)
    return [dict(found) for found in file_locks.counted(str(path))]


def many(count: int) -> str:
    return "".join(f"{n}: POSIX  ADVISORY  WRITE {10 + n % 2} 00:1b:{n} 0 EOF\n" for n in range(count))


def test_a_short_list_is_nobodys_business(tmp_path: Path) -> None:
    """As long as the whole machine has no more than a command may have, nobody is asked whose they are."""
    assert listed(tmp_path / "locks", FEW) == []
    assert listed(tmp_path / "locks", many(file_locks.MOST)) == []


def test_a_long_list_is_told_in_parts(tmp_path: Path) -> None:
    """By process; who waits for a lock counts, and what belongs to nobody does not."""
    parts = listed(tmp_path / "locks", FEW + many(20_000))
    assert len(parts) > 2
    assert parts[-1] == {10: 10_001, 20: 1, 30: 1, 11: 10_000}
    assert sum(parts[0].values()) < 10_000


def test_a_list_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    """The kernel walks over all before a line."""
    last = listed(tmp_path / "locks", many(80_000))[-1]
    assert 1 << 16 <= sum(last.values()) < 80_000


def test_our_own_namespace_is_never_a_commands(monkeypatch) -> None:
    """Whatever the caller holds itself is not the command's."""
    monkeypatch.setattr(file_locks, "counted", lambda: iter([{1: 10_000_000}]))
    own = file_locks.namespace_of("self")
    monkeypatch.setattr(file_locks, "namespace_of", lambda number: own)
    assert not file_locks.Guard(lambda: {own, None}, lambda: None)._has_too_many()
    # Control: another's is.
    monkeypatch.setattr(file_locks, "namespace_of", lambda number: own if number == "self" else 7)
    assert file_locks.Guard(lambda: {7}, lambda: None)._has_too_many()


@pytest.mark.parametrize(
    ("of_the_processor", "pause"), [(0.0, file_locks._LOOK_S), (1.0, 4.0)], ids=["waited", "worked"]
)
def test_a_look_that_waits_does_not_put_off_the_next(monkeypatch, of_the_processor: float, pause: float) -> None:
    """Each look takes a second by the clock; only what it took of the processor counts."""
    pauses: list[float] = []
    looked = threading.Event()

    class Over(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0.0)
            if len(pauses) > 2:
                looked.set()
            return looked.is_set()

    monkeypatch.setattr(file_locks.time, "monotonic", itertools.count().__next__)
    monkeypatch.setattr(file_locks.time, "thread_time", itertools.count(step=of_the_processor).__next__)
    monkeypatch.setattr(file_locks, "counted", lambda: [])
    guard = file_locks.Guard(set, lambda: None)
    guard._over = Over()
    with guard:
        assert looked.wait(10)
    assert pauses[1] == pause
