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
from isorun.settings import Settings
from isorun.supervisor.descriptor import DESCRIPTOR

EXAMPLE = "with-isoruntime"


def example_bundle(name: str = EXAMPLE, settings: Settings | None = None) -> Path:
    """The folder of an example: below AGENTIC_BUNDLES_ROOT, else in the installed package or examples/ of a checkout.

    The first is where a Docker daemon can mount it from, if isorun is in a container itself. Raises
    `InvalidRequest` (missing_bundle).
    """
    package = Path(__file__).parents[1]
    places = [package / "bundles", package.parents[1] / "examples" / "bundles"]
    for folder in (place / name for place in ([settings.bundles_root] if settings else []) + places):
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
