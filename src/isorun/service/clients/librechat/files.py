"""LibreChat's programs without tools of its own, and files: uploads, lists, downloads."""

import mimetypes
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response, UploadFile
from starlette.datastructures import UploadFile as Uploaded

from isorun.service.api import artifacts, uploads
from isorun.service.api.runs import Open
from isorun.service.clients.librechat import PREFIX, names
from isorun.service.clients.librechat.bodies import ExecBody, request_of, result_of, run_file, shape
from isorun.service.clients.speech import KeyUser, run_while_asked, said, speaking
from isorun.service.context import Service
from isorun.service.problems import Problem, not_found
from isorun.service.store.accounts import User
from isorun.service.store.uploads import Upload

router = APIRouter(prefix=PREFIX, tags=["clients"], route_class=speaking(shape), include_in_schema=False)
#: Bytes of a larger body than others may have, by its path.
UPLOADS = {f"{PREFIX}/upload": uploads.MOST_UPLOAD, f"{PREFIX}/upload/batch": uploads.MOST_UPLOAD}
_MOST_FILES = 100
Id = Annotated[str, Path(max_length=64)]


@router.post("/exec")
async def execute(body: ExecBody, request: Request, user: KeyUser, service: Open) -> dict[str, Any]:
    """Run a program."""
    if not body.code:
        raise Problem(400, "missing_code", "the code is missing")
    return result_of(await run_while_asked(request, service, user, await request_of(body, user, service), "librechat"))


@router.post("/upload")
async def upload(request: Request, user: KeyUser, service: Open) -> dict[str, Any]:
    """Keep one file."""
    told = await _keep_all(request, user, service)
    if told["failed"]:
        raise Problem(422, "invalid_file", told["files"][0]["error"])
    return told


@router.post("/upload/batch")
async def upload_batch(request: Request, user: KeyUser, service: Open) -> dict[str, Any]:
    """Keep several, as one session; each is told by itself."""
    return await _keep_all(request, user, service)


async def _keep_all(request: Request, user: User, service: Service) -> dict[str, Any]:
    batch = names.new_batch()
    async with request.form(max_files=_MOST_FILES, max_fields=20) as form:
        given = [one for _, one in form.multi_items() if isinstance(one, Uploaded)]
        if not given:
            raise Problem(400, "missing_file", "no file was sent", hint="send it as the form's field `file`")
        kept = [await _keep(one, user, service, batch) for one in given]
    failed = sum(one["status"] == "error" for one in kept)
    session = names.session_of(batch)
    return {
        "message": "error" if failed == len(kept) else "success",
        "storage_session_id": session,
        "session_id": session,
        "files": kept,
        "succeeded": len(kept) - failed,
        "failed": failed,
    }


async def _keep(file: Uploaded, user: User, service: Service, batch: str) -> dict[str, Any]:
    told = {"filename": file.filename or ""}
    try:
        made = await uploads.keep(
            UploadFile(file.file, size=file.size, filename=file.filename), user, service, batch=batch
        )
    except Problem as problem:
        return {**told, "status": "error", "error": said(problem)}
    return {**told, "status": "success", "fileId": names.of_upload(made.id)}


@router.get("/files/{session}")
async def listing(session: Id, user: KeyUser, service: Open) -> list[dict[str, Any]]:
    """The files of a run, or of a batch of uploads. `detail` means nothing here: all is told."""
    if names.is_run(session):
        view = await service.runs.view(user, session)
        ended = view["ended"] or view["created"]
        return [_told(session, names.of_path(one["path"]), one["path"], one["bytes"], ended) for one in view["files"]]
    return [
        _told(session, names.of_upload(one.id), one.name, one.bytes, one.created)
        for one in await _uploads(session, user, service)
    ]


async def _uploads(session: str, user: User, service: Service) -> list[Upload]:
    """The user's uploads of that session. Raises `Problem` 404."""
    batch = names.batch_of(session)
    found = [one for one in await service.uploads.all(user) if batch and one.id.startswith(f"f_{batch}")]
    if not found:
        raise not_found("run")
    return found


def _told(session: str, file_id: str, name: str, size: int, at: str) -> dict[str, Any]:
    mime = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return {
        "id": file_id,
        "name": f"{session}/{file_id}",
        "storage_session_id": session,
        "session_id": session,
        "size": size,
        "lastModified": at,
        "contentType": mime,
        "metadata": {"original-filename": name, "content-type": mime},
    }


@router.get("/download/{session}/{file_id}", response_class=Response)
async def download(session: Id, file_id: Id, user: KeyUser, service: Open) -> Response:
    """The bytes of a file of a run, or of an upload."""
    if names.is_run(session):
        found = await run_file(session, file_id, user, service)
        return await artifacts.file(session, found["path"], user, service, download=True, wanted="", if_none_match="")
    upload_id = names.upload_of(file_id)
    for one in await _uploads(session, user, service):
        if one.id == upload_id:
            (kept,) = await service.uploads.named(user, [one.id])
            return artifacts.sent(kept.content, one.name, one.mime)
    raise not_found("run")
