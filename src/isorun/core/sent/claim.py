"""What a program says of the exception that ended it."""

from __future__ import annotations

from isorun.core.sent.record import Record

#: Packages that a program is likely to want, by the names they are imported by; none that needs a network.
COMMON = (
    *("numpy", "pandas", "polars", "pyarrow", "duckdb", "scipy", "sklearn", "statsmodels", "sympy", "networkx"),
    *("matplotlib", "seaborn", "plotly", "PIL", "cv2", "openpyxl", "xlsxwriter", "docx", "pptx", "pypdf"),
    *("reportlab", "bs4", "lxml", "yaml", "jinja2", "tabulate", "pydantic", "torch"),
)


class Claim(Record):
    """What the loader said of an uncaught exception. A program can forge it; the supervisor bounds its texts.

    `line` is of the program's own code, for an error of form the line that cannot be read; `source` is the text of the
    line that raised, in whatever file. `packages`: which of `COMMON` are installed, with blanks between; empty where
    none was missing.
    """

    type: str
    message: str = ""
    errno: int | None = None
    line: int | None = None
    source: str = ""
    packages: str = ""
