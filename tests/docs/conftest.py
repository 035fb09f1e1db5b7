"""What the tests of the documents share, and what they say at the end: how many blocks ran, how many say why not."""

from pathlib import Path

import pytest

from tests.docs.building import build


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both wheels and both source archives of this checkout, by file name."""
    return build(Path(__file__).parents[2], tmp_path_factory.mktemp("dist"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts = [
        value
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == "blocks"
    ]
    if counts:
        ran, listed = (sum(column) for column in zip(*counts, strict=True))
        terminalreporter.write_line(f"documents: {ran} blocks ran, {listed} are marked with what they need")
