"""A tool that does nothing, in three places: what a call costs is then all that is measured."""

import isorun


@isorun.tool
async def waiting(text: str) -> str:
    """Return *text*, as a coroutine of the supervisor's loop."""
    return text


@isorun.tool
def blocking(text: str) -> str:
    """Return *text*, from a thread of the supervisor's."""
    return text


@isorun.tool
def apart(text: str) -> str:
    """Return *text*, from a worker's process."""
    return text
