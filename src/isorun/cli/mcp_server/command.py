"""`isorun mcp`: a model's client (Claude, Cursor, VS Code and others) starts it, and runs Python in sandboxes by it.

It speaks the Model Context Protocol on stdin and stdout, and needs the extra `mcp`.
"""

from __future__ import annotations

from pathlib import Path

from isorun.cli.parsing import BACKEND, ENV_FILE, PRELOAD, option

_PACKAGES = ("mcp", "mcp_types", "anyio", "starlette")  # of the extra, and of what it brings
OPTIONS = {
    "mcp": (
        BACKEND,
        option("--bundle DIR", "The folder whose tools the programs may call.", type=Path),
        option("--python FILE", "The Python that the programs run on.", type=Path),
        PRELOAD,
        ENV_FILE,
    )
}
END = "A client starts it by itself: docs/mcp.md says what to paste into which. It ends when its stdin does."


def mcp(
    backend: str | None = None,
    bundle: Path | None = None,
    python: Path | None = None,
    preload: list[str] | None = None,
    env_file: Path | None = None,
) -> int:
    """Offer the sandbox to a model's client: an MCP server on stdin and stdout."""
    import sys

    from isorun.cli.run.command import Wanted
    from isorun.cli.run.early import settings_for
    from isorun.cli.run.importing import uncollected
    from isorun.core.errors import InvalidRequest
    from isorun.core.text import one_line
    from isorun.runtime.runtime import Runtime

    try:
        with uncollected():
            from isorun.service.mcp.stdio import serve
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _PACKAGES:
            raise
        text = f"isorun mcp needs the package {package}, which is not installed: pip install 'isorun[mcp]'"
        raise InvalidRequest(text, code="missing_extra") from None
    settings = settings_for(Wanted(preload=tuple(preload or ()), python=python, env_file=env_file))
    for warning in settings.warnings:
        print("isorun: warning:", one_line(warning), file=sys.stderr)  # noqa: T201 - for the user
    return serve(Runtime(backend=backend, settings=settings, bundle=bundle, preload=preload))
