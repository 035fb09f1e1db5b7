"""PROTOCOL.md is the authority: its tables are the code's, row for row."""

import re
from pathlib import Path

import isorun.wire.session
from isorun.core.sent.record import Record
from isorun.wire import messages, session
from isorun.wire.frames import MAX_FRAME, PREFIX_BYTES
from isorun.wire.messages import ATTACHED, BUILD, CONTROL, RECORDS, REFUSALS, SUPERVISOR, TOOL, VERSION, WORKER
from isorun.wire.multiplex import WINDOW
from isorun.wire.values import MAX_DEPTH, MAX_INT_DIGITS, MAX_VALUES

STREAMS = {
    "Control stream": (CONTROL, session.CONTROL),
    "Build stream": (BUILD, session.BUILD),
    "Tool stream": (TOOL, session.TOOL),
    "Supervisor stream": (SUPERVISOR, session.SUPERVISOR),
    "Worker stream": (WORKER, session.WORKER),
    "Attached stream": (ATTACHED, session.ATTACHED),
}
#: On the attached stream: init's, and of a slot that is in no other way a container's.
OF_THE_BUILD = {"`Warmed`", "`Exited`", "`BuildFailed`"}
PAGE = Path(isorun.wire.session.__file__).with_name("PROTOCOL.md").read_text(encoding="utf-8")


def rows(chapter: str, section: str) -> list[list[str]]:
    """The cells of the table under `## chapter`, `### section`."""
    part = PAGE.split(f"\n## {chapter}\n")[1].split("\n## ")[0]
    part = part.split(f"\n### {section}\n")[1].split("\n### ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]
    return [[cell.replace("\\|", "|") for cell in row] for row in cells]


def shown(kind: type[Record]) -> str:
    return ", ".join(f"`{name}: {annotation}`" for name, annotation in kind.fields.items())


def test_messages_and_fields_are_those_of_the_page() -> None:
    """Every message has one row, with its fields in order and their types."""
    for section, (kinds, _) in STREAMS.items():
        page = {name: written for name, _, written, _ in rows("Messages", section)}
        code = {f"`{kind.__name__}`": shown(kind) for kind in kinds}
        assert page == code


def test_records_and_their_fields_are_those_of_the_page() -> None:
    """Every value that is a field of a message has one row."""
    page = dict(rows("Messages", "Records"))
    code = {f"`{name}`": shown(one) for name, one in RECORDS.items()}
    assert page == code


def test_transitions_are_those_of_the_page() -> None:
    """Every legal step has one row, and no row is without its step."""
    for section, (_, table) in STREAMS.items():
        code = {
            (state.value, side.value, f"`{kind.__name__}`", after.value)
            for state, row in table.items()
            for (side, kind), after in row.items()
        }
        page = [tuple(row) for row in rows("Order", section)]
        assert set(page) == code
        assert len(page) == len(code)


def test_senders_are_those_of_the_order() -> None:
    """The "from" of a message are the sides that some state lets send it; what both send is `multiplex`'s to judge."""
    for section, (_, table) in STREAMS.items():
        page = {
            (name, one)
            for name, senders, _, _ in rows("Messages", section)
            for one in senders.split(", ")
            if senders != "both"
        }
        code = {(f"`{kind.__name__}`", side.value) for row in table.values() for side, kind in row}
        if section == "Attached stream":
            page |= {(name, "init") for name in OF_THE_BUILD}
        assert page == code


def test_numbers_and_words_are_those_of_the_page() -> None:
    """Version, caps and closed lists of words agree."""
    assert PAGE.startswith(f"# The wire, version {VERSION}\n")
    assert f'{{"v": {VERSION},' in PAGE
    assert f"at most {MAX_FRAME >> 20} MiB ({MAX_FRAME:,})" in PAGE
    assert f"the {PREFIX_BYTES} bytes are there" in PAGE
    assert f"more than {MAX_INT_DIGITS} digits" in PAGE
    assert f"at most {MAX_DEPTH} deep" in PAGE
    assert f"{MAX_VALUES:,} values" in PAGE
    assert f"at most {WINDOW:,} bytes of a channel" in PAGE
    assert ", ".join(f"`{word}`" for word in REFUSALS) in PAGE.replace("\n", " ")


def test_every_message_is_of_one_stream() -> None:
    """No message is left out of the six lists, and none is in two."""
    listed = [*CONTROL, *BUILD, *TOOL, *SUPERVISOR, *WORKER, *ATTACHED]
    assert len(listed) == len(set(listed))
    # By name: a dataclass with slots is made twice, and the first try may not be collected yet.
    assert {k.__name__ for k in listed} == {k.__name__ for k in messages.Message.__subclasses__()}
