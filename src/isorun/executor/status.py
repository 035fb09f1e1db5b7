"""What /proc/<pid>/status says of an executor's process, and the line about it that operators look for."""

from collections.abc import Mapping
from typing import Any

SAYS_WHO = "[executor] "  # so each container's stderr begins, and one line of each run's infra.log


def status_fields(text: str) -> dict[str, str]:
    """The lines of /proc/<pid>/status, by name."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def _line(uid: object, gid: object, effective: str, no_new_privs: object, seccomp: object) -> str:
    # CapEff as the kernel writes it, or ? where it does not.
    bits = effective if effective == "?" else f"{int(effective, 16):x}"
    return f"{SAYS_WHO}UID={uid} GID={gid} CapEff={bits} NoNewPrivs={no_new_privs} Seccomp={seccomp}"


def line_of_status(text: str) -> str:
    """From the /proc/<pid>/status of the program's process."""
    fields = status_fields(text)
    uid, gid, *others = (
        (fields.get(name) or "?").split()[0] for name in ("Uid", "Gid", "CapEff", "NoNewPrivs", "Seccomp")
    )
    return _line(uid, gid, *others)


def line_of_isolation(isolation: Mapping[str, Any]) -> str:
    """From the `isolation` of a slot (`Slot.isolation`)."""
    walls = isolation["walls"]
    if not walls:
        return f"{SAYS_WHO}unsealed ({isolation['backend']} backend)"
    seccomp, effective = walls["seccomp"]["mode"], walls["capabilities"]["CapEff"]
    return _line(walls["uid"], walls["gid"], effective, walls["no_new_privs"], seccomp)
