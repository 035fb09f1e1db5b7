"""The same attack inside a run and outside of every sandbox, each giving one JSON answer."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from isorun import SyncRuntime

HERE = Path(__file__).parent
RAW_CALLS = HERE / "raw_calls.py"
_BEFORE = "import os, sys, json\nfrom raw_calls import *\n"
_AFTER = "\nprint(json.dumps(answer))\n"


def inside(runtime: SyncRuntime, code: str, **options: Any) -> Any:  # noqa: ANN401 - whatever the attack answers
    """What the attack *code* leaves in its variable `answer`; it must end well itself, at the level it was
    given."""
    result = runtime.execute(_BEFORE + code + _AFTER, inputs=[RAW_CALLS], timeout_s=20, **options)
    assert (result.status, result.exit_code) == ("ok", 0), result.report_text
    weakened = bool(result.isolation["without"])
    assert result.isolation["level"] == ("weakened" if weakened else "full")
    return json.loads(result.stdout)


def outside(code: str, **options: Any) -> Any:  # noqa: ANN401 - as above
    """As `inside`, in a plain process on the host: what the attack does where no wall stands."""
    argv = [sys.executable, "-c", _BEFORE + code + _AFTER]
    done = subprocess.run(argv, cwd=HERE, capture_output=True, text=True, timeout=20, **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
