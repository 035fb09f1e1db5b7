"""The result of a run whose sandbox failed under it: all that is known of it, but for its files.

A run is also lost with its host (`store.recovery` writes its result) and by the word of a Docker
engine (`backends.docker.ending`, and then `finish` as for any end).

Something of the run may still write, so nothing of its workspace is read.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from isorun.backends.base import Slot
from isorun.core.limits import Limits
from isorun.core.outcome import Code
from isorun.core.report import log_tail, report_text
from isorun.core.result import MAX_CALLS, RunError, RunResult
from isorun.core.text import printable
from isorun.runtime.request import AcceptedRun
from isorun.runtime.run import Conduct
from isorun.store.folder import RunFolder, utc_now
from isorun.store.journal import listed, publish

_HINT = "Run the program again. Everything it printed until then is in out/logs/; its files were not collected."


@dataclass(frozen=True, slots=True, kw_only=True)
class LostRun:
    """A run that *error* ended. *began* is monotonic."""

    request: AcceptedRun
    conduct: Conduct
    slot: Slot
    folder: RunFolder
    limits: Limits
    timings: Mapping[str, Any]
    began: float
    error: BaseException


def store_lost(run: LostRun) -> None:
    """Write result.json, so that the run is not listed as running. Raises `SetupFailed` if the disk refuses."""
    message = printable(f"the sandbox failed under the program: {str(run.error) or type(run.error).__name__}")
    run.folder.append_infra("runtime", "ERROR", message)
    publish(run.folder, run.conduct.tool_calls)
    run.folder.write_result(_result(run, RunError(code=Code.SANDBOX_LOST, message=message, hint=_HINT)).stored())


def _result(run: LostRun, error: RunError) -> RunResult:
    request, folder, output = run.request, run.folder, run.conduct.output
    run_s, frozen_s = run.conduct.clock.run_s, run.conduct.clock.frozen_s
    ended = {"ended": utc_now(), "run_s": run_s, "frozen_s": frozen_s}
    unseen = RunResult.unseen(
        exec_id=request.exec_id,
        turn_id=request.turn,
        prog_name=request.prog_name,
        out_dir=folder.out,
        error=error,
        timings={**run.timings, **ended, "total_s": time.monotonic() - run.began},
    )
    lost = replace(
        unseen,
        stdout=output.text("stdout") if output else "",
        stderr=output.text("stderr") if output else "",
        truncated=output.truncated if output else False,
        notices=run.conduct.heard,
        tool_calls=listed(run.conduct.tool_calls[:MAX_CALLS]),
        user_log_tail=log_tail(output.log_text()) if output else "",
        infra_log_tail=log_tail(folder.infra_text()),
        usage={**unseen.usage, "wall_s": run_s, "output_bytes": output.total if output else 0},
        limits={**run.limits.as_dict(), "wall_s": request.timeout_s},
        isolation={**unseen.isolation, **run.slot.isolation},
    )
    return replace(lost, report_text=report_text(lost))
