"""Sending a program into a slot over its control stream."""

import errno
import hashlib

from isorun.backends.base import File, Program
from isorun.core.errors import InvalidRequest, SetupFailed
from isorun.kernel.readiness import Channel
from isorun.wire.messages import Go, Put, Started, Stored, StoreError

_CHUNK = 1 << 20


async def send_program(control: Channel, program: Program) -> None:
    """Send files, then `Go`; return when the program's first instruction is next."""
    try:
        for file in program.files:
            await _send_file(control, file)
        await control.send(Go(argv=list(program.argv), env=dict(program.env), context=dict(program.context)))
    except ConnectionError:
        pass  # the slot stopped reading; what it says below is why
    while True:
        match await control.receive():
            case Stored():
                continue
            case Started():
                return
            case StoreError(path=path, reason=reason, errno=number):
                raise _refusal(path, reason, number)
            case message:
                raise SetupFailed("start", f"the slot is gone (last word: {message})")


def _refusal(path: str, reason: str, number: int | None) -> InvalidRequest:
    if number in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        return InvalidRequest(
            f"{path} does not fit the workspace: {reason}; send less or raise the limit",
            code="inputs_too_large",
        )
    return InvalidRequest(f"{path} cannot be stored: {reason}", code="invalid_input")


async def _send_file(control: Channel, file: File) -> None:
    if file.source is None:
        data = memoryview(file.data or b"")
        await control.send(_put(file, bytes(data[:_CHUNK]), append=False))
        for start in range(_CHUNK, len(data), _CHUNK):
            await control.send(_put(file, bytes(data[start : start + _CHUNK]), append=True))
        return
    digest = hashlib.sha256()
    with file.source.open("rb") as source:
        append = False
        while (chunk := source.read(_CHUNK)) or not append:
            await control.send(_put(file, chunk, append=append))
            digest.update(chunk)
            append = True
    if file.sha256 is not None and digest.hexdigest() != file.sha256:
        raise InvalidRequest(f"{file.source} changed while it was sent; send a copy", code="invalid_input")


def _put(file: File, data: bytes, *, append: bool) -> Put:
    return Put(path=file.path, data=data, append=append, mode=file.mode)
