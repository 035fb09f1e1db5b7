"""Files that users bring along, over HTTP."""

import re
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response, UploadFile

from isorun.service.api.runs import Open
from isorun.service.auth import CurrentUser
from isorun.service.context import Service
from isorun.service.problems import Problem, disk_full
from isorun.service.store.accounts import User
from isorun.service.store.room import is_full
from isorun.service.store.uploads import Upload, no_room

router = APIRouter(prefix="/v1/files", tags=["files"])
MOST_UPLOAD = 128 << 20
_NAME = re.compile(r"[^/\\\0\x01-\x1f\x7f]{1,200}")


@router.post("", status_code=201)
async def upload(file: UploadFile, user: CurrentUser, service: Open) -> dict[str, Any]:
    """Keep a file, to be an input of runs."""
    return asdict(await keep(file, user, service))


async def keep(file: UploadFile, user: User, service: Service, *, batch: str = "") -> Upload:
    """The file, kept; *batch* as in `Uploads.write`. Raises `Problem`: 422 for its name, 507 without room."""
    name = (file.filename or "").replace("\\", "/").rpartition("/")[2]
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise Problem(
            422, "invalid_name", "the file needs a name without control characters, of at most 200 characters"
        )
    most = user.bytes or service.settings.user_bytes
    if await service.uploads.used(user) + (file.size or 0) > most:
        raise no_room(most)  # before it is written
    write = partial(service.uploads.write, batch=batch)
    try:
        made = await service.runs.in_thread(write, file.file, name)
    except OSError as error:
        if is_full(error):
            raise disk_full(error) from error
        raise
    try:
        await service.uploads.add(user, made, most)
    except BaseException:
        service.uploads.discard(made.id)
        raise
    return made


@router.get("")
async def listing(user: CurrentUser, service: Open) -> dict[str, Any]:
    """The user's files, newest first."""
    return {"files": [asdict(one) for one in await service.uploads.all(user)]}


@router.delete("/{upload_id}", status_code=204)
async def delete(
    upload_id: Annotated[str, Path(pattern="^f_[0-9a-f]{16}$")], user: CurrentUser, service: Open
) -> Response:
    """Remove one."""
    await service.uploads.remove(user, upload_id)
    return Response(status_code=204)
