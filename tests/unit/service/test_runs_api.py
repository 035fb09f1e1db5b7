"""Runs over HTTP: what was asked for is what is stored, and nobody sees what is another's."""

import asyncio
import json
from datetime import datetime, timedelta

import pytest

from isorun.store import folder

pytestmark = pytest.mark.slow  # a service is opened for each

_WRITES = "print('hello')\nopen(OUTPUT_DIR + '/a.csv', 'w').write('a,b\\n1,2\\n')"


async def test_a_run_is_stored_with_its_output_its_files_and_its_end(inside, ran) -> None:
    """And a second look gives the same."""
    alice = await inside.as_user("alice")
    view = await ran(alice, _WRITES, prog_name="first")
    assert (view["status"], view["result"]["stdout"], view["prog_name"]) == ("ok", "hello\n", "first")
    assert [one["path"] for one in view["files"]] == ["a.csv"]
    assert (await alice.get(f"/v1/runs/{view['id']}")).json() == view
    assert "out_dir" not in view["result"]
    listed = (await alice.get("/v1/runs")).json()["runs"]
    assert [(one["id"], one["status"]) for one in listed] == [(view["id"], "ok")]


async def test_without_prefer_the_answer_comes_first(inside) -> None:
    """With the place where the run is; and the run ends all the same."""
    alice = await inside.as_user("alice")
    answer = await alice.post("/v1/runs", json={"code": "print(1)"})
    assert answer.status_code == 202
    place = answer.headers["location"]
    assert place == f"/v1/runs/{answer.json()['id']}"
    await inside.service.runs.settled(answer.json()["id"])
    assert (await alice.get(place)).json()["status"] == "ok"


async def test_a_broken_promise_is_said_with_its_hint(inside, ran) -> None:
    """Each item of the contract by its state."""
    alice = await inside.as_user("alice")
    view = await ran(alice, _WRITES, contract=[{"filename": "b.txt", "description": "never written"}])
    assert view["status"] == "contract_failed"
    assert [item["state"] for item in view["result"]["items"]] == ["missing"]
    assert view["result"]["error"]["hint"] != ""


async def test_events_begin_behind_the_last_one_that_was_seen(inside, ran) -> None:
    """Numbered from 1, without a gap, to the outcome."""
    alice = await inside.as_user("alice")
    view = await ran(alice, _WRITES)
    whole = await alice.get(f"/v1/runs/{view['id']}/events")
    numbers = [int(line[4:]) for line in whole.text.splitlines() if line.startswith("id: ")]
    assert numbers == list(range(1, len(numbers) + 1))
    told = [json.loads(line[6:]) for line in whole.text.splitlines() if line.startswith("data: ")]
    assert [one["kind"] for one in told] == ["queued", "started", "output", "artifact", "outcome"]
    rest = await alice.get(f"/v1/runs/{view['id']}/events", headers={"Last-Event-ID": "3"})
    assert [line for line in rest.text.splitlines() if line.startswith("id: ")] == ["id: 4", "id: 5"]


async def test_a_stream_waits_for_what_has_not_happened(inside) -> None:
    """It is opened while the program runs, and ends with the outcome."""
    alice = await inside.as_user("alice")
    run = (await alice.post("/v1/runs", json={"code": "import time\nprint(1)\ntime.sleep(0.3)\nprint(2)"})).json()["id"]
    told = (await alice.get(f"/v1/runs/{run}/events")).text
    texts = [json.loads(line[6:]) for line in told.splitlines() if line.startswith("data: ")]
    assert "".join(one["data"]["text"] for one in texts if one["kind"] == "output") == "1\n2\n"
    assert texts[-1]["kind"] == "outcome"


async def test_a_cancelled_run_keeps_what_it_printed(inside) -> None:
    """It is `cancelled`, and its line is there."""
    alice = await inside.as_user("alice")
    run = (
        await alice.post("/v1/runs", json={"code": "import time\nprint('kept', flush=True)\ntime.sleep(60)"})
    ).json()["id"]
    async for event in inside.service.runs.events(run):
        if event.kind == "output":
            break
    assert (await alice.post(f"/v1/runs/{run}/cancel")).status_code == 202
    await inside.service.runs.settled(run)
    view = (await alice.get(f"/v1/runs/{run}")).json()
    assert (view["status"], view["result"]["stdout"]) == ("cancelled", "kept\n")


