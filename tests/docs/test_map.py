"""The map of CONTRIBUTING.md leads to files that are there, and to names that are in them."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.any_user

ROOT = Path(__file__).resolve().parents[2]
MAP = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Where things are\n")[2].partition("\n## ")[0]
#: A path, and the name in brackets behind it, if there is one.
PLACES = re.findall(r"`([\w./-]+/[\w./-]*|\w+\.py)`(?: \(`(\w+)`\))?", MAP.partition("|---|")[2])


def _found(path: str) -> Path:
    inside = ROOT / "src" / "isorun" / path
    return inside if inside.exists() else ROOT / path


def test_the_map_has_its_rows() -> None:
    """Each of the twenty-seven leads somewhere, so that a lost row is noticed."""
    rows = [line for line in MAP.splitlines() if line.startswith("| ") and not line.startswith("| you")]
    assert len(rows) == 29
    assert [row for row in rows if not re.search(r"`[\w./-]+\.py`", row)] == []
    assert len(PLACES) >= 30


@pytest.mark.parametrize(("path", "name"), PLACES)
def test_the_map_is_true(path: str, name: str) -> None:
    """The path exists, and the name is defined in it."""
    assert _found(path).exists(), path
    if name:
        text = _found(path).read_text(encoding="utf-8")
        assert re.search(rf"^\s*(?:async def|def|class) {name}\b|^{name}\b.*=", text, re.MULTILINE), (path, name)
