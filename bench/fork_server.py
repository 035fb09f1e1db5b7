"""A peer: a warm fork server without any wall, the least that a run in an interpreter that is warm already can cost.

A Python that has imported what isorun's zygote has forks once for each program; the child runs it and ends, and the
parent says how. Nothing is sealed, sent, limited, logged or collected.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.pairs import Once

_SERVER = """
import asyncio, fcntl, faulthandler, gc, json, logging, os, sys, traceback
gc.collect()
gc.freeze()
for line in sys.stdin:
    asked = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.environ["OUTPUT_DIR"] = asked["folder"]
        exec(compile(asked["code"], "user_code.py", "exec"), {"__name__": "__main__"})
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@asynccontextmanager
async def fork_server(code: str) -> AsyncIterator[Once]:
    """Seconds of one *code* by a server that is there for the block. Raises SystemExit if it fails."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", _SERVER, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    asked, answers = process.stdin, process.stdout
    if asked is None or answers is None:
        raise SystemExit("the fork server has no streams")

    async def once() -> float:
        with tempfile.TemporaryDirectory() as folder:
            line = json.dumps({"folder": folder, "code": code}).encode()
            began = time.perf_counter()
            asked.write(line + b"\n")
            said = await answers.readline()
            seconds = time.perf_counter() - began
        if said != b"0\n":
            raise SystemExit(f"a peer failed: the fork server said {said!r}")
        return seconds

    try:
        yield once
    finally:
        asked.close()
        await process.wait()
