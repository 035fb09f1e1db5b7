"""Files that users bring along: the bytes in a folder, under names of ours; the rest in the database."""

import hashlib
import mimetypes
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import delete, func, insert, select

from isorun.core.request import Named
from isorun.service.problems import Problem, not_found
from isorun.service.store.accounts import User, hold
from isorun.service.store.database import Database
from isorun.service.store.tables import uploads
from isorun.store.folder import utc_now

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A file of a user's."""

    id: str
    name: str
    bytes: int
    sha256: str
    mime: str
    created: str


@dataclass(frozen=True, slots=True)
class Brought(Named):
    """An upload as an input of a run; `upload` is its id, by which the same run can be asked for again."""

    content: Path
    upload: str


class Uploads:
    """Those in *folder*, by what *database* says."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._db, self._folder = database, folder
        folder.mkdir(mode=0o700, exist_ok=True)

    async def used(self, user: User) -> int:
        """Bytes of the user's uploads."""
        question = select(func.coalesce(func.sum(uploads.c.bytes), 0)).where(uploads.c.user_id == user.id)
        async with self._db.read() as connection:
            return int((await connection.execute(question)).scalar_one())

    def write(self, source: BinaryIO, name: str, *, batch: str = "") -> Upload:
        """Copy *source*; blocks. It has no owner until `add`. *batch*: the hex digits with which its id is to begin.

        Raises `OSError`, and leaves nothing then.
        """
        upload_id, digest, size = f"f_{batch}{secrets.token_hex(8)[len(batch) :]}", hashlib.sha256(), 0
        try:
            with (self._folder / upload_id).open("xb") as target:
                while piece := source.read(_PIECE):
                    digest.update(piece)
                    size += len(piece)
                    target.write(piece)
        except BaseException:
            self.discard(upload_id)
            raise
        mime = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return Upload(id=upload_id, name=name, bytes=size, sha256=digest.hexdigest(), mime=mime, created=utc_now())

    async def add(self, user: User, upload: Upload, most: int) -> None:
        """It is the user's from now on. Raises `Problem` 507 if he would have more than *most* bytes then."""
        values = {name: getattr(upload, name) for name in Upload.__slots__}
        size = select(func.coalesce(func.sum(uploads.c.bytes), 0)).where(uploads.c.user_id == user.id)
        async with self._db.write() as connection:
            if not await hold(connection, user.id):
                raise not_found("user")
            if int((await connection.execute(size)).scalar_one()) + upload.bytes > most:
                raise no_room(most)
            await connection.execute(insert(uploads).values(user_id=user.id, **values))

    async def all(self, user: User) -> list[Upload]:
        """The user's, newest first."""
        question = select(uploads).where(uploads.c.user_id == user.id).order_by(uploads.c.created.desc())
        async with self._db.read() as connection:
            rows = (await connection.execute(question)).mappings().all()
        return [Upload(**{name: row[name] for name in Upload.__slots__}) for row in rows]

    async def named(self, user: User, ids: Sequence[str]) -> list[Brought]:
        """Each of *ids* as an input. Raises `Problem` 422, which says which of them the user does not have."""
        if not ids:
            return []
        known = {one.id: one for one in await self.all(user)}
        missing = next((number for number, one in enumerate(ids, 1) if one not in known), None)
        if missing is not None:  # by its place: the answer is the same for another user's and for none
            detail = f"file {missing} of those given does not exist, or is not yours"
            raise Problem(422, "unknown_file", detail, hint="upload it again")
        names = [known[one].name for one in ids]
        if len(set(names)) < len(names):
            raise Problem(
                422, "same_name", "two of the inputs have the same name", hint="upload one under another name"
            )
        return [Brought(known[one].name, self._folder / one, one) for one in ids]

    async def remove(self, user: User, upload_id: str) -> None:
        """The file and its row. Raises `Problem` 404."""
        async with self._db.write() as connection:
            mine = (uploads.c.id == upload_id) & (uploads.c.user_id == user.id)
            if not (await connection.execute(delete(uploads).where(mine))).rowcount:
                raise not_found("file")
        self.discard(upload_id)

    def discard(self, upload_id: str) -> None:
        """Remove the bytes of an upload that has no owner."""
        (self._folder / Path(upload_id).name).unlink(missing_ok=True)


def no_room(most: int) -> Problem:
    """A 507."""
    return Problem(507, "no_room_left", f"your files may have {most} bytes", hint="delete files that you do not need")
