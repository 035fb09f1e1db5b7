"""The page's addresses: who is let in, what belongs to whom, and where the stream of a page goes on."""

import re
from html import unescape

import httpx2
import pytest

from isorun.service.auth import COOKIE

pytestmark = pytest.mark.slow  # a service is opened for each

PRINTS = "print('printed <b>')\nopen('/dev/null')"


async def signed_in(inside, name: str) -> httpx2.AsyncClient:
    """A browser of *name*, by a link that works once."""
    user = await inside.service.accounts.find(name) or await inside.service.accounts.add(name)
    token = await inside.service.accounts.new_secret(user, "once")
    client = await inside.as_user(name)
    del client.headers["authorization"]
    answer = await client.get(f"/login?token={token}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    client.headers["sec-fetch-site"] = "same-origin"
    return client


async def test_a_link_lets_one_browser_in_once(inside) -> None:
    """The cookie is for this site's own requests alone, and no script can read it."""
    user = await inside.service.accounts.add("anna")
    token = await inside.service.accounts.new_secret(user, "once")
    first = await inside.nobody.get(f"/login?token={token}")
    cookie = first.headers["set-cookie"].lower()
    assert cookie.startswith(COOKIE)
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    inside.nobody.cookies.clear()
    again = await inside.nobody.get(f"/login?token={token}")
    assert again.status_code == 401
    assert "isorun serve" in again.text


async def test_a_key_lets_a_browser_in(inside) -> None:
    """By the form of the page that says that nobody is signed in; a wrong key, a revoked one and a cookie do not."""
    user = await inside.service.accounts.add("anna")
    key, session = [await inside.service.accounts.new_secret(user, kind) for kind in ("key", "session")]
    client, ours = inside.nobody, {"sec-fetch-site": "same-origin"}
    assert 'action="/login"' in (await client.get("/")).text
    for wrong in ("", "isr_wrong", session):
        refused = await client.post("/login", data={"key": wrong}, headers=ours)
        assert (refused.status_code, "set-cookie" in refused.headers) == (401, False)
        assert not wrong or wrong not in refused.text
    answer = await client.post("/login", data={"key": f" {key} "}, headers=ours)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert (await client.get("/v1/me")).json()["name"] == "anna"
    client.cookies.clear()
    await inside.service.accounts.revoke(key[:8])
    assert (await client.post("/login", data={"key": key}, headers=ours)).status_code == 401


async def test_no_other_site_signs_a_browser_in(inside) -> None:
    """As a user of its own, whose files the visitor would then fill."""
    key = await inside.service.accounts.new_secret(await inside.service.accounts.add("mallory"), "key")
    for headers in ({}, {"sec-fetch-site": "cross-site"}, {"origin": "http://evil.example"}):
        refused = await inside.nobody.post("/login", data={"key": key}, headers=headers)
        assert (refused.status_code, "set-cookie" in refused.headers) == (403, False), headers


async def test_nobody_sees_a_page(inside) -> None:
    """A page for people says what to open; it is no page of anybody's."""
    for path in ("/", "/runs", "/runs/x", "/c/x", "/login"):
        answer = await inside.nobody.get(path)
        assert answer.status_code == 401, path
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert "data-conversation" not in answer.text


async def test_anothers_run_and_conversation_are_not_there(inside, ran) -> None:
    """The same bytes as for what there never was."""
    anna, ben = await signed_in(inside, "anna"), await signed_in(inside, "ben")
    run = (await ran(anna, PRINTS))["id"]
    talk = (await anna.post("/v1/conversations", json={})).json()["id"]
    for mine, never in ((f"/runs/{run}", "/runs/20260101-000000-000000-000000000000"), (f"/c/{talk}", "/c/c_0")):
        assert (await anna.get(mine)).status_code == 200
        answer, other = await ben.get(mine), await ben.get(never)
        assert (answer.status_code, answer.text) == (other.status_code, other.text)
        assert answer.status_code == 404
    assert (await ben.post(f"/c/{talk}/runs", json={"code": "1"})).status_code == 404


async def test_a_run_page_is_whole_without_its_scripts(inside, ran) -> None:
    """Program, output, verdict and files are in the HTML; `part=card` is the same card alone."""
    anna = await signed_in(inside, "anna")
    view = await ran(anna, PRINTS + "\n(OUT / 'a.txt').write_text('a')")
    page = (await anna.get(f"/runs/{view['id']}")).text
    part = (await anna.get(f"/runs/{view['id']}?part=card")).text
    assert part.strip() in page
    assert part.lstrip().startswith("<article")
    assert "printed &lt;b&gt;" in part
    assert f"/v1/runs/{view['id']}/files/a.txt" in part
    assert "(OUT / 'a.txt')" in unescape(part)


async def test_a_program_of_a_conversation_is_in_it(inside) -> None:
    """It has a name, and the conversation's page goes on behind the last event once it has ended."""
    anna = await signed_in(inside, "anna")
    talk = (await anna.post("/v1/conversations", json={"title": "mine"})).json()["id"]
    run = (await anna.post(f"/c/{talk}/runs", json={"code": '"""Adds."""\nprint(1 + 1)'})).json()
    assert (run["prog_name"], run["client"], run["conversation"]) == ("Adds.", "page", talk)
    user = await inside.service.accounts.find("anna")
    await inside.service.runs.wait(user, run["id"], 60)
    page = (await anna.get(f"/c/{talk}")).text
    last = (await inside.service.talks.one(user, talk))["last_event"]
    assert re.search(r'data-after="(\d+)"', page)[1] == str(last)
    assert 'data-status="ok"' in page


async def test_a_long_conversation_shows_its_end_and_leads_to_the_rest(inside) -> None:
    """No more runs are read than that; what was said before them is not shown either."""
    anna = await signed_in(inside, "anna")
    talk = (await anna.post("/v1/conversations", json={})).json()["id"]
    user = await inside.service.accounts.find("anna")
    for number in range(3):
        await inside.service.talks.add(talk, 0, "user", [{"text": f"said {number}."}])
        run = (await anna.post(f"/c/{talk}/runs", json={"code": f"print('printed {number}.')"})).json()["id"]
        await inside.service.runs.wait(user, run, 60)

    async def shown(query: str) -> tuple[list[str], list[str], bool]:
        page = (await anna.get(f"/c/{talk}{query}")).text
        ran = [number for number in "012" if f">print(&#39;printed {number}.&#39;)<" in page.replace("\n", "")]
        return ran, [number for number in "012" if f"said {number}." in page], "Earlier runs" in page

    assert len(await inside.service.records.of_conversation(talk, 2)) == 2
    assert await shown("?last=2") == (["1", "2"], ["2"], True)
    assert await shown("") == (["0", "1", "2"], ["0", "1", "2"], False)
    assert (await anna.get(f"/c/{talk}?last=1001")).status_code == 422


async def test_a_page_of_what_runs_begins_before_it(inside) -> None:
    """Every event of an open run is told to the page, so nothing that was printed is missing on it."""
    anna = await signed_in(inside, "anna")
    talk = (await anna.post("/v1/conversations", json={})).json()["id"]
    user = await inside.service.accounts.find("anna")
    first = (await anna.post(f"/c/{talk}/runs", json={"code": "1"})).json()["id"]
    await inside.service.runs.wait(user, first, 60)
    ended = (await inside.service.talks.one(user, talk))["last_event"]
    waits = "import time\nprint('early', flush=True)\ntime.sleep(60)"
    run = (await anna.post(f"/c/{talk}/runs", json={"code": waits})).json()["id"]
    async for event in inside.service.runs.events(run):
        if event.kind == "output":
            break
    page = (await anna.get(f"/c/{talk}")).text
    assert re.search(r'data-after="(\d+)"', page)[1] == str(ended)
    await inside.service.runs.cancel(user, run)
    await inside.service.runs.wait(user, run, 60)


async def test_runs_are_listed_a_page_at_a_time(inside, ran) -> None:
    """Found by a part of the name, in any case; a wrong status is none."""
    anna = await signed_in(inside, "anna")
    await ran(anna, "1", prog_name="Needle")
    for query, found in (("q=needle", True), ("q=other", False), ("status=failed", False), ("status=%3Ci%3E", True)):
        page = (await anna.get(f"/runs?{query}")).text
        assert ("Needle" in page) is found
        assert "<i>" not in page


async def test_a_starter_names_its_files_by_their_digest(inside) -> None:
    """The data that it reads is the service's, and is sent to users alone."""
    anna = await signed_in(inside, "anna")
    told = (await anna.get("/starters/chart")).json()
    assert [one["name"] for one in told["inputs"]] == ["penguins.csv"]
    sent = await anna.post(
        "/v1/files", files={"file": ("penguins.csv", (await anna.get("/starters/files/penguins.csv")).content)}
    )
    assert sent.json()["sha256"] == told["inputs"][0]["sha256"]
    assert (await anna.get("/starters/hello")).status_code == 404
    assert (await anna.get("/starters/files/searches.json")).status_code == 404
    assert (await inside.nobody.get("/starters/chart")).status_code == 401
