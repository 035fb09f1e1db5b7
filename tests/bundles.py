"""Bundles that a test writes for itself."""

import os
import textwrap
from pathlib import Path


def write_bundle(folder: Path, **sources: str) -> Path:
    """A bundle in *folder*, which is new: a tool module per alias, each beginning with `import isorun`."""
    (folder / "tools").mkdir(parents=True)
    entries = [{"ref": f"tools/{alias}.py", "alias": alias} for alias in sources]
    (folder / "tools_descriptor.py").write_text(f"TOOLS = {entries!r}\n")
    for alias, source in sources.items():
        (folder / "tools" / f"{alias}.py").write_text("import isorun\n" + textwrap.dedent(source))
    return folder


def supervisors() -> list[int]:
    """The pids of the live supervisor processes that this process has started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            told = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            command = (status.parent / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if told["PPid"] == str(os.getpid()) and b"isorun.supervisor" in command and not told["State"].startswith("Z"):
            found.append(int(status.parent.name))
    return found
