"""What the protocols of clients decide by themselves: names, last lines, and how long something is kept."""

import asyncio
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from isorun.service.clients import cell, kernels, wire
from isorun.service.clients.chat_completions import Message, conversation
from isorun.service.clients.kernels import Kernels
from isorun.service.clients.librechat import names, waiting
from isorun.service.clients.librechat.programmatic import python_name
from isorun.service.problems import Problem
from isorun.service.runs.plain import as_json
from isorun.service.store.accounts import User

ALICE, BOB = User(id="u_a", name="alice"), User(id="u_b", name="bob")


@pytest.mark.parametrize(
    "code",
    ["x", "x\n", "a = 1\nx", "f(1)[2].y", "'a' + 'b'", "1, 2", "await f()", "lambda: 0", "(y := 5)", "x\n\n  \n"],
)
def test_a_last_line_that_is_an_expression_is_shown(code: str) -> None:
    """The rest of the program stays as it is, line by line."""
    shown = cell.shown(code)
    assert f'__import__("{cell.MODULE}").show((' in shown.splitlines()[-1]
    assert shown.splitlines()[:-1] == code.rstrip().splitlines()[:-1]
    compile(shown, "", "exec", 0x2000)  # PyCF_ALLOW_TOP_LEVEL_AWAIT


@pytest.mark.parametrize(
    "code",
    [
        *("", "x = 1", "if x: y", "if x:\n    y", "x  # y", "import x", "return", "pass", "yield x", "print(1); x"),
        *('"""\nx"""', "x = '''\n''' 'y'", "x = (1,\n2)", "x = 1 + \\\n2", "x" * 500, "(" * 300, "x\0", "'a"),
    ],
)
def test_another_program_stays_as_it_is(code: str) -> None:
    assert cell.shown(code) == code


def test_what_shows_a_value_is_a_program(tmp_path: Path) -> None:
    """The module that goes into the slot, run here: a text, and HTML where the value has it."""
    namespace: dict[str, Any] = {}
    exec(compile(cell.SOURCE, cell.MODULE, "exec"), namespace)
    namespace["_OUT"] = str(tmp_path)
    namespace["show"](None)
    assert list(tmp_path.iterdir()) == []
    namespace["show"](SimpleNamespace(_repr_html_=lambda: "<b>"))
    assert (tmp_path / cell.HTML).read_text() == "<b>"
    assert (tmp_path / cell.VALUE).read_text().startswith("namespace(")


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "no header"),
        ('{"header": []}', "no header"),
        ('{"header": {"msg_id": "x"}}', "no header"),
        (json.dumps({"header": {"msg_id": "x" * 5000, "msg_type": "y"}}), "too long"),
        (json.dumps({"header": {"msg_id": "x", "msg_type": "y"}, "content": {"code": 1}}), "not a text"),
        ("x" * (wire.MOST_MESSAGE + 1), "too long"),
    ],
)
def test_what_cannot_be_taken_as_a_message_is_said(sent: str, reason: str) -> None:
    with pytest.raises(wire.Unreadable, match=reason):
        wire.read(sent)


def test_a_message_holds_any_text_of_a_program() -> None:
    """A lone surrogate, which no socket takes, and what looks like the end of a message."""
    text = '"}\ud83d\n\0'
    told = wire.message("stream", {"msg_id": "x"}, "s", {"name": "stdout", "text": text})
    assert told.isascii()
    assert json.loads(told)["content"]["text"] == text
    assert json.loads(told)["parent_header"] == {"msg_id": "x"}


def test_an_idle_kernel_is_forgotten_and_one_with_a_socket_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kernels()
    idle, used = kept.new(ALICE), kept.new(ALICE)
    with used.connected():
        monkeypatch.setattr(kernels, "_IDLE_S", -1.0)
        assert [one.id for one in kept.of(ALICE)] == [used.id]
        assert idle.deleted
        with pytest.raises(Problem):
            kept.one(ALICE, idle.id)


def test_a_kernel_is_its_users_alone() -> None:
    kept = Kernels()
    made = kept.new(ALICE)
    for ask in (kept.one, kept.remove):
        with pytest.raises(Problem) as refused:
            ask(BOB, made.id)
        assert refused.value.status == 404
    assert kept.one(ALICE, made.id) is made


async def test_a_run_whose_client_does_not_come_back_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that was taken in time is not."""
    monkeypatch.setattr(waiting, "ABANDONED_S", 0.01)
    kept, given_up = waiting.WaitingRuns(), asyncio.Event()
    run: Any = object()
    one = waiting.WaitingRun(run, ALICE.id, {})
    taken = kept.put(one, lambda: pytest.fail("it was taken"))
    with pytest.raises(Problem):
        kept.take(BOB, taken)
    assert kept.take(ALICE, taken) is one
    token = kept.put(one, given_up.set)
    async with asyncio.timeout(60):
        await given_up.wait()
    with pytest.raises(Problem) as gone:
        kept.take(ALICE, token)
    assert (gone.value.status, gone.value.detail) == (404, "Execution not found or expired")


def test_ids_have_the_form_that_librechat_takes() -> None:
    form = re.compile(r"[A-Za-z0-9_-]{21}")
    batch = names.new_batch()
    upload = f"f_{batch}01234567"
    made = (names.new_run(), names.session_of(batch), names.of_upload(upload), names.of_path("a/\udcff.txt"))
    assert all(form.fullmatch(one) for one in made)
    assert names.is_run(made[0])
    assert (names.batch_of(made[1]), names.upload_of(made[2])) == (batch, upload)
    assert not any(map(names.is_run, (*made[1:], f"{made[0]}\n", f"../{made[0]}")))


@pytest.mark.parametrize(
    ("name", "python"),
    [("get-weather", "get_weather"), ("a b", "a_b"), ("2x", "_2x"), ("class", "class_tool"), ("x.y!", "xy")],
)
def test_tools_have_the_names_that_librechat_tells_models(name: str, python: str) -> None:
    assert python_name(name) == python


def test_a_conversation_keeps_its_order_and_what_the_client_tells_its_model() -> None:
    """Instructions stand before the first question; what other tools of the client gave is left out."""
    said = [
        Message(role="system", content="Be brief."),
        Message(role="user", content="One?"),
        Message(role="assistant", content="1"),
        Message(role="tool", content="x"),
        Message.model_validate({"role": "user", "content": [{"type": "text", "text": "Two?"}]}),
    ]
    history, asked = conversation(said)
    assert history == [{"role": "user", "content": "Be brief.\n\nOne?"}, {"role": "assistant", "content": "1"}]
    assert asked == "Two?"
    assert conversation(said[:2]) == ([], "Be brief.\n\nOne?")


def test_what_a_program_gives_a_tool_can_be_stored() -> None:
    """Bytes, numbers and letters that JSON does not have become what it has; the rest stays as it is."""
    given = {
        "a": b"\xff",
        "b": [float("nan"), 1.5, 10**400, None, True],
        "c": {"\ud83d": "\ud83dx"},
        "d": "ä",
        "e": (1,),
    }
    told = as_json(given)
    assert told == {
        "a": {"omitted_bytes": 1},
        "b": ["nan", 1.5, 10**400, None, True],
        "c": {"\ufffd": "\ufffdx"},
        "d": "ä",
        "e": [1],
    }
    json.dumps(told, allow_nan=False, ensure_ascii=False).encode()
