"""A bundle's tools and the Runtime whose programs may call them, as one thing that trusted code opens."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self, Unpack

from isorun.core.errors import InvalidRequest
from isorun.core.request import takes
from isorun.runtime.runtime import BundledOptions, Runtime
from isorun.supervisor.descriptor import DESCRIPTOR
from isorun.tools import exec_tools


class ToolSubsystem:
    """`async with ToolSubsystem("my-bundle/tools_descriptor.py") as tools:`, or the bundle's folder.

    Inside the block `tools.runtime` runs programs, their tool calls are answered by the
    bundle, and the exec tools of this task use that Runtime. *options* are `Runtime`'s.
    Raises what `Runtime` raises, and `InvalidRequest` (missing_bundle).
    """

    @takes(BundledOptions)
    def __init__(self, descriptor_path: str | Path, **options: Unpack[BundledOptions]) -> None:
        given = Path(descriptor_path)
        descriptor = given / DESCRIPTOR if given.is_dir() else given
        if descriptor.name != DESCRIPTOR or not descriptor.is_file():
            raise InvalidRequest(
                f"{given} is not a bundle: it has no {DESCRIPTOR}; name a folder that has one", code="missing_bundle"
            )
        self.bundle = descriptor.parent
        self.runtime = Runtime(bundle=self.bundle, **options)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.runtime)
            await stack.enter_async_context(exec_tools.using(self.runtime))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()
