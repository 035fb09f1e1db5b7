"""Small files that the loader leaves in work/, read after the last process of the run is dead.

The program may have put anything in their place: only a regular file is read, and only its beginning. Nothing here
decodes or parses.
"""

import os
import stat


def read_kept(work: int, name: str, most: int) -> bytes | None:
    """The first *most* bytes of the file *name* in the folder *work*; None without such a regular file."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=work)
    except OSError:
        return None
    try:
        return os.read(descriptor, most) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except OSError:
        return None
    finally:
        os.close(descriptor)
