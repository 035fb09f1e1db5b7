"""What each user may have at once, a day, and in all."""

from datetime import UTC, datetime, timedelta

from isorun.service.problems import Problem
from isorun.service.store.accounts import User
from isorun.service.store.records import Allowance, Records, Used
from isorun.settings import Settings
from isorun.store.recovery import rfc3339


class Quotas:
    """Those that *settings* name, where a user has none of his own."""

    def __init__(self, records: Records, settings: Settings) -> None:
        self._records, self._settings = records, settings

    async def check(self, user: User) -> None:
        """Raise `Problem` if *user* may not begin a run now: 429, or 507 if it is for his files."""
        _judge(await self._records.used(user.id, _yesterday()), self._most(user))

    def allowance(self, user: User) -> Allowance:
        """The same, to be asked in the transaction that stores the run."""
        most = self._most(user)
        return Allowance(since=_yesterday(), most=most, check=lambda used: _judge(used, most))

    def _most(self, user: User) -> Used:
        settings = self._settings
        return Used(
            now=user.runs_at_once or settings.user_runs_at_once,
            since=user.runs_per_day or settings.user_runs_per_day,
            bytes=user.bytes or settings.user_bytes,
        )


def _judge(used: Used, most: Used) -> None:
    if used.now >= most.now:
        detail = f"{used.now} of your runs have not ended, and you may have {most.now} at once"
        raise too_many("too_many_runs", detail, "wait for one of them, or cancel one")
    if used.since >= most.since:
        detail = f"you began {used.since} runs in the last 24 hours, and you may begin {most.since}"
        raise too_many("too_many_runs_today", detail, "wait, or ask for a higher quota", after_s=3600)
    if used.bytes >= most.bytes:
        detail = f"your runs have files of {used.bytes} bytes, and you may have {most.bytes}"
        raise Problem(507, "no_room_left", detail, hint="delete runs that you do not need")


def _yesterday() -> str:
    return rfc3339((datetime.now(UTC) - timedelta(days=1)).timestamp())


def too_many(code: str, detail: str, hint: str, *, after_s: int = 1) -> Problem:
    """A 429 that says when to try again."""
    return Problem(429, code, detail, hint=hint, headers={"Retry-After": str(after_s)})
