"""The table of what is looked at in a promised file is the table that the code has."""

from collections import defaultdict

import pytest

from isorun.core.contract.kinds import KINDS
from tests.docs.pages import ROOT

pytestmark = pytest.mark.any_user

PAGE = ROOT / "docs" / "exec" / "run-python.md"


def rows() -> list[str]:
    """One line for the suffixes that are looked at alike, in the order of the code's table."""
    alike: dict[tuple[str, str], list[str]] = defaultdict(list)
    for suffix, kind in KINDS.items():
        alike[kind.by, kind.looked_at].append(suffix)
    where = {"opened": "in a slot", "text": "by the host", "start": "by the host"}
    return [
        f"| {' '.join(f'`{suffix}`' for suffix in suffixes)} | {looked_at} | {where[by]} |"
        for (by, looked_at), suffixes in alike.items()
    ]


def test_the_page_says_what_is_looked_at_for_every_suffix() -> None:
    """Every suffix of the code stands in the page with what is checked, and no other does."""
    page = PAGE.read_text()
    assert "\n".join(["| suffix | the file | looked at |", "|---|---|---|", *rows()]) in page
