"""Conversations: a turn has an end, whatever happens in it, and its events tell all of it in order."""

import asyncio
from typing import Any

import pytest

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


async def test_a_removed_conversation_leaves_its_runs(inside) -> None:
    """They are in the list of runs, without a conversation."""
    alice = await inside.as_user("alice")
    conversation = await begun(alice)
    await alice.post(f"/v1/conversations/{conversation}/messages", json={"text": "0."})
    await told(inside, conversation)
    assert (await alice.delete(f"/v1/conversations/{conversation}")).status_code == 204
    assert (await alice.get(f"/v1/conversations/{conversation}")).status_code == 404
    (run,) = (await alice.get("/v1/runs")).json()["runs"]
    assert (run["scenario"], run["conversation"]) == (0, None)


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
    assert view["runs"][1]["inputs"] == [{"name": "cities.csv"}]
    assert "summary.csv" in view["runs"][1]["files"][0]["path"]
    assert {one["role"] for one in view["messages"]} == {"user", "assistant"}
