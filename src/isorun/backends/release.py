"""Whether sandbox_runner is of isorun's release: it builds the outer wall, so another one may build another wall.

isorun's wheel carries the package (docs/decisions/0016-one-wheel-carries-both.md). A distribution of that name which
is installed beside it comes first on the path. It must not import what a backend imports.
"""

import sys

from isorun.core.errors import Unavailable


def check_release() -> None:
    """Raise `Unavailable` if the sandbox_runner that would be imported is missing, or not of isorun's own version."""
    try:
        import sandbox_runner
    except ModuleNotFoundError:
        raise Unavailable(
            "sandbox_runner is missing: its folder is added to the path by a .pth file, which Python reads in an "
            "environment only; install isorun into a virtual environment"
        ) from None
    ours = sys.modules["isorun"].__version__  # an import of it would be one of every layer above
    if sandbox_runner.__version__ != ours:
        raise Unavailable(
            f"isorun {ours} found sandbox_runner {sandbox_runner.__version__}, and needs its own version "
            "of it; isorun brings that: pip uninstall sandbox_runner"
        )
