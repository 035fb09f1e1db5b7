"""Sending a program into a slot over its control stream."""

import asyncio
import errno
import hashlib
import os
import stat
from contextlib import suppress
from dataclasses import replace
from typing import BinaryIO

from isorun.backends.base import File, FileId, Program
from isorun.core.errors import InvalidRequest, SetupFailed
from isorun.kernel.readiness import Channel
from isorun.wire.messages import Go, Put, Started, StoreError

_CHUNK = 1 << 20
_SMALL = 32 << 10  # bytes of all files together: the socket of a slot that has read everything takes them at once


async def send_ahead(control: Channel, program: Program) -> None:
    """Send the files of *program* now if they are small; `send_program` sends what was not, and hears of failures."""
    if puts := _small(program):
        with suppress(ConnectionError):
            await control.send(*puts)


async def send_program(control: Channel, program: Program) -> None:
    """Send files that `send_ahead` did not, then `Go`; return when the program's first instruction is next."""
    try:
        puts = _small(program)
        for file in program.files:
            if file.path not in program.digests:
                program.digests[file.path] = await _send_file(control, file)
        await control.send(*puts, Go(argv=list(program.argv), env=dict(program.env), context=program.context))
    except ConnectionError:
        pass  # the slot stopped reading; what it says below is why
    match await control.receive():
        case Started():
            return
        case StoreError(path=path, reason=reason, errno=number):
            raise _refusal(path, reason, number)
        case message:
            raise SetupFailed("start", f"the slot is gone (last word: {message})")


def _small(program: Program) -> list[Put]:
    """All files of *program*, whose digests are then set; none if they are not small, or were sent."""
    data = [file.data for file in program.files if file.data is not None]
    if program.digests or len(data) < len(program.files) or sum(map(len, data)) > _SMALL:
        return []
    program.digests.update((file.path, hashlib.sha256(file.data or b"").hexdigest()) for file in program.files)
    return [_put(file, file.data or b"", append=False) for file in program.files]


def _refusal(path: str, reason: str, number: int | None) -> InvalidRequest:
    if number == errno.EFBIG:
        return InvalidRequest(
            f"{path} is larger than one file of the run may be; send less, or raise file_bytes or "
            "ISORUN_MAX_FILE_BYTES",
            code="inputs_too_large",
        )
    if number in (errno.ENOSPC, errno.EDQUOT):
        return InvalidRequest(
            f"{path} does not fit the workspace: {reason}; send less, or raise "
            "ISORUN_MAX_WORKSPACE_BYTES or ISORUN_MAX_WORKSPACE_INODES",
            code="inputs_too_large",
        )
    return InvalidRequest(f"{path} cannot be stored: {reason}", code="invalid_input")


async def _send_file(control: Channel, file: File) -> str:
    """Send *file*; the sha256 of what was sent."""
    if file.source is None:
        data = memoryview(file.data or b"")
        await control.send(_put(file, bytes(data[:_CHUNK]), append=False))
        for start in range(_CHUNK, len(data), _CHUNK):
            await control.send(_put(file, bytes(data[start : start + _CHUNK]), append=True))
        return hashlib.sha256(data).hexdigest()
    # In threads: it may lie on a file system that answers late, and other runs share this loop.
    source = await asyncio.to_thread(_opened, file)
    digest, left = hashlib.sha256(), file.checked.size if file.checked else None
    with source:
        file = replace(file, mode=mode_inside(os.fstat(source.fileno())))
        append = False
        while (chunk := await asyncio.to_thread(source.read, _CHUNK)) or not append:
            if left is not None and (left := left - len(chunk)) < 0:
                raise _changed(file)
            await control.send(_put(file, chunk, append=append))
            digest.update(chunk)
            append = True
    if file.sha256 is not None and digest.hexdigest() != file.sha256:
        raise _changed(file)
    return digest.hexdigest()


def mode_inside(status: os.stat_result) -> int:
    """The mode that a file of the caller's has for the program: it may be executed if somebody outside may do so."""
    return 0o755 if status.st_mode & 0o111 else 0o644


def _opened(file: File) -> BinaryIO:
    """The source of *file*, if it is the regular file that was checked.

    Between the check and now its name, or a folder on the way, may have become a link to what the
    caller may read and whoever made the link may not; or a FIFO, which nobody writes.
    """
    assert file.source is not None
    try:
        descriptor = os.open(file.source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            raise _changed(file) from None
        raise InvalidRequest(f"{file.source} cannot be read: {error.strerror}", code="invalid_input") from None
    status, checked = os.fstat(descriptor), file.checked
    if not stat.S_ISREG(status.st_mode) or (checked and FileId.of(status) != replace(checked, size=status.st_size)):
        os.close(descriptor)
        raise _changed(file)
    return os.fdopen(descriptor, "rb")


def _changed(file: File) -> InvalidRequest:
    return InvalidRequest(f"{file.source} changed while it was sent; send a copy", code="invalid_input")


def _put(file: File, data: bytes, *, append: bool) -> Put:
    return Put(path=file.path, data=data, append=append, mode=file.mode)