@pytest.mark.parametrize("path", ["", "/events", "/files", "/files/a.csv", "/logs/user", "/logs/infra", "/diff"])
async def test_another_users_run_looks_as_one_that_is_not_there(inside, ran, path: str) -> None:
    """Status, headers that tell something, and every byte."""
    alice, bob = await inside.as_user("alice"), await inside.as_user("bob")
    view = await ran(alice, _WRITES)
    theirs = await bob.get(f"/v1/runs/{view['id']}{path}")
    unknown = await bob.get(f"/v1/runs/20261130-000000-000000-aaaaaaaaaaaa{path}")
    assert theirs.status_code == unknown.status_code == 404
    assert theirs.content == unknown.content
    assert (await alice.get(f"/v1/runs/{view['id']}{path}")).status_code == 200


@pytest.mark.parametrize("verb", ["cancel", "delete"])
async def test_another_users_run_cannot_be_ended_or_removed(inside, ran, verb: str) -> None:
    """404, and it is there afterwards."""
    alice, bob = await inside.as_user("alice"), await inside.as_user("bob")
    view = await ran(alice, _WRITES)
    place = f"/v1/runs/{view['id']}"
    refused = await (bob.delete(place) if verb == "delete" else bob.post(f"{place}/cancel"))
    assert refused.status_code == 404
    assert (await alice.get(f"{place}/files/a.csv")).text == "a,b\n1,2\n"


async def test_the_same_key_is_the_same_run(inside) -> None:
    """Also if both come at once; another request under it is refused."""
    alice = await inside.as_user("alice")
    asked = {"json": {"code": "print(1)"}, "headers": {"Idempotency-Key": "k1"}}
    first, second = await asyncio.gather(alice.post("/v1/runs", **asked), alice.post("/v1/runs", **asked))
    assert first.json()["id"] == second.json()["id"]
    other = await alice.post("/v1/runs", json={"code": "print(2)"}, headers={"Idempotency-Key": "k1"})
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    bob = await inside.as_user("bob")
    assert (await bob.post("/v1/runs", **asked)).json()["id"] != first.json()["id"]


async def test_a_removed_run_is_gone_with_its_files(inside, ran) -> None:
    """Its folder, its row and its events."""
    alice = await inside.as_user("alice")
    view = await ran(alice, _WRITES)
    assert (await alice.delete(f"/v1/runs/{view['id']}")).status_code == 204
    assert (await alice.get(f"/v1/runs/{view['id']}")).status_code == 404
    assert list(inside.service.runtime.root.glob(f"codegen_{view['id']}")) == []
    assert await inside.service.records.events_of_run(view["id"], 0) == []


async def test_a_page_of_runs_goes_on_where_the_last_one_ended(inside, ran) -> None:
    """No run twice, none left out; and a word finds those that have it in their name."""
    alice = await inside.as_user("alice")
    ids = [(await ran(alice, "pass", prog_name=f"number {number}"))["id"] for number in range(5)]
    seen, cursor = [], ""
    while True:
        page = (await alice.get("/v1/runs", params={"limit": 2, "cursor": cursor})).json()
        seen += [one["id"] for one in page["runs"]]
        if (cursor := page["next"]) is None:
            break
    assert seen == ids[::-1]
    found = (await alice.get("/v1/runs", params={"q": "NUMBER 3"})).json()["runs"]
    assert [one["id"] for one in found] == [ids[3]]
    assert (await alice.get("/v1/runs", params={"status": "failed"})).json()["runs"] == []


async def test_a_clock_that_is_set_back_loses_no_run(inside, ran, monkeypatch) -> None:
    """A run goes on past it and has its end, a page has each run once, and nobody's quota or key is touched by it."""
    alice = await inside.as_user("alice")
    ids = [(await ran(alice, "pass"))["id"] for _ in range(2)]
    going = (await alice.post("/v1/runs", json={"code": "import time\ntime.sleep(0.5)\nprint('after')"})).json()["id"]
    monkeypatch.setattr(folder, "datetime", _AnHourAgo)
    ids += [going, (await ran(alice, "pass"))["id"]]
    view = await inside.service.runs.wait(await inside.service.accounts.find("alice"), going)
    assert (view["status"], view["result"]["stdout"]) == ("ok", "after\n")
    assert view["ended"] < view["created"]  # the control: the clock was set back
    assert view["result"]["timings"]["run_s"] > 0
    seen, cursor = [], ""
    while cursor is not None:
        page = (await alice.get("/v1/runs", params={"limit": 1, "cursor": cursor})).json()
        seen += [one["id"] for one in page["runs"]]
        cursor = page["next"]
    assert sorted(seen) == sorted(ids)


