"""The names a program finds without importing them."""

import asyncio
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from isorun.core.sent.context import RunContext
from isorun.executor.calls import agent_io_tools

OF_RUN = ("CONTRACT", "EXECUTION_ID", "TURN_ID")


def base(out: str) -> dict[str, Any]:
    """What every program's `__main__` starts with; *out* is its output directory."""
    return {
        "__name__": "__main__",
        "OUTPUT_DIR": out,
        "OUT": Path(out),
        "OUT_DIR": Path(out),
        "Path": Path,
        "os": os,
        "asyncio": asyncio,
        "sys": sys,
        "time": time,
        "json": json,
        "logging": logging,
        "agent_io_tools": agent_io_tools,
    }


def of_run(context: RunContext) -> dict[str, Any]:
    """What differs from run to run, by the names in `OF_RUN`; the tools come on top."""
    return dict(zip(OF_RUN, (context.contract or None, context.exec_id, context.turn), strict=True))
