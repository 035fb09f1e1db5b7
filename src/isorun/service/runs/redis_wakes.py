"""News and orders between the processes of a service, through Redis.

Theory of operation. Redis keeps nothing: every process publishes the names of the streams that it has written to, on
one channel that all hear, and orders on the channel of the process that they are for. What is told together goes in one
message. Each process sends itself a word from time to time: while none comes back Redis is away, who waits looks by
himself every second, and orders are refused. When it is back everybody is woken, in every process, because news may
have been missed.
"""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from isorun.core.errors import Unavailable
from isorun.service.runs.wakes import LocalWakes
from isorun.settings import Settings

_log = logging.getLogger("isorun.service")
_NEWS = "isorun:news"
_EVERYBODY = "*"  # in the place of a stream: news may have been missed
_BEAT_S, _SILENCE_S = 1.0, 4.0
_AWAY_LOOK_S = 1.0
_TOGETHER_S = 0.01  # in which more news come: a run that is short has all of its news in one message
_AGAIN_S = 0.5
_WAIT_S = 3.0  # for Redis to take a connection, or to answer
#: What Redis' client raises if Redis is away.
FAILED = (RedisError, OSError)


def client_of(settings: Settings) -> Redis | None:
    """A client of the Redis that *settings* name, if they name one. It does not reconnect by itself: that is seen."""
    options: dict[str, Any] = {
        "socket_timeout": _WAIT_S,
        "socket_connect_timeout": _WAIT_S,
        "retry": Retry(NoBackoff(), 0),
    }
    if settings.redis_password is not None:
        options["password"] = settings.redis_password
    if settings.redis_url is not None:
        return Redis.from_url(settings.redis_url, **options)
    if settings.redis_host is not None:
        return Redis(host=settings.redis_host, port=settings.redis_port, **options)
    return None


class RedisWakes(LocalWakes):
    """For one process of several. Made by `open_wakes`."""

    def __init__(self, client: Redis, process: str) -> None:
        super().__init__()
        self._client, self._process = client, process
        self._me = secrets.token_hex(4)
        self._news: set[str] = set()
        self._more = asyncio.Event()
        self._heard = 0.0
        self._hears = False
        self._tasks: set[asyncio.Task[bool]] = set()

    @property
    def look_again_s(self) -> float:
        """A second while Redis is away."""
        return super().look_again_s if self._hears else _AWAY_LOOK_S

    @property
    def hears(self) -> bool:
        """Whether Redis is there."""
        return self._hears

    def tell(self, *streams: str) -> None:
        """Those of this process are woken at once, the others soon."""
        self.wake(*streams)
        self._news.update(streams)
        self._more.set()

    async def order(self, host: str, verb: str, subject: str) -> bool:
        """Tell the process of *host*; False if it does not listen, or if Redis is away."""
        message = json.dumps({"verb": verb, "subject": subject})
        try:
            return bool(await self._client.publish(_channel(process_of(host)), message))
        except FAILED:
            return False

    async def listen_to_redis(self) -> None:
        """Hear news and orders, for ever; what fails is begun again."""
        while True:
            try:
                async with self._client.pubsub() as subscription:
                    await subscription.subscribe(_NEWS, _channel(self._process))
                    self._heard = time.monotonic()
                    while time.monotonic() - self._heard < _SILENCE_S:
                        message = await subscription.get_message(timeout=_BEAT_S)
                        if message is not None:
                            self._take(message)
                _log.warning("Redis says nothing; news of other processes are looked for")
            except FAILED as error:
                if self._hears:
                    _log.warning("Redis is away, and news of other processes are looked for: %s", _reason(error))
            self._set(hears=False)
            await asyncio.sleep(_AGAIN_S)

    def _take(self, message: Mapping[str, Any]) -> None:
        self._heard = time.monotonic()
        if message["type"] != "message":
            return
        with suppress(ValueError, TypeError, KeyError, AttributeError):  # others may publish there, too
            told = json.loads(message["data"])
            if told.get("from") == self._me:
                self._set(hears=True)
            elif "verb" in told:
                task = asyncio.ensure_future(self.obey(str(told["verb"]), str(told["subject"])))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                news = {str(one) for one in told["news"]}
                self.wake(*news)
                if _EVERYBODY in news:
                    self.wake_all()

    def _set(self, *, hears: bool) -> None:
        if hears == self._hears:
            return
        self._hears = hears
        if hears:
            _log.info("Redis is there")
            self.tell(_EVERYBODY)
        self.wake_all()  # if it has gone, so that they look more often from now on

    async def publish_news(self) -> None:
        """Tell what there is to tell, for ever: together what came together, and at times nothing."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_BEAT_S):
                    await self._more.wait()
                    await asyncio.sleep(_TOGETHER_S)
            self._more.clear()
            news, self._news = self._news, set()
            try:
                await self._client.publish(_NEWS, json.dumps({"from": self._me, "news": sorted(news)}))
            except FAILED:
                # Those who wait look by themselves, and are all woken once Redis is back.
                await asyncio.sleep(_AGAIN_S)


@asynccontextmanager
async def open_wakes(client: Redis, process: str) -> AsyncIterator[RedisWakes]:
    """Those of *process*, inside of the block. Raises `Unavailable` if Redis does not answer."""
    async with client:
        try:
            await client.ping()
        except FAILED as error:
            raise Unavailable(
                f"Redis cannot be used: {_reason(error)}; set REDIS_URL (or REDIS_HOST, REDIS_PORT and REDIS_PASSWORD) "
                "to a server that answers, or to nothing for a service of one process"
            ) from None
        wakes = RedisWakes(client, process)
        tasks = [asyncio.create_task(wakes.listen_to_redis()), asyncio.create_task(wakes.publish_news())]
        try:
            yield wakes
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


def process_of(host: str) -> str:
    """The process whose name among the hosts is, or was, *host*."""
    return host.partition(".")[0]


def _channel(process: str) -> str:
    return f"isorun:process:{process}"


def _reason(error: BaseException) -> str:
    # A client's text may name the address, and never the password.
    return (str(error) or type(error).__name__).splitlines()[0][:200]
