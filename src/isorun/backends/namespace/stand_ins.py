"""Files that the jail shows instead of the host's, or where the host's is not shown: the same for every run.

Those of /etc are what ordinary programs read without asking, with nothing of the host in them. What of the host's own
/etc is shown is listed in `sandbox_runner.namespace.bubblewrap`.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from isorun.backends.environment import beneath
from isorun.executor import interior, rules

#: By path. Programs ask for the owner of a system file (root, or 65534 where it is nobody's here), and tarfile for the
#: names of both: these three accounts are what such a question can meet.
SYNTHETIC = {
    "/etc/passwd": (
        "root:x:0:0:root:/root:/usr/sbin/nologin\n"
        f"isorun:x:{rules.UID}:{rules.GID}:isorun:/tmp:/bin/sh\n"
        "nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n"
    ),
    "/etc/group": f"root:x:0:\nisorun:x:{rules.GID}:\nnogroup:x:65534:\n",
    # The hostname as `sandbox_runner.docker` has it: at another address than `localhost`, or getfqdn would say that.
    "/etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {rules.HOSTNAME}\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "/etc/hostname": f"{rules.HOSTNAME}\n",
    "/etc/os-release": 'NAME="Linux"\nID=linux\nPRETTY_NAME="Linux in an isorun sandbox"\n',
    "/etc/machine-id": f"{b'isorun'.hex():0<32}\n",  # 32 hexadecimal digits, as its format wants
}

_OF_OURS = re.compile(r"(isorun|sandbox_runner)-[^-/]+\.(dist|egg)-info")


def files(sys_path: Iterable[str], kept: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Path and text of each. *sys_path* is the program's; *kept* are the host paths that are shown again below /tmp."""
    yield from SYNTHETIC.items()
    for path in _entry_points(sys_path):
        yield path, ""
        for number, root in enumerate(kept):
            if beneath(path, root):
                yield f"{interior.KEPT}/{number}{path.removeprefix(root)}", ""


def _entry_points(sys_path: Iterable[str]) -> Iterator[str]:
    """What our own distributions announce: commands and a pytest plug-in.

    Those are for the host. pytest would load the plug-in in every program that runs tests, where a slot may not
    show its code, and warn that `isorun` is imported already, which ends tests that turn warnings into errors.
    """
    for folder in sys_path:
        with suppress(OSError):  # not there, or no folder
            for entry in os.scandir(folder):  # and no glob, which asks what each of many is
                if _OF_OURS.fullmatch(entry.name) and Path(entry.path, "entry_points.txt").exists():
                    yield f"{entry.path}/entry_points.txt"
