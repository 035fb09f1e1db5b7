"""Bundles that a test writes for itself."""

import os
import shutil
import subprocess
import textwrap
from contextlib import suppress
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
    return [*found, *_in_containers()]


def _in_containers() -> list[int]:
    """The same, of those that run in containers: below each container's first process."""
    if shutil.which("docker") is None or not (numbers := _numbers()):
        return []
    form = '{{index .Config.Labels "sandbox_runner.owner"}} {{.State.Pid}}'
    told = subprocess.run(["docker", "inspect", "--format", form, *numbers], capture_output=True, text=True)
    found = []
    for owner, *_, first in (line.split() for line in told.stdout.splitlines()):
        with suppress(OSError):
            children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
            found += [int(pid) for pid in children if owner == str(os.getpid())]
    return found


def _numbers() -> list[str]:
    """None where no daemon answers this user."""
    listed = ["docker", "ps", "--quiet", "--filter", "label=isorun.role=supervisor"]
    return subprocess.run(listed, capture_output=True, text=True).stdout.split()


def inspected() -> bytes:
    """All that the engine tells of the supervisors in containers."""
    told = subprocess.run(["docker", "inspect", *_numbers()], capture_output=True).stdout  # others' may be gone
    assert b'"sandbox_runner.owner"' in told
    return told
