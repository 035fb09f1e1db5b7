"""What a page needs of the store, read so that the stream of events goes on exactly where the page ends."""

from dataclasses import dataclass
from typing import Any

from isorun.core.errors import IsorunError
from isorun.service.context import Service
from isorun.service.runs.views import whole
from isorun.service.store.accounts import User
from isorun.service.store.records import OPEN
from isorun.service.store.talks import Message

_PRINTED = 1 << 20  # characters of a lost run's output


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """The end of a conversation. What goes on in it is told whole by the events behind number *after*.

    *earlier*: whether it has more runs than these.
    """

    title: str
    messages: list[Message]
    runs: list[dict[str, Any]]
    after: int
    goes_on: bool
    earlier: bool


async def talk(service: Service, user: User, name: str, most: int) -> Talk:
    """One of the user's conversations, with *most* runs and what was said about them. Raises `Problem` 404."""
    # First how far the events have come, then what they led to: what happens in between is told twice, never missed.
    row = await service.talks.one(user, name)
    goes_on = row["turn_host"] is not None
    found = await service.records.of_conversation(name, most + 1)
    runs, earlier = [whole(one) for one in found[-most:]], len(found) > most
    running = [one["id"] for one in runs if one["status"] in OPEN]
    before = await service.records.before(name, running, row["last_turn"] if goes_on else None)
    after = row["last_event"] if before is None else min(before, row["last_event"])
    since, turn = (runs[0]["created"], runs[0]["turn"]) if earlier else ("", None)
    said = await service.talks.said(name, since=since, turn=turn)
    return Talk(title=row["title"], messages=said, runs=runs, after=after, goes_on=goes_on, earlier=earlier)


async def printed(service: Service, run: str) -> str:
    """What a run had printed, by its events: the result of a lost run does not know it."""
    text, after = "", 0
    while len(text) < _PRINTED and (found := await service.records.events_of_run(run, after)):
        text += "".join(str(one.data.get("text", "")) for one in found if one.kind == "output")
        after = found[-1].seq
    return text


async def isolation(service: Service) -> dict[str, Any]:
    """The walls of this service's programs, as they were read back; empty if it cannot build a sandbox now."""
    try:
        return dict(await service.isolation())
    except IsorunError:
        return {}
