"""Conversations: a turn has an end, whatever happens in it, and its events tell all of it in order."""

import asyncio
import os
import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from isorun.core.request import RunRequest
from isorun.service.problems import Problem
from isorun.service.store.records import Origin
from isorun.service.store.tables import metadata

pytestmark = pytest.mark.slow  # a service is opened for each


async def begun(client: Any) -> str:  # noqa: ANN401 - an httpx2 client
    """The id of a new conversation."""
    return str((await client.post("/v1/conversations", json={})).json()["id"])


async def told(inside: Any, conversation: str, until: str = "turn_ended") -> list[Any]:  # noqa: ANN401 - the fixture's
    """Its events up to the first of kind *until*."""
    found = []
    async with asyncio.timeout(60):
        async for event in inside.service.runs.events_of_conversation(conversation):
            found.append(event)
            if event.kind == until:
                return found
    raise AssertionError("a conversation's events have no end")


async def test_a_scenario_is_played_and_told_in_order(inside) -> None:
    """What the user said, the run with its outcome, the report, what to say next."""
    alice = await inside.as_user("alice")
    conversation = await begun(alice)
    assert (await alice.post(f"/v1/conversations/{conversation}/messages", json={"text": "0."})).json() == {"turn": 1}
    events = await told(inside, conversation)
    assert [one.seq for one in events] == list(range(1, len(events) + 1))
    kinds = [one.kind for one in events]
    for before, after in (("message", "run_started"), ("started", "outcome"), ("outcome", "followups")):
        assert kinds.index(before) < kinds.index(after)
    outcome = next(one for one in events if one.kind == "outcome")
    assert outcome.data["status"] == "ok"
    view = (await alice.get(f"/v1/conversations/{conversation}")).json()
    assert [run["scenario"] for run in view["runs"]] == [0]
    assert view["runs"][0]["calls"][0]["params"] == {"text": "note from iso-runtime"}
    assert [one["role"] for one in view["messages"]] == ["user", "assistant"]
    assert view["title"] == "0."


async def test_a_program_error_is_told_as_the_workflow_says_it(inside) -> None:
    """With its own words and what it found."""
    alice = await inside.as_user("alice")
    conversation = await begun(alice)
    await alice.post(f"/v1/conversations/{conversation}/messages", json={"text": "scenario 3"})
    events = await told(inside, conversation)
    (error,) = (one for one in events if one.kind == "error")
    assert error.data["message"] == "Program error detected in user.log"
    assert error.data["status"] == "failed"


async def test_an_unknown_text_gets_the_list(inside) -> None:
    """And runs nothing."""
    alice = await inside.as_user("alice")
    conversation = await begun(alice)
    await alice.post(f"/v1/conversations/{conversation}/messages", json={"text": "what can you do?"})
    events = await told(inside, conversation)
    (followups,) = (one for one in events if one.kind == "followups")
    assert len(followups.data["items"]) == 20
    assert (await alice.get(f"/v1/conversations/{conversation}")).json()["runs"] == []


async def test_a_stopped_turn_keeps_what_was_printed(inside) -> None:
    """Its run is cancelled, and ends before the turn does; a second turn waits for neither."""
    alice = await inside.as_user("alice")
    conversation = await begun(alice)
    place = f"/v1/conversations/{conversation}"
    await alice.post(f"{place}/messages", json={"text": "scenario 8"})
    await told(inside, conversation, until="output")
    refused = await alice.post(f"{place}/messages", json={"text": "0."})
    assert (refused.status_code, refused.json()["code"]) == (409, "turn_goes_on")
    assert (await alice.post(f"{place}/stop")).status_code == 202
    events = await told(inside, conversation)
    assert [one.kind for one in events][-2:] == ["outcome", "turn_ended"]
    (run,) = (await alice.get(place)).json()["runs"]
    assert (run["status"], "this line is kept" in run["result"]["stdout"]) == ("cancelled", True)
    assert (await alice.post(f"{place}/messages", json={"text": "0."})).json() == {"turn": 2}


_ASKED = [("GET", ""), ("DELETE", ""), ("GET", "/events"), ("POST", "/stop"), ("POST", "/messages")]


@pytest.mark.parametrize(("method", "path"), _ASKED)
async def test_another_users_conversation_looks_as_one_that_is_not_there(inside, method: str, path: str) -> None:
    """Byte for byte."""
    alice, bob = await inside.as_user("alice"), await inside.as_user("bob")
    conversation = await begun(alice)
    body = {"json": {"text": "0."}} if path == "/messages" else {}
    theirs = await bob.request(method, f"/v1/conversations/{conversation}{path}", **body)
    unknown = await bob.request(method, f"/v1/conversations/c_0123456789abcdef{path}", **body)
    assert theirs.status_code == unknown.status_code == 404
    assert theirs.content == unknown.content


async def uploaded(client: Any, name: str) -> str:  # noqa: ANN401 - an httpx2 client
    """The id of a new table."""
    table = {"file": (name, b"city,people\nOslo,700\nBergen,280\n", "text/csv")}
    return str((await client.post("/v1/files", files=table)).json()["id"])


