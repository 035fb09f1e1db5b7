"""Our code as an executor container gets it: over stdin, so that image and host cannot disagree.

The container starts `python3 -c BOOT`, which reads the importer below, and that the
sources. Nothing of isorun is in an image, nothing is written into the container, and
what runs there is the text that this process would run itself.
"""

import json
import zlib
from functools import cache

from isorun.backends.environment import own_package

#: What `python3 -c` is given: it shows on the command line of the container, and never changes.
BOOT = """\
import os

def take(count):
    data = b""
    while len(data) < count:
        part = os.read(0, count - len(data))
        if not part:
            os._exit(70)
        data += part
    return data

exec(compile(take(int.from_bytes(take(8), "big")), "isorun-importer", "exec"))
"""
_IMPORTER = """\
import sys
sys.path[:] = filter(None, sys.path)  # nothing of the current folder is to be imported
import importlib.abc, importlib.util, json, zlib

class Sent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, sources):
        self.sources = sources

    def find_spec(self, name, path=None, target=None):
        if name not in self.sources:
            return None
        file, is_package, _ = self.sources[name]
        spec = importlib.util.spec_from_loader(name, self, origin=file, is_package=is_package)
        spec.has_location = True
        return spec

    def get_source(self, name):
        return self.sources[name][2]

    def exec_module(self, module):
        file, _, source = self.sources[module.__name__]
        exec(compile(source, file, "exec", dont_inherit=True), module.__dict__)

sys.meta_path.insert(0, Sent(json.loads(zlib.decompress(take(int.from_bytes(take(8), "big"))))))
"""
#: Where the sources say that they are; no such path exists.
_PLACE = "/isorun-code"
_SUPERVISOR = ("core", "wire", "kernel", "executor", "supervisor")
_EXECUTOR = ("core", "wire", "kernel", "executor")


@cache
def executor_code() -> bytes:
    """What the boot of an executor reads before the first frame."""
    return code(_EXECUTOR, "from isorun.executor.container.init import main; main()")


@cache
def handing_code() -> bytes:
    """What the boot of a container reads that does nothing but hand the workspace over."""
    return code(_EXECUTOR, "from isorun.executor.container.handing import main; main()")


@cache
def supervisor_code() -> bytes:
    """What the boot of a supervisor in a container reads before its frame."""
    return code(_SUPERVISOR, "from isorun.supervisor.container import main; main()")


def code(packages: tuple[str, ...], then: str) -> bytes:
    """The importer, the sources of *packages* of isorun, and *then* to be executed."""
    root = own_package()
    files = [root / "isorun/__init__.py", *root.glob("isorun/*.py")]
    files += [file for package in packages for file in sorted((root / "isorun" / package).rglob("*.py"))]
    sources = {}
    for file in files:
        parts = file.relative_to(root).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        sources[name] = (f"{_PLACE}/{'/'.join(parts)}.py", is_package, file.read_text(encoding="utf-8"))
    packed = zlib.compress(json.dumps(sources).encode(), 1)
    importer = f"{_IMPORTER}\n{then}\n".encode()
    return b"".join(len(part).to_bytes(8, "big") + part for part in (importer, packed))
