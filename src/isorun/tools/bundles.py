"""Bundles as folders of Python: where the example lies, and how a bundle's own code is imported.

The supervisor loads the tools of a bundle, in a process of its own; what is imported
here is the rest of a bundle, which is the caller's own trusted code.
"""

import hashlib
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

from isorun.core.errors import InvalidRequest
from isorun.supervisor.descriptor import DESCRIPTOR

EXAMPLE = "with-isoruntime"


def example_bundle(name: str = EXAMPLE) -> Path:
    """The folder of an example: inside the installed package, or examples/bundles/ of a checkout.

    Raises `InvalidRequest` (missing_bundle).
    """
    package = Path(__file__).parents[1]
    for folder in (package / "bundles" / name, package.parents[1] / "examples" / "bundles" / name):
        if (folder / DESCRIPTOR).is_file():
            return folder
    raise InvalidRequest(f"there is no example bundle {name}: install isorun anew", code="missing_bundle")


def bundle_module(bundle: Path, name: str) -> ModuleType:
    """The module *name* of *bundle*, imported once; its files import each other as `from .exec import ...`.

    The folder may have any name: its package is called by a digest of its path. Raises what the module raises.
    """
    folder = bundle.resolve()
    package = f"isorun_bundle_{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
    if package not in sys.modules:
        made = ModuleType(package, f"The bundle {folder}.")
        made.__path__ = [str(folder)]
        sys.modules[package] = made
    return import_module(f"{package}.{name}")