async def all_of(inside: Any, folder: Path) -> tuple[dict[str, int], set[str]]:  # noqa: ANN401 - the fixture's
    """How many rows each table has, and every file below *folder*.

    The database's own and leases are left out, and the empty folders that are ready for runs to come.
    """
    async with inside.service.database.read() as connection:
        rows = {
            table.name: (await connection.execute(select(func.count()).select_from(table))).scalar_one()
            for table in metadata.sorted_tables
        }
    found = [os.path.join(above, name) for above, _, names in os.walk(folder) for name in names]
    return rows, {path for path in found if not re.search(r"sqlite3|\.lock$|/lock$|\.lease$|\.building/", path)}


async def test_nothing_of_a_deleted_conversation_remains(inside, tmp_path) -> None:
    """No row, no run's folder, no file that was brought, no session, no turn in the user's own folder."""
    alice = await inside.as_user("alice")
    before = await all_of(inside, tmp_path)
    conversation, upload = await begun(alice), await uploaded(alice, "cities.csv")
    place = f"/v1/conversations/{conversation}"
    for body in ({"text": "0."}, {"text": "Analyse the table", "files": [upload]}):
        turn = (await alice.post(f"{place}/messages", json=body)).json()["turn"]
        async for event in inside.service.runs.events_of_conversation(conversation):
            if (event.kind, event.turn) == ("turn_ended", turn):
                break
    other = await uploaded(alice, "other.csv")
    key = {"code": "print(open('other.csv').read())", "inputs": [other]}
    run = (await alice.post(f"/c/{conversation}/runs", json=key)).json()["id"]
    await inside.service.runs.settled(run)
    assert len((await alice.get(place)).json()["runs"]) == 4
    assert (await alice.delete(place)).status_code == 204
    assert await all_of(inside, tmp_path) == before
    for path in (place, f"/v1/runs/{run}", f"/c/{conversation}"):
        assert (await alice.get(path)).status_code == 404
    assert (await alice.delete(place)).status_code == 404


@pytest.mark.parametrize("text", ["scenario 8", ""])
async def test_what_goes_on_in_a_deleted_conversation_is_ended_first(inside, tmp_path, text: str) -> None:
    """A turn with its run, or a run that was started in it; and whoever listens hears the end."""
    alice = await inside.as_user("alice")
    before = await all_of(inside, tmp_path)
    conversation = await begun(alice)
    listening = asyncio.create_task(collected(inside.service.runs.events_of_conversation(conversation)))
    if text:
        await alice.post(f"/v1/conversations/{conversation}/messages", json={"text": text})
    else:
        code = "import time; print('on', flush=True); time.sleep(300)"
        await alice.post(f"/c/{conversation}/runs", json={"code": code})
    await told(inside, conversation, until="output")
    assert (await alice.delete(f"/v1/conversations/{conversation}")).status_code == 204
    assert inside.service.runs.open == 0
    assert await all_of(inside, tmp_path) == before
    async with asyncio.timeout(60):
        assert "output" in [event.kind for event in await listening]


async def collected(events: Any) -> list[Any]:  # noqa: ANN401 - an asynchronous iterator
    """All of *events*."""
    return [event async for event in events]


async def test_an_upload_that_another_conversation_or_run_was_given_stays(inside) -> None:
    """The last of them takes it along."""
    alice = await inside.as_user("alice")
    upload = await uploaded(alice, "cities.csv")
    one, other = await begun(alice), await begun(alice)
    for conversation in (one, other):
        body = {"code": "pass", "inputs": [upload]}
        run = (await alice.post(f"/c/{conversation}/runs", json=body)).json()["id"]
        await inside.service.runs.settled(run)
    assert (await alice.delete(f"/v1/conversations/{one}")).status_code == 204
    assert [file["id"] for file in (await alice.get("/v1/files")).json()["files"]] == [upload]
    assert (await alice.delete(f"/v1/conversations/{other}")).status_code == 204
    assert (await alice.get("/v1/files")).json() == {"files": []}


async def test_a_run_cannot_begin_in_a_deleted_conversation(inside) -> None:
    """Also if it was deleted after the page had looked for it: nothing is stored."""
    alice = await inside.as_user("alice")
    user = await inside.service.accounts.find("alice")
    asked = RunRequest.of("pass")
    with pytest.raises(Problem, match="this conversation does not exist"):
        await inside.service.runs.start(user, asked, origin=Origin(conversation="c_0123456789abcdef"))
    assert (await alice.get("/v1/runs")).json()["runs"] == []


async def test_the_agent_plays_the_conversation_over_an_uploaded_table(inside) -> None:
    """Without a model the script does: its first draft breaks its promise, and the next one keeps it."""
    alice = await inside.as_user("alice")
    conversation = await begun(alice)
    table = "city,people\nOslo,700\nBergen,280\n"
    upload = (await alice.post("/v1/files", files={"file": ("cities.csv", table.encode(), "text/csv")})).json()
    body = {"text": "Analyse the table", "files": [upload["id"]]}
    await alice.post(f"/v1/conversations/{conversation}/messages", json=body)
    events = await told(inside, conversation)
    assert events[-1].data == {"status": "ended"}
    assert "".join(one.data["delta"] for one in events if one.kind == "text") != ""
    view = (await alice.get(f"/v1/conversations/{conversation}")).json()
    assert [run["status"] for run in view["runs"]] == ["contract_failed", "ok"]
    assert view["runs"][1]["inputs"] == [{"name": "cities.csv", "id": upload["id"]}]
    assert "summary.csv" in view["runs"][1]["files"][0]["path"]
    assert {one["role"] for one in view["messages"]} == {"user", "assistant"}
