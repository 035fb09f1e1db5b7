"""What is told while a program runs: every line that is slow enough, and few messages for any number of lines."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from isorun.service.mcp.progress import MOST_CHARS, Lines, tell_progress


async def output(*texts: str | asyncio.Event) -> AsyncIterator[str]:
    for text in texts:
        if isinstance(text, asyncio.Event):
            await text.wait()
        else:
            yield text
            await asyncio.sleep(0)  # what is told meanwhile is told now


class Client:
    """Takes what it is told; `waits_for` opens an event once a text came."""

    def __init__(self, waits_for: dict[str, asyncio.Event] | None = None) -> None:
        self.told: list[tuple[float, str]] = []
        self._waits_for = waits_for or {}

    async def tell(self, count: float, text: str) -> None:
        self.told.append((count, text))
        if text in self._waits_for:
            self._waits_for[text].set()


async def test_a_line_is_told_while_the_program_runs() -> None:
    """The next line is not printed before the client got the first, so it was not kept back; the end comes at once."""
    got = asyncio.Event()
    client = Client({"one": got})
    await tell_progress(output("one\n", got, "two\nthree"), client.tell, pause_s=1000)
    assert client.told == [(1, "one"), (2, "two\nthree")]


async def test_any_number_of_lines_is_few_messages() -> None:
    """What came since the last message is in the next, the end of it: ten thousand lines are two."""
    client = Client()
    await tell_progress(output(*(f"line {n}\n" for n in range(10_000))), client.tell, pause_s=1000)
    assert len(client.told) <= 2
    count, text = client.told[-1]
    assert count >= 10_000
    assert text.startswith("… ")
    assert text.endswith("line 9999")
    assert len(text) <= MOST_CHARS + 2


async def test_silence_is_told() -> None:
    """A client that gives up after a time without progress does not, and the numbers grow."""
    go_on = asyncio.Event()
    client = Client({"it is still running": go_on})
    await tell_progress(output("a\n", go_on, "b\n"), client.tell, pause_s=0, quiet_s=0.01)
    texts = [text for _, text in client.told]
    assert (texts[0], texts[1], texts[-1]) == ("a", "it is still running", "b")
    numbers = [number for number, _ in client.told]
    assert numbers == sorted(set(numbers))


async def test_a_client_that_is_gone_ends_it() -> None:
    """What telling raises comes out, and the output is not read on."""

    async def gone(count: float, text: str) -> None:
        raise BrokenPipeError

    with pytest.raises(ExceptionGroup) as caught:
        await tell_progress(output("a\n", asyncio.Event()), gone)
    assert caught.group_contains(BrokenPipeError)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\n", "a"),
        ("50%\r60%\r", "60%"),
        ("\n\n", None),
        ("not ended", None),
        ("a\x1b[2J\u202eb\n", "a\\x1b[2J\\u202eb"),
    ],
)
def test_what_is_shown_of_output(text, shown) -> None:
    """Of a progress bar the last state; what drives a terminal is made visible; a line that has not ended waits."""
    lines = Lines()
    lines.add(text)
    told = lines.take()
    assert (told and told[1]) == shown
