"""Imported by inspectors' interpreter ahead of openpyxl, which would load numpy for nothing: 0.2 s and 20 MB.

Only there: a process that has imported this module cannot import numpy any more.
"""

import sys

sys.modules.setdefault("numpy", None)  # type: ignore[arg-type]  # how the import system is told that there is none
