"""Ids and names: what may become part of a path, and what may only be shown."""

import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from isorun.core.errors import InvalidRequest
from isorun.core.ids import check_exec_id, check_prog_name, new_exec_id, time_in, turn_folder, turn_of

EXEC_ID = "20260101-120000-000001-0123456789ab"


def test_new_ids_are_sortable_unique_and_fit_their_own_check() -> None:
    """Ids made one after the other are all different, sort by time, and pass `check_exec_id`."""
    ids = [new_exec_id() for _ in range(2000)]
    assert len(set(ids)) == len(ids)
    times = [exec_id.rpartition("-")[0] for exec_id in ids]
    assert times == sorted(times)
    for exec_id in ids:
        assert check_exec_id(exec_id) == exec_id
        assert re.fullmatch(r"\d{8}-\d{6}-\d{6}-[0-9a-f]{12}", exec_id)
        assert len(exec_id) == 35


def test_ids_of_two_processes_started_together_differ() -> None:
    """The random part is not a state that two processes could share."""
    make = "from isorun.core.ids import new_exec_id; print(*[new_exec_id() for _ in range(200)])"
    runs = [subprocess.Popen([sys.executable, "-c", make], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    randoms = [exec_id[-12:] for run in runs for exec_id in run.communicate()[0].split()]
    assert len(set(randoms)) == 400


@pytest.mark.parametrize("exec_id", ["", "A", "a/b", "..", "a_b", "-a", "a\n", "a" * 41, "é", None, 7], ids=repr)
def test_an_exec_id_that_could_not_name_a_folder_is_refused(exec_id: object) -> None:
    """Anything but 1 to 40 of [a-z0-9-] is refused with its own code."""
    with pytest.raises(InvalidRequest, match=r"^exec_id must be 1 to 40 characters of a-z, 0-9 and '-'") as caught:
        check_exec_id(exec_id)
    assert caught.value.code == "invalid_exec_id"


@pytest.mark.parametrize(
    ("turn_id", "contract", "folder"),
    [
        ("123", (), "turn_123"),
        ("turn_123", (), "turn_123"),
        (123, (), "turn_123"),
        ("2026-01-26.a_b", (), "turn_2026-01-26.a_b"),
        ("7", ("turn_1/files/a",), "turn_7"),
        (None, ("turn_1/files/a", "turn_1/files/b"), "turn_1"),
        (None, ("./turn_1/files/a", "b.md"), "turn_1"),
        (None, ("turn_1/files/a", "turn_2/files/b"), f"turn_{EXEC_ID}"),
        (None, ("a.md", "turn_notes.md"), f"turn_{EXEC_ID}"),
        (None, (), f"turn_{EXEC_ID}"),
    ],
)
def test_design6_the_turn_is_the_callers_then_the_contracts_then_the_runs(
    turn_id: str | int | None, contract: tuple[str, ...], folder: str
) -> None:
    """The caller's turn id wins, then the turn all items agree on, then turn_<exec_id>."""
    assert turn_folder(turn_id, contract, EXEC_ID) == folder


@pytest.mark.parametrize(
    "turn_id",
    [
        "",
        "turn_",
        "a/b",
        "..",
        "a..b",
        "a\0b",
        "a\n",
        "a b",
        "<id>",
        "é",
        "x" * 124,
        "turn_" + "x" * 124,
        True,
        -1.5,
    ],
    ids=repr,
)
def test_a_turn_id_that_could_not_name_a_folder_is_refused(turn_id: str) -> None:
    """Slash, NUL, '..', other letters, an empty or an over-long id are refused with their own code."""
    with pytest.raises(InvalidRequest, match=r"^turn_id must be letters, digits, ") as caught:
        turn_folder(turn_id, (), EXEC_ID)
    assert caught.value.code == "invalid_turn_id"


def test_the_longest_turn_id_is_accepted() -> None:
    """The limit is 128 characters with the prefix, not one less."""
    assert turn_folder("x" * 123, (), EXEC_ID) == "turn_" + "x" * 123


@pytest.mark.parametrize("name", ["report_generator", "a/b: 50 %", "Bericht für März", "x" * 64])
def test_a_printable_program_name_is_kept(name: str) -> None:
    """A program name is shown, never part of a path, so it may hold what people write."""
    assert check_prog_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "  ", "x" * 65, "a\nb", "a\x1b[31m", "a\u202eb", "a\0", "\ud800", 5, None], ids=repr
)
def test_a_program_name_that_could_forge_a_log_line_is_refused(name: object) -> None:
    """More than 64 characters, a blank name and any unprintable character are refused."""
    with pytest.raises(InvalidRequest, match=r"^prog_name must be 1 to 64 printable characters, got ") as caught:
        check_prog_name(name)
    assert caught.value.code == "invalid_prog_name"


@pytest.mark.parametrize("check", [check_exec_id, check_prog_name])
def test_an_error_text_stays_short_and_escaped(check: Callable[[object], str]) -> None:
    """A hostile value cannot flood a log or write an escape sequence through its error."""
    with pytest.raises(InvalidRequest) as caught:
        check("\x1b]0;" * 100_000)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("filename", "turn"),
    [
        ("turn_1/files/a", "turn_1"),
        ("./turn_1//files/a", "turn_1"),
        ("turn_1", None),
        ("files/turn_1", None),
        ("", None),
    ],
)
def test_a_file_name_names_a_turn_only_by_its_first_folder(filename: str, turn: str | None) -> None:
    """A file called turn_notes.md, or a turn deeper in the path, does not choose the turn."""
    assert turn_of(filename) == turn


def test_an_id_of_ours_tells_when_it_was_made() -> None:
    """As the runs tell when they were accepted; an id of a caller's tells nothing."""
    assert time_in("20260102-030405-678901-0123456789ab") == "2026-01-02T03:04:05.678Z"
    assert time_in(new_exec_id()) is not None
    for mine in ("mine", "20260102", "20260102-030405-678901-0123456789ag", "x20260102-030405-678901-0123456789ab"):
        assert time_in(mine) is None
