"""What the host itself sees of a promised file: whether text is text, and how other bytes begin.

Decoding UTF-8 and comparing some bytes are all that is done here; nothing is parsed. What has a structure is opened by
`inspector`, in a slot. A slot costs some 100 ms, which most promises, being texts, shall not pay.
"""

import codecs
import os
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from isorun.core.contract.items import Contract
from isorun.core.contract.kinds import Kind, kind_of, suffix_of
from isorun.runtime.inspection.verdict import INVALID, Finding
from isorun.store.collect import Collected

_PIECE = 1 << 20
_START = 64


def glance(contract: Contract, collected: Collected, out: Path) -> dict[str, tuple[Finding, ...]]:
    """What is wrong with promised files below *out* that are not opened; a path that is not in it is fine so far.

    At most `limits.workspace_bytes` are read in all: what was collected. Raises OSError for the host's own trouble.
    """
    found: dict[str, tuple[Finding, ...]] = {}
    for item in contract.items:
        kind, file = kind_of(item.path), collected.files.get(item.path)
        if kind is None or kind.by == "opened" or file is None or not file.bytes:
            continue
        hint = _fault(out / item.path, kind, suffix_of(item.path))
        if hint:
            found[item.path] = (Finding(code=INVALID, hint=f"{item.path} {hint}"),)
    return found


def _fault(path: Path, kind: Kind, suffix: str) -> str:
    # Copied by us a moment ago, as a regular file in a folder of ours; nobody else writes there.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        if kind.by == "text":
            return _no_text(iter(lambda: file.read(_PIECE), b""), suffix)
        start = file.read(_START)
    if any(start[at : at + len(mark)] == mark for at, mark in kind.starts):
        return ""
    return f"does not begin as {suffix} does: it is not {kind.mime}"


def _no_text(pieces: Iterable[bytes], suffix: str) -> str:
    decoder, lines = codecs.getincrementaldecoder("utf-8")(), 1
    for piece in chain(pieces, (b"",)):
        if b"\0" in piece:
            return f"holds a NUL byte, so it is not text as {suffix} promises"
        try:
            decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            line = lines + error.object.count(b"\n", 0, error.start)
            where = f"in line {line}" if piece else "at its end"
            return f"is not UTF-8 text: byte 0x{error.object[error.start]:02x} {where}; write it as UTF-8"
        lines += piece.count(b"\n")
    return ""
