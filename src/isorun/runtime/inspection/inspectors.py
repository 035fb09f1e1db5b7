"""The slots that inspectors run in. Some wait, once a contract has needed one.

Theory of operation. A Runtime whose contracts need no inspector has nothing of this. The first run whose contract
needs one begins, and beside it, in the background, a jail is started whose interpreter has imported the inspector and
the libraries for the promised kinds of file, and nothing else. From then on slots of it wait, as many as may be looked
into at once, but no more than programs' slots do; each is used once. A contract that promises another kind has the
jail replaced by one with that library too. Programs' slots come from another jail, so no program finds a library
imported that it did not ask for.

Until slots wait, where none are to (a pool of 0), and in containers, which have no interpreter to fork from, the
inspector is sent as text into a slot of the Runtime's backend. In containers such slots wait, too, without libraries.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from isorun.backends.base import Backend, Slot
from isorun.core.contract.items import ContractItem
from isorun.core.contract.kinds import suffix_of
from isorun.core.errors import IsorunError
from isorun.core.guard.log import log_of
from isorun.core.limits import Limits
from isorun.core.text import one_line
from isorun.runtime.choose import is_embedded, namespace_backend
from isorun.runtime.pool import Pool
from isorun.settings import Settings

if TYPE_CHECKING:
    from isorun.backends.namespace.backend import NamespaceBackend

_log = log_of("isorun")
_INSPECTOR = "isorun.runtime.inspection.inspector"
_IMPORTED = f"from {_INSPECTOR} import main\nmain(Path(__file__).parent)\n".encode()
#: More inspectors at once than processors would only make each other late.
AT_ONCE = max(2, os.cpu_count() or 1)
_ZIP = ("zipfile", "xml.parsers.expat")
_TAR = ("tarfile", "lzma", "bz2")
_PICTURE = tuple(f"PIL.{kind}ImagePlugin" for kind in ("Bmp", "Gif", "Jpeg", "Png", "Ppm"))
#: What the inspector imports where it opens a file of that suffix. The others need the standard library's common part.
_LIBRARIES = {
    **dict.fromkeys((".docx", ".epub", ".jar", ".pptx", ".whl", ".zip"), _ZIP),
    **dict.fromkeys((".tar", ".tar.bz2", ".tar.gz", ".tar.xz", ".tgz"), _TAR),
    **dict.fromkeys((".bmp", ".gif", ".jpeg", ".jpg", ".png"), _PICTURE),
    ".pdf": ("pypdf", "pypdf.filters"),
    ".svg": ("xml.parsers.expat",),
    ".tif": (*_PICTURE, "PIL.TiffImagePlugin"),
    ".tiff": (*_PICTURE, "PIL.TiffImagePlugin"),
    ".toml": ("tomllib",),
    ".webp": (*_PICTURE, "PIL.WebPImagePlugin"),
    ".xlsx": (*_ZIP, "isorun.runtime.inspection.no_numpy", "openpyxl"),
    ".xml": ("xml.parsers.expat",),
}
_SCHEMA = ("jsonschema",)


@dataclass(frozen=True, slots=True)
class Place:
    """A slot for one inspector, and the program that is the inspector in it."""

    slot: Slot
    code: bytes


def libraries_for(items: Iterable[ContractItem]) -> tuple[str, ...]:
    """The modules that looking into *items* imports, each behind what it has to come after."""
    found = [name for item in items for name in _LIBRARIES.get(suffix_of(item.path), ())]
    found += [name for item in items if "json_schema" in item.checks for name in _SCHEMA]
    return tuple(dict.fromkeys(found))


class Inspectors:
    """Slots for the inspectors of one Runtime on *backend*; those that wait have *limits*. Leaving it ends them."""

    def __init__(self, backend: Backend, settings: Settings, limits: Limits) -> None:
        self._backend = backend
        self._settings = settings
        self._limits = limits
        self._most = min(settings.pool_size, AT_ONCE)
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._own: NamespaceBackend | None = None
        self._pool: Pool | None = None
        self._wanted: tuple[str, ...] = ()
        self._imported: tuple[str, ...] = ()  # or being imported
        self._preparing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Inspectors":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._preparing is not None:
            self._preparing.cancel()
            await asyncio.wait({self._preparing})
        await self._stack.__aexit__(kind, error, trace)

    @property
    def waiting(self) -> int:
        """Slots that are ready now."""
        return self._pool.waiting if self._pool else 0

    def expect(self, items: Iterable[ContractItem]) -> None:
        """Files of *items* will be looked into soon: have slots wait for that from now on. Returns at once."""
        items = tuple(items)
        if not items or not self._most:
            return
        known = self._wanted
        self._wanted = tuple(dict.fromkeys((*known, *libraries_for(items))))
        is_busy = self._preparing is not None and not self._preparing.done()
        if (self._pool is None or self._wanted != known) and not is_busy:
            self._preparing = asyncio.create_task(self._prepare(), name="isorun-inspectors")
            self._preparing.add_done_callback(_told)

    @asynccontextmanager
    async def place(self, limits: Limits) -> AsyncIterator[Place]:
        """A slot with *limits*, which waited if they are the usual ones. Raises what `Backend.launch` raises."""
        if self._pool is None:
            backend = await self._sealed()
            async with backend.launch(limits) as slot:
                yield Place(slot, self._program(backend))
            return
        lease, _ = await self._pool.take(limits)
        try:
            yield Place(lease.slot, self._program(self._own or self._backend))
        finally:
            self._pool.give_back(lease)

    async def _prepare(self) -> None:
        """Have slots wait. What fails here costs time alone: slots are then built while a run waits for them."""
        try:
            backend = await self._sealed(ahead=True)
            while self._own is not None and self._imported != self._wanted:
                self._imported = self._wanted
                await self._own.reload((_INSPECTOR, *self._imported))
                if self._pool is not None:
                    self._pool.renew()  # a slot that waits on keeps its whole jail
            if self._pool is None:
                self._pool = await self._stack.enter_async_context(Pool(backend, self._limits, self._most))
        except IsorunError as error:
            _log.warning("no inspector waits: %s", one_line(str(error)))

    async def _sealed(self, *, ahead: bool = False) -> Backend:
        """The Runtime's backend if its programs run on isorun's own Python; if not, and with *ahead*, ours.

        An executor image has what the inspector needs: where that is the backend, there may be no other.
        """
        backend, settings = self._backend, self._settings
        is_foreign = backend.name != "docker" and backend.environment.python != sys.executable
        if not (is_foreign or (ahead and is_embedded(backend))):
            return backend
        async with self._opening:
            if self._own is None:
                preloads = (_INSPECTOR, *self._wanted)
                settings = replace(settings, program_python=None, preload=preloads)
                own = backend.beside(preloads) if is_embedded(backend) else namespace_backend(settings)
                self._imported = self._wanted
                self._own = await self._stack.enter_async_context(own)
            return self._own

    def _program(self, backend: Backend) -> bytes:
        """The inspector, for a slot of *backend*: imported there already, or as text."""
        if backend is self._own and _INSPECTOR not in backend.failed_preloads:
            return _IMPORTED
        return Path(__file__).with_name("inspector.py").read_bytes()


def _told(preparing: "asyncio.Task[None]") -> None:
    """A defect of ours is told, as the task is not waited for."""
    if not preparing.cancelled() and (error := preparing.exception()) is not None:
        _log.error("no inspector waits", exc_info=error)
