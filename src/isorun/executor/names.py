"""The names a program finds without importing them (SPEC A3)."""

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isorun.executor import agent_io_tools


def namespace(context: Mapping[str, Any], out: str, tools: Mapping[str, object]) -> dict[str, Any]:
    """What the program's `__main__` starts with."""
    return {
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
        "CONTRACT": context["contract"],
        "EXECUTION_ID": context["exec_id"],
        "TURN_ID": context["turn"],
        **tools,
    }
