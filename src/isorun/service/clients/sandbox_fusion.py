"""`POST /run_code`, as SandboxFusion has it: for verl and other trainers, and for its own client.

What the program did is in the answer, with status 200. Its client tries again at every other status, and at
`SandboxError`, so a program that failed is never one.
"""

import asyncio
import base64
import binascii
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from isorun.core.request import RunRequest
from isorun.service.api.runs import Open
from isorun.service.clients.kept import content
from isorun.service.clients.speech import KeyUser, run_while_asked, said, speaking, timeout_of, unfinished
from isorun.service.context import Service
from isorun.service.problems import Problem

MOST_BODY = 64 << 20
_MOST_FETCHED = 32 << 20  # bytes of all files in an answer
_CODE, _FILES = 1 << 20, 100
_OURS = ("lost", "cancelled")  # endings that are not the program's


def _shape(problem: Problem) -> Response:
    # Where a body is wrong, FastAPI's shape, which SandboxFusion has.
    return JSONResponse({"detail": said(problem)}, problem.status, problem.headers)


router = APIRouter(tags=["clients"], route_class=speaking(_shape), include_in_schema=False)


class RunCode(BaseModel):
    """SandboxFusion's request. `compile_timeout` is taken and means nothing: Python has no such step."""

    code: Annotated[str, Field(max_length=_CODE)]
    language: Annotated[str, Field(max_length=40)]
    compile_timeout: float | None = None
    run_timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10
    memory_limit_MB: int | None = -1
    stdin: Annotated[str, Field(max_length=_CODE)] | None = None
    files: Annotated[dict[str, str | None], Field(max_length=_FILES)] = {}
    fetch_files: Annotated[list[str], Field(max_length=_FILES)] = []
    args: Annotated[list[str], Field(max_length=_FILES)] = []


@router.post("/run_code")
async def run_code(body: RunCode, request: Request, user: KeyUser, service: Open) -> dict[str, Any]:
    """Run a Python program, as a client of SandboxFusion asks for it."""
    if body.language != "python":
        return _refused("only programs of the language python are run here")
    given = {name: _decoded(text) for name, text in body.files.items() if text is not None}
    view = await run_while_asked(request, service, user, _request(body, given, service), "sandbox_fusion")
    if view["status"] in _OURS:
        return _refused(unfinished(view) or "the run was lost")
    try:
        files = await asyncio.to_thread(_fetched, service, view, body.fetch_files, given)
    except Problem as problem:
        return _refused(said(problem))
    ran = _ran(view)
    ended_well = ran["status"] == "Finished" and ran["return_code"] == 0
    return _answer("Success" if ended_well else "Failed", "", ran, files)


def _request(body: RunCode, given: dict[str, bytes], service: Service) -> RunRequest:
    options: dict[str, Any] = {"timeout_s": timeout_of(body.run_timeout, service), "argv": body.args, "tools": []}
    if body.stdin is not None:
        options["stdin"] = body.stdin
    if given:
        options["inputs"] = given
    memory = (body.memory_limit_MB or -1) << 20
    if 0 < memory < service.runtime.limits.memory_bytes:
        options["limits"] = {"memory_bytes": memory}
    return RunRequest.of(body.code, **options)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Problem(422, "invalid_request", "files: the content of each must be base64") from None


def _ran(view: dict[str, Any]) -> dict[str, Any]:
    result = view["result"]
    timed_out = view["status"] == "timed_out"
    code = result["exit_code"] if result["signal"] is None else -int(result["signal"])
    return {
        "status": "TimeLimitExceeded" if timed_out else "Finished",
        "execution_time": result["timings"].get("run_s"),
        "return_code": None if timed_out else code if code or view["status"] == "ok" else 1,
        "stdout": result["stdout"],
        "stderr": result["stderr"] + unfinished(view),
    }


def _fetched(service: Service, view: dict[str, Any], wanted: list[str], given: dict[str, bytes]) -> dict[str, str]:
    """Those of *wanted* that there are: what the program wrote, else what it was given."""
    found: dict[str, str] = {}
    room = _MOST_FETCHED
    known = {one["path"]: one["bytes"] for one in view["files"]}
    for path in wanted:
        name = path.removeprefix("./")
        room -= known.get(name, len(given.get(name, b"")))
        if room < 0:
            raise Problem(413, "too_large", f"the files that were asked for have more than {_MOST_FETCHED} bytes")
        data = content(service, view["id"], name, _MOST_FETCHED) if name in known else given.get(name)
        if data is not None:
            found[path] = base64.b64encode(data).decode()
    return found


def _refused(message: str) -> dict[str, Any]:
    return _answer("SandboxError", message, None, {})


def _answer(status: str, message: str, ran: dict[str, Any] | None, files: dict[str, str]) -> dict[str, Any]:
    return {
        "status": status,
        "message": message,
        "compile_result": None,
        "run_result": ran,
        "executor_pod_name": None,
        "files": files,
    }
