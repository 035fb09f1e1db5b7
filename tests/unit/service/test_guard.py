"""What stands before every request: who asks, from where, and how much."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import select

from isorun.core.errors import SetupFailed
from isorun.core.result import RunResult
from isorun.service import sharing
from isorun.service.app import create_app
from isorun.service.runs.wakes import LocalWakes
from isorun.service.store.accounts import Accounts, User
from isorun.service.store.tables import keys

pytestmark = pytest.mark.slow  # a service is opened for each

_UNSAFE = [("POST", "/v1/runs"), ("POST", "/v1/conversations"), ("POST", "/v1/files"), ("DELETE", "/v1/runs/a")]
_READ = ["/v1/runs", "/v1/me", "/v1/tools", "/v1/scenarios", "/v1/conversations", "/v1/files", "/v1/status", "/metrics"]


@pytest.mark.parametrize(("method", "path"), _UNSAFE + [("GET", path) for path in _READ])
async def test_nobody_is_let_in_without_a_key(inside, method: str, path: str) -> None:
    """No key, a wrong one, an empty one, a session's in a key's place: 401, and how to get in."""
    user = await inside.service.accounts.add("carol")
    session = await inside.service.accounts.new_secret(user, "session")
    for key in (None, "", "isr_wrong", "x" * 5000, session):
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        refused = await inside.nobody.request(method, path, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (401, "not_signed_in")


async def test_a_revoked_key_lets_nobody_in(inside) -> None:
    """From the next request on."""
    alice = await inside.as_user("alice")
    assert (await alice.get("/v1/me")).json()["name"] == "alice"
    await inside.service.accounts.revoke(alice.headers["authorization"].removeprefix("Bearer ")[:8])
    assert (await alice.get("/v1/me")).status_code == 401


async def test_a_revoked_key_signs_its_users_browsers_out(inside) -> None:
    """Those of another user stay signed in."""
    accounts = inside.service.accounts
    alice, bob = await accounts.add("alice"), await accounts.add("bob")
    key = await accounts.new_secret(alice, "key")
    cookies = [await accounts.new_secret(user, "session") for user in (alice, bob)]
    assert await accounts.revoke(key[:8]) == 1
    assert [await accounts.owner_of(one, "session") for one in cookies] == [None, bob]


async def test_nothing_is_kept_of_a_removed_user(inside, ran) -> None:
    """No run, no event, no conversation; the uploads are named, for who removes their bytes. Another user's stay."""
    alice, bob = await inside.as_user("alice"), await inside.as_user("bob")
    upload = (await alice.post("/v1/files", files={"file": ("a.csv", b"1", "text/csv")})).json()["id"]
    gone, kept = [(await ran(client, "print(1)"))["id"] for client in (alice, bob)]
    assert await inside.service.accounts.remove("alice") == [upload]
    records = inside.service.records
    assert (await records.run(gone), await records.events_of_run(gone, 0)) == (None, [])
    assert await records.events_of_run(kept, 0) != []
    assert (await alice.get("/v1/me")).status_code == 401


async def test_walls_that_could_not_be_read_are_read_again(inside) -> None:
    """A sandbox that failed once may be mended: the status does not fail for ever."""
    failed: asyncio.Future[RunResult] = asyncio.get_running_loop().create_future()
    failed.set_exception(SetupFailed("slot", "no room"))
    inside.service._isolation = failed
    alice = await inside.as_user("alice")
    assert (await alice.get("/v1/status")).json()["isolation"]["backend"] == "fake"


async def test_a_sign_in_link_works_once(inside) -> None:
    """The second use lets nobody in."""
    accounts = inside.service.accounts
    secret = await accounts.new_secret(await accounts.local(), "once")
    assert isinstance(await accounts.owner_of(secret, "once"), User)
    assert await accounts.owner_of(secret, "once") is None


