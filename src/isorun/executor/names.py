"""The names a program finds without importing them."""

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isorun.executor.calls import agent_io_tools


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


def of_run(context: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from run to run; the tools come on top."""
    return {"CONTRACT": context["contract"], "EXECUTION_ID": context["exec_id"], "TURN_ID": context["turn"]}
