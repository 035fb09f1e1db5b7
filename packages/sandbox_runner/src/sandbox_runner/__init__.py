"""Command lines for sandboxes made by bubblewrap, for anyone who wants one; standard library only.

The only code of this repository that writes a bubblewrap command line. It knows
nothing of isorun: no runs, tools or contracts.
"""

__version__ = "0.1.0"
