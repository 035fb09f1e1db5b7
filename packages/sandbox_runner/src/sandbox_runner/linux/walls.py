"""Which walls stand, by what the kernel shows of a process inside. Pure; what it cannot show each backend asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

#: Prints what `shown` reads; by the shell alone, so that an image needs no other program.
SHOW = """\
while read -r name value; do
    case $name in CapEff:|NoNewPrivs:|Seccomp:) echo "$name $value" ;; esac
done < /proc/self/status
"""


def shown(lines: Iterable[str]) -> dict[str, str]:
    """What `SHOW` printed among *lines*: name, with its colon, and value."""
    return dict(line.split(None, 1) for line in lines if line.partition(" ")[0].endswith(":"))


def standing(values: Mapping[str, str]) -> dict[str, bool]:
    """Of each wall that *values* can tell of, whether it stands. What the kernel does not show does not stand."""
    return {
        "capabilities": int(values.get("CapEff:", "1"), 16) == 0,
        "no_new_privileges": values.get("NoNewPrivs:") == "1",
        "seccomp": values.get("Seccomp:") == "2",
    }
