"""Where the service's log goes: to standard error, and into a file of LOG_DIR if that is set."""

import logging
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path

from isorun.core.errors import InvalidRequest
from isorun.settings import Settings

FILE = "service.log"
_BYTES, _OLDER = 10 << 20, 3  # of one file, and how many older ones are kept


def start_logging(settings: Settings) -> None:
    """Log from INFO on. Raises `InvalidRequest` (invalid_setting) for a LOG_DIR that this user cannot write to."""
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if settings.log_dir is not None:
        handlers.append(_file_in(settings.log_dir))
    line = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s [%(name)s] %(message)s", "%Y-%m-%dT%H:%M:%S")
    line.converter = time.gmtime
    for handler in handlers:
        handler.setFormatter(line)
    logging.basicConfig(level=logging.INFO, handlers=handlers)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # else each start tells how a database is looked at


def _file_in(folder: Path) -> logging.Handler:
    try:
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        return RotatingFileHandler(folder / FILE, maxBytes=_BYTES, backupCount=_OLDER, encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(
            f"LOG_DIR={folder}: {error.strerror}; name a folder that this user may write to, or let this user own "
            f"that one (in a container: chown 1000:1000 of the host's folder that is mounted there)",
            code="invalid_setting",
        ) from None
