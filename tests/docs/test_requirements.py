"""What `make demo` installs: pinned and hashed, the versions of everything else, and no tool for contributors."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

pytestmark = pytest.mark.any_user


def pins(name: str) -> dict[str, str]:
    """Each pinned line of a requirements file, and the hashes below it."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    found = re.findall(r"^(\S+==[^\\\n]+)\\\n((?:    --hash=.*\n)+)", text, re.MULTILINE)
    assert len(found) == len(re.findall("^[a-zA-Z0-9]", text, re.MULTILINE)), name
    return {pin.strip(): re.sub(r"[\s\\]", "", hashes) for pin, hashes in found}


def test_the_demo_has_the_versions_of_the_whole_environment() -> None:
    """`make demo` and `make setup` share one .venv, so neither changes what the other installed."""
    tested = pins("dev.txt")
    # What is installed everywhere there may be asked for here on some platforms alone.
    anywhere = {pin.partition(" ;")[0]: hashes for pin, hashes in tested.items() if " ;" not in pin}
    for pin, hashes in pins("demo.txt").items():
        assert hashes == (tested[pin] if pin in tested else anywhere[pin.partition(" ;")[0]])


@pytest.mark.parametrize("tool", ["mypy", "ruff", "pytest", "hypothesis", "import-linter", "pyseccomp"])
def test_the_demo_brings_no_tool(tool) -> None:
    """A newcomer waits for nothing that only a contributor uses."""
    assert any(pin.startswith(f"{tool}==") for pin in pins("dev.txt"))
    assert not any(pin.startswith(f"{tool}==") for pin in pins("demo.txt"))


def test_the_demo_needs_no_more_after_setup() -> None:
    """CI runs `make demo` after `make setup`: the recipe of the second leaves the stamp of the first."""
    text = Path(ROOT, "Makefile").read_text(encoding="utf-8")
    recipe = text.partition("\n$(STAMP):")[2].partition("\n\n")[0]
    assert recipe.endswith("@touch $(DEMO_STAMP) $@")
