"""Run Python that you have not read, sealed, and know afterwards exactly what happened.

`isorun.run(code)` for one program; `isorun.Runtime` (async) or `isorun.SyncRuntime`
for many. Names are imported on first use: the executor imports parts of this
package in places that have nothing but the standard library, and `import isorun`
works on systems that cannot run a program.
"""

TYPE_CHECKING = False  # not from typing: 10 ms of every start, in the jail too

__version__ = "0.1.0"

if TYPE_CHECKING:
    from isorun.api import SyncRuntime as SyncRuntime
    from isorun.api import run as run
    from isorun.core.errors import CleanupFailed as CleanupFailed
    from isorun.core.errors import InvalidRequest as InvalidRequest
    from isorun.core.errors import IsorunError as IsorunError
    from isorun.core.errors import Misused as Misused
    from isorun.core.errors import SetupFailed as SetupFailed
    from isorun.core.errors import Unavailable as Unavailable
    from isorun.core.limits import Limits as Limits
    from isorun.core.outcome import Code as Code
    from isorun.core.outcome import Status as Status
    from isorun.core.request import RunRequest as RunRequest
    from isorun.core.result import Artifact as Artifact
    from isorun.core.result import RunFailed as RunFailed
    from isorun.core.result import RunResult as RunResult
    from isorun.model import model_request as model_request
    from isorun.model import model_tool as model_tool
    from isorun.runtime.accepted.handle import Run as Run
    from isorun.runtime.carried.session import Session as Session
    from isorun.runtime.runtime import Runtime as Runtime
    from isorun.settings import Settings as Settings
    from isorun.supervisor.tool import ToolContext as ToolContext
    from isorun.supervisor.tool import ToolError as ToolError
    from isorun.supervisor.tool import tool as tool
    from isorun.tools.calling import call_tool as call_tool

_HOME = {
    "Artifact": "isorun.core.result",
    "CleanupFailed": "isorun.core.errors",
    "Code": "isorun.core.outcome",
    "InvalidRequest": "isorun.core.errors",
    "IsorunError": "isorun.core.errors",
    "Limits": "isorun.core.limits",
    "Misused": "isorun.core.errors",
    "Run": "isorun.runtime.accepted.handle",
    "RunFailed": "isorun.core.result",
    "RunRequest": "isorun.core.request",
    "RunResult": "isorun.core.result",
    "Runtime": "isorun.runtime.runtime",
    "Session": "isorun.runtime.carried.session",
    "Settings": "isorun.settings",
    "SetupFailed": "isorun.core.errors",
    "Status": "isorun.core.outcome",
    "SyncRuntime": "isorun.api",
    "ToolContext": "isorun.supervisor.tool",
    "ToolError": "isorun.supervisor.tool",
    "Unavailable": "isorun.core.errors",
    "call_tool": "isorun.tools.calling",
    "model_request": "isorun.model",
    "model_tool": "isorun.model",
    "run": "isorun.api",
    "tool": "isorun.supervisor.tool",
}
__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'isorun' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
