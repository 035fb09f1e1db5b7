"""Equal input gives equal bytes: twice in a process, and in another one at another time of day."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from isorun.tools import documents
from tests.unit.tools.documents.conftest import SOURCES, SVG

TEXT = "# a\n\n**b** [[S:2]] [l](https://x.y)[^n]\n\n1. c\n\n|d|\n|-|\n|e|\n\n![f](p.svg)\n\n```py\ng\n```\n\n[^n]: h\n"
SHEETS = [{"name": "a", "columns": ["b"], "rows": [[1], ["x"]]}]
FORMATS = ("pdf", "png", "docx", "pptx", "html", "xlsx")


def digest(form: str) -> str:
    """Of a document with every part."""
    if form == "xlsx":
        return hashlib.sha256(documents.xlsx(SHEETS).data).hexdigest()
    made = getattr(documents, form)(TEXT, title="T", sources=SOURCES, image=lambda _path: SVG)
    return hashlib.sha256(made.data).hexdigest()


@pytest.fixture(scope="module")
def elsewhere() -> dict[str, str]:
    """The digests that another process makes, with another seed of hashes and another time zone."""
    program = "import test_same_bytes as t\nfor form in t.FORMATS: print(form, t.digest(form))"
    environ = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[4])])
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(line.split() for line in done.stdout.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_equal_input_gives_equal_bytes(form, elsewhere) -> None:
    """A run that is done again hands out the same files."""
    assert digest(form) == digest(form) == elsewhere[form]


@pytest.mark.parametrize("form", FORMATS)
def test_other_input_gives_other_bytes(form, monkeypatch) -> None:
    """The control: one letter more is seen."""
    before = digest(form)
    monkeypatch.setattr(sys.modules[__name__], "TEXT", TEXT.replace("**b**", "**bb**"))
    monkeypatch.setattr(sys.modules[__name__], "SHEETS", [{"name": "a", "columns": ["bb"], "rows": [[1], ["x"]]}])
    assert digest(form) != before
