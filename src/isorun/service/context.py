"""Everything that is open while the service runs, and the order in which it opens and closes."""

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from fastapi import Request

from isorun.core.errors import InvalidRequest
from isorun.core.result import RunResult
from isorun.runtime.runtime import Runtime
from isorun.service.runs.runs import Runs
from isorun.service.runs.wakes import Wakes
from isorun.service.sharing import Sharing, open_sharing
from isorun.service.store.accounts import Accounts
from isorun.service.store.database import Database, url_of
from isorun.service.store.records import Records
from isorun.service.store.talks import Talks
from isorun.service.store.uploads import Uploads
from isorun.service.talk.agent import AgentTurns, open_agent
from isorun.service.talk.turns import Turns
from isorun.settings import Settings
from isorun.tools.bundles import bundle_module, example_bundle
from isorun.tools.subsystem import ToolSubsystem

_log = logging.getLogger("isorun.service")


@dataclass(eq=False, kw_only=True)
class Service:
    """What the routes use. `bundle`: the folder whose tools programs may call."""

    settings: Settings
    folder: Path
    database: Database
    accounts: Accounts
    records: Records
    runs: Runs
    wakes: Wakes
    subsystem: ToolSubsystem
    bundle: Path
    uploads: Uploads
    talks: Talks
    closing: asyncio.Event  # set once the service ends: streams end, too
    taken: asyncio.Event  # set once another process serves in this one's place: the service must end
    agent: AgentTurns | None = None  # until it is open
    _isolation: "asyncio.Future[RunResult] | None" = None

    async def close(self) -> None:
        """End every run and turn, and then every stream; no run begins any more."""
        await asyncio.gather(self.runs.close(), self.turns.close())
        self.closing.set()

    @functools.cached_property
    def turns(self) -> Turns:
        """What is said, and what comes of it."""
        return Turns(self)

    @property
    def scenarios(self) -> list[dict[str, Any]]:
        """The scenarios of the bundle, if it has any."""
        if not (self.bundle / "workflow.py").is_file():
            return []
        return [_scenario(one) for one in self.bundle_module("exec").SCENARIOS.values()]

    async def isolation(self) -> Mapping[str, Any]:
        """The walls of this service's programs, read back from an empty program that runs once."""
        failed = self._isolation is not None and self._isolation.done() and self._isolation.exception() is not None
        if self._isolation is None or failed:  # what failed once may be mended since
            self._isolation = asyncio.ensure_future(self.runtime.execute("pass", keep=False, tools=[]))
        return (await asyncio.shield(self._isolation)).isolation

    @property
    def runtime(self) -> Runtime:
        """Where programs run."""
        return self.subsystem.runtime

    def bundle_module(self, name: str) -> ModuleType:
        """A module of the example bundle."""
        return bundle_module(self.bundle, name)


async def service_of(request: Request) -> Service:  # a plain function would be called in a thread, for each request
    """The open service, for routes."""
    found: Service = request.app.state.service
    return found


def data_folder(settings: Settings) -> Path:
    """Where the database and the uploads are. Raises `InvalidRequest` (invalid_root)."""
    if settings.service_data is not None:
        return settings.service_data
    try:
        return (settings.data_home or Path("~/.local/share").expanduser()) / "isorun" / "service"
    except RuntimeError:
        raise InvalidRequest("this user has no home; set ISORUN_SERVICE_DATA", code="invalid_root") from None


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[tuple[Path, Database]]:
    """The data folder, made if it is missing, and the database. Raises `InvalidRequest`, `Unavailable`."""
    folder = data_folder(settings).absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        text = f"{folder} cannot be made: {error.strerror}; set ISORUN_SERVICE_DATA"
        raise InvalidRequest(text, code="invalid_root") from None
    async with Database(url_of(settings, folder)) as database:
        yield folder, database


@asynccontextmanager
async def open_service(settings: Settings, **options: Any) -> AsyncIterator[Service]:  # noqa: ANN401 - Runtime's
    """The service, open. Raises what its parts raise; then nothing is left open."""
    settings = replace(settings, builtin_tools=True)  # beside the bundle's: who asks for a report gets a document
    async with AsyncExitStack() as stack:
        folder, database = await stack.enter_async_context(open_database(settings))
        sharing = await stack.enter_async_context(open_sharing(settings, folder, database))
        bundle = settings.bundle or example_bundle(settings=settings)
        subsystem = await stack.enter_async_context(_subsystem(bundle, settings, options))
        runs = Runs(
            records=Records(database),
            wakes=sharing.wakes,
            runtime=subsystem.runtime,
            settings=settings,
            host_id=sharing.host,
        )
        service = Service(
            settings=settings,
            folder=folder,
            database=database,
            accounts=Accounts(database),
            records=runs.records,
            runs=runs,
            wakes=sharing.wakes,
            subsystem=subsystem,
            bundle=bundle,
            uploads=Uploads(database, folder / "uploads"),
            talks=Talks(database),
            closing=asyncio.Event(),
            taken=sharing.taken,
        )
        await _take_over(service, sharing)
        service.agent = await stack.enter_async_context(open_agent(service))
        stack.push_async_callback(service.close)
        looking = asyncio.create_task(sharing.look(runs, service.turns, service.accounts))
        stack.callback(looking.cancel)
        yield service


async def _take_over(service: Service, sharing: Sharing) -> None:
    """End what an earlier process of a service of one left open; among several `look` does, once one has died."""
    runs, turns = service.runs, service.turns

    def begin_anew() -> None:
        runs.host_id = sharing.host
        runs.stop_buried()
        turns.stop_buried()

    sharing.when_buried(begin_anew)
    if not sharing.several:
        if lost := await runs.look(await runs.records.open_runs()):
            _log.warning("%d runs of an earlier process were lost", lost)
        await turns.look(await service.talks.going_on(orphans=False))


def _scenario(one: Any) -> dict[str, Any]:  # noqa: ANN401 - a class of the bundle, which is imported by its path
    return {
        "number": one.number,
        "title": one.title,
        "followup": one.followup,
        "mode": one.mode,
        "timeout_s": one.timeout_s,
        "expects": str(one.expected),
        "code": one.program,
    }


def _subsystem(bundle: Path, settings: Settings, options: dict[str, Any]) -> ToolSubsystem:
    workflow = bundle / "workflow.py"
    if workflow.is_file():
        made: ToolSubsystem = bundle_module(bundle, "workflow").new_subsystem(settings, **options)
        return made
    return ToolSubsystem(bundle, settings=settings, **options)
