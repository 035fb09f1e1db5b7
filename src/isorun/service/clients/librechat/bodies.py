"""What LibreChat sends to run programs, what it gets of them, and its shape of an error."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from isorun.core.request import RunRequest
from isorun.service.clients.kept import content
from isorun.service.clients.librechat import names
from isorun.service.clients.speech import said, timeout_of, unfinished
from isorun.service.context import Service
from isorun.service.problems import Problem, not_found
from isorun.service.store.accounts import User
from isorun.service.store.uploads import Brought

_CODE, _FILES = 1 << 20, 100
_PYTHON = ("py", "python")


def shape(problem: Problem) -> Response:
    """`{"error": …}`; of a 429 with the word and the seconds that LibreChat reads."""
    if problem.status == 429:
        seconds = int(problem.headers.get("Retry-After", "1"))
        told: dict[str, Any] = {"error": "rate_limited", "retry_after_seconds": seconds, "message": said(problem)}
    else:
        told = {"error": said(problem)}
    return JSONResponse(told, problem.status, problem.headers)


class FileBody(BaseModel):
    """A file that the program is to find. `session_id` is what older versions call the storage session."""

    id: Annotated[str, Field(max_length=64)]
    name: Annotated[str, Field(max_length=1000)]
    storage_session_id: Annotated[str, Field(max_length=64)] = ""
    session_id: Annotated[str, Field(max_length=64)] = ""

    @property
    def session(self) -> str:
        """Where it is kept."""
        return self.storage_session_id or self.session_id


class ExecBody(BaseModel):
    """A program. What else LibreChat sends (kinds and ids of its own resources) means nothing here."""

    code: Annotated[str, Field(max_length=_CODE)] = ""
    lang: Annotated[str, Field(max_length=20)] = "py"
    language: Annotated[str, Field(max_length=20)] = ""
    args: Annotated[list[str], Field(max_length=100)] | str = []
    files: Annotated[list[FileBody], Field(max_length=_FILES)] = []
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None  # milliseconds


async def request_of(
    body: ExecBody, user: User, service: Service, *, code: str | None = None, tools: dict[str, Any] | None = None
) -> RunRequest:
    """The run that *body* asks for. Raises `Problem`: 400 for another language, 404 for a file; `InvalidRequest`."""
    if (body.language or body.lang) not in _PYTHON:
        raise Problem(400, "unsupported_language", "only Python runs here", hint="send `lang: py`")
    inputs = {names.place(one.name): await _given(one, user, service) for one in body.files}
    options: dict[str, Any] = {
        "argv": [body.args] if isinstance(body.args, str) else body.args,
        "timeout_s": timeout_of(None if body.timeout is None else body.timeout / 1000, service),
        "exec_id": names.new_run(),
        "inputs": {name: one.content if isinstance(one, Brought) else one for name, one in inputs.items()},
        "tools": tools,
    }
    made = RunRequest.of(body.code if code is None else code, **options)  # which checks the names
    kept = tuple(given if isinstance(given := inputs[one.name], Brought) else one for one in made.inputs)
    return replace(made, inputs=kept)


async def _given(file: FileBody, user: User, service: Service) -> Brought | bytes:
    """The bytes, or where they are: of an upload, or of a file that an earlier run wrote."""
    if (upload := names.upload_of(file.id)) is not None:
        (brought,) = await service.uploads.named(user, [upload])
        return replace(brought, name=names.place(file.name))
    if not names.is_run(file.session):
        raise not_found("file")
    found = await run_file(file.session, file.id, user, service)
    most = service.runtime.limits.input_bytes
    if found["bytes"] > most:
        raise Problem(413, "too_large", f"a file that a program gets has at most {most} bytes")
    data = await service.runs.in_thread(content, service, file.session, found["path"], most)
    if data is None:
        raise not_found("file")
    return data


async def run_file(session: str, file_id: str, user: User, service: Service) -> dict[str, Any]:
    """What is known of the file *file_id* of a run. Raises `Problem` 404."""
    view = await service.runs.view(user, session)
    found = next((one for one in view["files"] if names.of_path(one["path"]) == file_id), None)
    if found is None:
        raise not_found("file")
    return dict(found)


def result_of(view: dict[str, Any]) -> dict[str, Any]:
    """What came of a run."""
    result = view["result"]
    return {
        "session_id": view["id"],
        "stdout": result["stdout"],
        "stderr": result["stderr"] + unfinished(view),
        "files": [file_of(view["id"], one) for one in view["files"]],
    }


def file_of(session: str, file: dict[str, Any]) -> dict[str, Any]:
    """A file of a run. Its path is its name: LibreChat gives it back as the name of an input."""
    return {
        "id": names.of_path(file["path"]),
        "name": file["path"],
        "path": file["path"],
        "storage_session_id": session,
        "session_id": session,
    }
