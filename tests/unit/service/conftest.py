"""The service in this process, over the fake backend: its routes as a client sees them, without a socket."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from isorun.service.app import create_app
from isorun.service.context import Service, open_service
from isorun.settings import Settings
from isorun.testing.fake import FakeBackend


@dataclass
class Inside:
    """A service, and clients of users of its own making."""

    service: Service
    as_user: Callable[[str], Awaitable[httpx2.AsyncClient]]
    nobody: httpx2.AsyncClient


@pytest.fixture
async def inside(tmp_path) -> AsyncIterator[Inside]:
    """An open service of two users at most at once, whose programs run in plain processes."""
    settings = Settings(
        service_data=tmp_path / "service",
        workspace_root=tmp_path / "runs",
        user_workspace_root=tmp_path / "workspace",
        sandbox_root=tmp_path / "sandbox",
    )
    (tmp_path / "runs").mkdir()
    clients: list[httpx2.AsyncClient] = []
    async with open_service(settings, backend=FakeBackend(), pool_size=0) as service:
        app = create_app(service)

        def client(**headers: str) -> httpx2.AsyncClient:
            made = httpx2.AsyncClient(
                transport=httpx2.ASGITransport(app, raise_app_exceptions=False), base_url="http://here", headers=headers
            )
            clients.append(made)
            return made

        async def as_user(name: str) -> httpx2.AsyncClient:
            user = await service.accounts.find(name) or await service.accounts.add(name)
            return client(authorization=f"Bearer {await service.accounts.new_secret(user, 'key')}")

        yield Inside(service, as_user, client())
        for one in clients:
            await one.aclose()
        await service.close()


@pytest.fixture
def ran() -> Callable[..., Awaitable[dict[str, Any]]]:
    """`await ran(client, code, …)`: the whole view of a run that has ended."""

    async def run(client: httpx2.AsyncClient, code: str, **body: object) -> dict[str, Any]:
        answer = await client.post("/v1/runs", json={"code": code, **body}, headers={"Prefer": "wait=60"})
        assert answer.status_code == 200, answer.text
        view: dict[str, Any] = answer.json()
        return view

    return run
