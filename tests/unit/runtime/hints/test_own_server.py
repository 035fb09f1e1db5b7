"""Whether a program speaks of a server of its own: what counts as one, and what the question costs."""

import re
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isorun.runtime.hints.daily import is_own_server

pytestmark = pytest.mark.any_user

# What is meant, in the plain form that tries every place of the text.
SERVES = re.compile(r"[Ss]erver|\.(?:bind|listen)\(|\bserve\b|uvicorn|gunicorn|\bapp\.run\(")
OWN = re.compile(r"\blocalhost\b|\b127\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\b|(?<![0-9A-Fa-f:])::1(?![0-9A-Fa-f:])")
PIECES = (
    *("localhost", "127.", "127.0.0.1", "::1", "::", "1", ":", "0.0.1", "Server", "server", "serve", "app.run("),
    *(".bind(", ".listen(", "uvicorn", "gunicorn", "a", "_", "é", " ", ".", "\n", "9999"),
)
MIB = 1 << 20


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_the_quick_form_means_what_the_plain_one_does(text: str) -> None:
    """In a text that has a server already, the address decides; beside an address, the server."""
    assert is_own_server(f"{text} Server") is bool(OWN.search(text))
    assert is_own_server(f"localhost {text}") is bool(SERVES.search(f"localhost {text}"))


@pytest.mark.parametrize("line", ["x = compute(a, b)  # words\n", "localhostx", "::1:", "a127.0.0.1 ", "servex "])
def test_a_long_program_costs_a_fraction_of_the_plain_form(line: str) -> None:
    """Of a MiB, in processor time of this thread alone: less than an eighth of what the two plain searches take."""
    text = "Server" + (line * (MIB // len(line)))

    def plain() -> object:
        return SERVES.search(text, 1), OWN.search(text)

    assert not is_own_server(text)
    assert best(lambda: is_own_server(text)) < best(plain) / 8


def best(work: Callable[[], object]) -> float:
    """Seconds of the best of three: what a neighbour took of the caches does not count."""
    found = []
    for _ in range(3):
        began = time.thread_time()
        work()
        found.append(time.thread_time() - began)
    return min(found)