async def test_secrets_whose_time_is_over_are_removed(inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the process that looks for what was lost; those that still let somebody in stay."""
    service, purged = inside.service, asyncio.Event()
    alice = await service.accounts.add("alice")
    hour = timedelta(hours=1)
    for kind in ("key", "once", "session"):
        await service.accounts.new_secret(alice, kind, lives=-hour)
    kept = await service.accounts.new_secret(alice, "session", lives=hour)
    good = {kept, await service.accounts.new_secret(alice, "key")}

    class Told(Accounts):
        async def purge(self) -> None:
            await super().purge()
            purged.set()

    monkeypatch.setattr(sharing, "_LOOK_S", 0.01)
    alone = sharing.Sharing(None, LocalWakes(), several=False)
    looking = asyncio.create_task(alone.look(service.runs, service.turns, Told(service.database)))
    await purged.wait()
    looking.cancel()
    async with service.database.read() as connection:
        rows = (await connection.execute(select(keys.c.prefix).where(keys.c.user_id == alice.id))).scalars().all()
    assert set(rows) == {secret[:8] for secret in good}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "same-origin"}, 201),
        ({"origin": "http://here"}, 201),
        ({"sec-fetch-site": "cross-site", "origin": "http://evil.example"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "none"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({}, 403),
    ],
)
async def test_a_cookie_counts_only_from_our_own_page(inside, headers: dict[str, str], status: int) -> None:
    """What changes something is refused from another page; what only reads is not readable there anyway."""
    accounts = inside.service.accounts
    secret = await accounts.new_secret(await accounts.local(), "session")
    cookie = {"cookie": f"isorun_session={secret}"}
    made = await inside.nobody.post("/v1/conversations", json={}, headers={**cookie, **headers})
    assert made.status_code == status
    assert (await inside.nobody.get("/v1/me", headers=cookie)).json()["name"] == "local"


async def test_a_body_that_is_too_large_is_refused(inside) -> None:
    """By the length that it says, and by the bytes that come."""
    alice = await inside.as_user("alice")
    said = await alice.post("/v1/runs", content=b"x", headers={"content-length": str(20 << 20)})
    assert (said.status_code, said.json()["code"]) == (413, "body_too_large")

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * (1 << 20)

    came = await alice.post("/v1/runs", content=pieces(), headers={"content-type": "application/json"})
    assert (came.status_code, came.json()["code"]) == (413, "body_too_large")


async def test_another_host_name_is_refused(inside) -> None:
    """A name that leads to this address and is not ours: a page could read everything under it."""
    import httpx2

    app = create_app(inside.service, hosts=frozenset({"localhost", "127.0.0.1", "::1"}))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://evil.example") as client:
        assert (await client.get("/healthz")).status_code == 421
        for host in ("localhost", "127.0.0.1:8000", "[::1]:8000"):
            assert (await client.get("/healthz", headers={"host": host})).text == "ok\n"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/v1/nothing", None, 404, "not_found"),
        ("PATCH", "/v1/runs", None, 405, "method_not_allowed"),
        ("POST", "/v1/runs", b"{", 422, "invalid_request"),
        ("POST", "/v1/runs", b'{"code": 5}', 422, "invalid_request"),
        ("POST", "/v1/runs", b'{"code": "pass", "secret-thing": 1}', 422, "invalid_request"),
        ("POST", "/v1/runs", b'{"code": "pass", "timeout_s": -1}', 422, "invalid_request"),
        ("POST", "/v1/runs", b'{"code": "pass", "tools": ["no.tool"]}', 422, "unknown_tool"),
        ("POST", "/v1/runs", b'{"code": "pass", "contract": [{"filename": "../secret-thing"}]}', 422, None),
        ("GET", "/v1/runs?limit=0", None, 422, "invalid_request"),
        ("GET", "/v1/runs?status=secret-thing", None, 422, "invalid_request"),
        ("GET", "/v1/runs/NOT-AN-ID", None, 422, "invalid_request"),
    ],
)
async def test_every_error_has_one_shape(inside, method, path, body, status, code) -> None:
    """RFC 9457, without a path of the host."""
    alice = await inside.as_user("alice")
    answer = await alice.request(method, path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert set(told) == {"type", "title", "status", "detail", "code", "hint"}
    assert told["status"] == status
    assert code is None or told["code"] == code
    assert str(inside.service.folder.parent) not in answer.text
    assert code == "unknown_tool" or "secret-thing" not in answer.text or "../secret-thing" in json.dumps(told)


async def test_quotas_are_a_users_own(inside) -> None:
    """Runs at once, runs a day: 429 with the time to wait; another user is not held up."""
    alice, bob = await inside.as_user("alice"), await inside.as_user("bob")
    sleeping = {"json": {"code": "import time\ntime.sleep(60)"}}
    most = inside.service.settings.user_runs_at_once
    begun = [await alice.post("/v1/runs", **sleeping) for _ in range(most)]
    assert {one.status_code for one in begun} == {202}
    refused = await alice.post("/v1/runs", **sleeping)
    assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (429, "too_many_runs", "1")
    assert (await bob.post("/v1/runs", json={"code": "pass"})).status_code == 202
