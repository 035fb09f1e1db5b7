"""Code of ours as a text, for a Python in whose file system it is not: who starts that sends it over its stdin.

A process that was started so can start another in the same way: see `sources_of`. Nothing is written anywhere.
"""

import json
import zlib
from collections.abc import Mapping

#: Of each module by its name: the file that it says it is, whether it is a package, its text. Data goes by its
#: path, for `pkgutil.get_data`.
Sources = Mapping[str, tuple[str, bool, str]]

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

    def get_data(self, path):
        return self.sources[path][2].encode()

    def exec_module(self, module):
        file, _, source = self.sources[module.__name__]
        exec(compile(source, file, "exec", dont_inherit=True), module.__dict__)

sys.meta_path.insert(0, Sent(json.loads(zlib.decompress(take(int.from_bytes(take(8), "big"))))))
"""


def packed(sources: Sources, then: str) -> bytes:
    """What `BOOT` reads: the importer, *sources*, and *then* to be executed."""
    importer = f"{_IMPORTER}\n{then}\n".encode()
    parts = (importer, zlib.compress(json.dumps(sources).encode(), 1))
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def sources_of(loader: object) -> Sources | None:
    """The sources that *loader*, a module's own, has; None if the module came from a file."""
    return getattr(loader, "sources", None)
