"""`python -m sandbox_runner` is `sandbox-runner`."""

from __future__ import annotations

import sys

from sandbox_runner.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
