"""Our code as an executor container gets it: over stdin, so that image and host cannot disagree.

The container starts `python3 -c BOOT`, which reads the importer (`core.sent.importer`), and that the
sources. Nothing of isorun is in an image, nothing is written into the container, and
what runs there is the text that this process would run itself.
"""

from functools import cache

from isorun.backends.environment import own_package
from isorun.core.sent.importer import BOOT, packed

__all__ = ["BOOT", "code", "executor_code", "handing_code", "supervisor_code"]

#: Where the sources say that they are; no such path exists.
_PLACE = "/isorun-code"
_SUPERVISOR = ("core", "wire", "kernel", "executor", "supervisor")
_EXECUTOR = ("core", "wire", "kernel", "executor")
_BUILT_INS = (
    *("tools/__init__.py", "tools/generic_tools.py", "tools/output_files.py"),
    *("tools/sources.py", "tools/sources_pool.py", "tools/documents", "tools/web"),
)
_DATA = (".css", ".typ")


@cache
def executor_code() -> bytes:
    """What the boot of an executor reads before the first frame."""
    return code(_EXECUTOR, "from isorun.executor.container.init import main; main()")


@cache
def handing_code() -> bytes:
    """What the boot of a container reads that does nothing but hand the workspace over."""
    return code(_EXECUTOR, "from isorun.executor.container.handing import main; main()")


@cache
def supervisor_code(*, built_ins: bool) -> bytes:
    """What the boot of a supervisor in a container reads before its frame; with *built_ins* it has those tools."""
    packages = (*_SUPERVISOR, *_BUILT_INS) if built_ins else _SUPERVISOR
    return code(packages, "from isorun.supervisor.container import main; main()")


def code(packages: tuple[str, ...], then: str) -> bytes:
    """The importer, the sources of *packages* of isorun, folders or modules, and *then* to be executed."""
    root = own_package()
    files = [root / "isorun/__init__.py", *root.glob("isorun/*.py")]
    for package in packages:
        place = root / "isorun" / package
        files += [place] if place.is_file() else sorted(place.rglob("*.py"))
        files += [file for file in sorted(place.rglob("*")) if file.suffix in _DATA]
    sources: dict[str, tuple[str, bool, str]] = {}
    for file in files:
        inside, text = f"{_PLACE}/{file.relative_to(root).as_posix()}", file.read_text(encoding="utf-8")
        parts = file.relative_to(root).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts) if file.suffix == ".py" else inside
        sources[name] = (inside, is_package, text)
    return packed(sources, then)
