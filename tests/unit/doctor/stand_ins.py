"""A stand-in for the Docker CLI, which answers from files: each trouble of an engine is one file."""

import json
import os
from pathlib import Path

from isorun.settings import Settings

#: Answers `docker VERB` from VERB.out, VERB.err and VERB.code beside it; `run` reads from the folder it is to mount.
CLI = """#!/bin/sh
here=${0%/*}
verb=$1
case "$*" in
    "inspect --type "*) verb=inspect-$3 ;;
esac
if [ "$verb" = run ] && [ ! -e "$here/run.code" ]; then
    for word; do
        case $word in type=bind,source=*) source=${word#type=bind,source=} ;; esac
    done
    exec cat "${source%%,*}/${word#/probe/}"
fi
[ ! -e "$here/$verb.err" ] || cat "$here/$verb.err" >&2
[ ! -e "$here/$verb.out" ] || cat "$here/$verb.out"
exit "$(cat "$here/$verb.code" 2>/dev/null || echo 0)"
"""
VERSION = {"Client": {"Version": "28.2.2"}, "Server": {"Version": "20.10.24", "ApiVersion": "1.41"}}
INFO = {
    **dict.fromkeys(("MemoryLimit", "SwapLimit", "PidsLimit", "CpuCfsQuota"), True),
    "CgroupVersion": "2",
    "SecurityOptions": ["name=seccomp,profile=default"],
    "Runtimes": {"runc": {}, "runsc": {}},
    "DefaultRuntime": "runc",
}
IMAGE = {
    "Id": "sha256:0123456789abcdef",
    "RepoTags": ["py-code-exec:latest"],
    "Config": {"Labels": {"isorun.image": "1"}},
}


class Engine:
    """A Docker CLI whose answers a test chooses; at first it has nothing to complain about."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "docker"
        self.reset()

    def reset(self) -> None:
        """Complain about nothing."""
        for answer in self.folder.iterdir():
            answer.unlink()
        self.program.write_text(CLI)
        self.program.chmod(0o755)
        self.says("version", VERSION)
        self.says("info", INFO)
        self.says("compose", "Docker Compose version v2.39.1\n")
        self.says("inspect-image", [IMAGE])
        self.says("inspect-container", err="Error: No such container", code=1)

    def says(self, verb: str, out: object = "", *, err: str = "", code: int = 0) -> None:
        """Answer *verb* with *out*, as JSON if it is no text."""
        text = out if isinstance(out, str) else json.dumps(out)
        for suffix, said in (("out", text), ("err", err), ("code", str(code))):
            (self.folder / f"{verb}.{suffix}").write_text(said)


#: Of the container, by who runs this test: it must be a group of ours unless we are root.
GROUP = {} if os.geteuid() == 0 else {"ISORUN_EXECUTOR_GID": str(os.getegid())}


def settings(root: Path, **variables: str) -> Settings:
    return Settings.load(environ={"ISORUN_WORKSPACE_ROOT": str(root), **GROUP, **variables})
