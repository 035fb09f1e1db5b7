"""The ids that LibreChat sees: 21 characters each, because it takes no others. Pure: each is made of what it names.

A storage session is a run, whose files its program wrote, or a batch of uploads. No id lets anybody in: whose the run
or the upload is, decides.
"""

import hashlib
import re
import secrets

_RUN = re.compile(r"lc-[0-9a-f]{18}")
_BATCH = re.compile(r"up-([0-9a-f]{8})-{10}")
_UPLOAD = re.compile(r"up-(f_[0-9a-f]{16})")


def new_run() -> str:
    """The id of a new run, which is its storage session, too."""
    return f"lc-{secrets.token_hex(9)}"


def is_run(session: str) -> bool:
    """Whether that session can be a run."""
    return _RUN.fullmatch(session) is not None


def new_batch() -> str:
    """What the ids of the uploads of one request begin with."""
    return secrets.token_hex(4)


def session_of(batch: str) -> str:
    """The storage session of those uploads."""
    return f"up-{batch}{'-' * 10}"


def batch_of(session: str) -> str | None:
    """The other way."""
    found = _BATCH.fullmatch(session)
    return found[1] if found else None


def of_upload(upload_id: str) -> str:
    """An upload, as LibreChat calls it."""
    return f"up-{upload_id}"


def upload_of(file_id: str) -> str | None:
    """The other way."""
    found = _UPLOAD.fullmatch(file_id)
    return found[1] if found else None


def of_path(path: str) -> str:
    """A file of a run."""
    return f"p{hashlib.sha256(path.encode('utf-8', 'surrogatepass')).hexdigest()[:20]}"


def place(name: str) -> str:
    """Where a program finds a file that LibreChat calls *name*. Models may name a folder before it."""
    return name.removeprefix("/mnt/data/").removeprefix("./")