class _AnHourAgo(datetime):
    @classmethod
    def now(cls, tz=None) -> datetime:
        return datetime.now(tz) - timedelta(hours=1)


async def test_uploads_are_inputs_of_runs(inside, ran) -> None:
    """By their name, beside the program; another user's are not found."""
    alice, bob = await inside.as_user("alice"), await inside.as_user("bob")
    made = await alice.post("/v1/files", files={"file": ("sales.csv", b"a,b\n1,2\n", "text/csv")})
    assert made.status_code == 201
    upload = made.json()
    view = await ran(alice, "print(open('sales.csv').read())", inputs=[upload["id"]])
    assert view["result"]["stdout"] == "a,b\n1,2\n\n"
    assert view["inputs"] == [{"name": "sales.csv", "id": upload["id"]}]
    refused = await bob.post("/v1/runs", json={"code": "pass", "inputs": [upload["id"]]})
    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_file")
    assert (await bob.delete(f"/v1/files/{upload['id']}")).status_code == 404
    assert (await alice.delete(f"/v1/files/{upload['id']}")).status_code == 204
    assert (await alice.get("/v1/files")).json() == {"files": []}
    again = await alice.post("/v1/runs", json={"code": "pass", "inputs": [upload["id"]]})
    assert again.json()["detail"] == "file 1 of those given does not exist, or is not yours"


async def test_the_tools_say_which_of_them_a_run_gets_that_names_none(inside) -> None:
    """Those of the web are a way out, so a run has to name them."""
    alice = await inside.as_user("alice")
    granted = {one["id"]: one["granted_by_default"] for one in (await alice.get("/v1/tools")).json()["tools"]}
    assert granted["local_tools.write_note"]
    assert granted["generic_tools.write_pdf"]
    assert not granted["generic_tools.web_search"]


_OUTSIDE = [
    "%2e%2e/x",
    "a/%2e%2e/%2e%2e/x",
    "%2e%2e%2fresult.json",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "a.csv/",
    "b.txt",
]


@pytest.mark.parametrize("name", _OUTSIDE)
async def test_no_name_leads_out_of_a_runs_files(inside, ran, name: str) -> None:
    """Each is 404: only what the run handed out is sent."""
    alice = await inside.as_user("alice")
    view = await ran(alice, _WRITES)
    answer = await alice.get(f"/v1/runs/{view['id']}/files/{name}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_part_of_a_file_is_sent_for_a_range(inside, ran) -> None:
    """First bytes, last bytes, from the middle on; beyond the end is 416, and what was seen is 304."""
    alice = await inside.as_user("alice")
    place = f"/v1/runs/{(await ran(alice, _WRITES))['id']}/files/a.csv"
    for wanted, part in (("bytes=0-2", "a,b"), ("bytes=-4", "1,2\n"), ("bytes=4-", "1,2\n"), ("bytes=4-100", "1,2\n")):
        answer = await alice.get(place, headers={"Range": wanted})
        assert (answer.status_code, answer.text) == (206, part)
    assert (await alice.get(place, headers={"Range": "bytes=8-"})).status_code == 416
    tag = (await alice.get(place)).headers["etag"]
    assert (await alice.get(place, headers={"If-None-Match": tag})).status_code == 304


async def test_what_a_browser_would_run_is_sent_sealed(inside, ran) -> None:
    """HTML with a policy of its own, everything unknown as a download."""
    alice = await inside.as_user("alice")
    code = "open(OUTPUT_DIR + '/x.html', 'w').write('<script>1</script>')\nopen(OUTPUT_DIR + '/x.js', 'w').write('1')"
    view = await ran(alice, code)
    page = await alice.get(f"/v1/runs/{view['id']}/files/x.html")
    assert page.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    script = await alice.get(f"/v1/runs/{view['id']}/files/x.js")
    assert script.headers["content-disposition"].startswith("attachment;")
    assert script.headers["x-content-type-options"] == "nosniff"


async def test_the_walls_are_those_that_were_read_back(inside) -> None:
    """What the service says of its isolation is what a run of its own says; here a backend without walls."""
    alice = await inside.as_user("alice")
    status = (await alice.get("/v1/status")).json()
    assert status["isolation"]["level"] == "none"
    assert status["isolation"]["backend"] == status["backend"] == "fake"
    assert (await alice.get("/v1/runs")).json()["runs"] == []  # and it is no user's run
