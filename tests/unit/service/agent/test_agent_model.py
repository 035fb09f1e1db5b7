"""A client of one model: what it sends, what each refusal becomes, its bounds, and that the key stays in its header."""

import asyncio
import gzip
import json
import logging
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from isorun import InvalidRequest
from isorun.service.agent import errors
from isorun.service.agent.answer import Answer
from isorun.service.agent.model import Bounds, Model
from isorun.service.agent.refusals import seconds_of
from isorun.service.agent.scripted import NAME, Quirk, open_model, scripted
from tests.unit.service.agent.agents import HEAD, KEY, Canned, Reply, loopback, model, request_head, says

ASKED = [{"role": "user", "content": "hello", "text": "hello", "files": []}]


async def _ask(client: Model, said: list[str] | None = None) -> Answer:
    async def on_text(text: str) -> None:
        if said is not None:
            said.append(text)

    async with client:
        return await client.ask(ASKED, [], on_text)


async def test_a_request_is_what_the_protocol_has() -> None:
    """Path, key, model, and of our messages only what a server knows."""
    server = Canned(says("hi"))
    assert (await _ask(model(server))).text == "hi"
    assert server.paths == ["/v1/chat/completions"]
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert server.headers[0]["accept-encoding"] == "identity"
    sent = server.asked[0]
    assert (sent["model"], sent["stream"], sent["messages"]) == ("m", True, [{"role": "user", "content": "hello"}])


async def test_no_key_no_header() -> None:
    """A server on this machine wants none."""
    server = Canned(says("hi"))
    await _ask(model(server, key=""))
    assert "authorization" not in server.headers[0]


async def test_text_streams_out_as_it_comes() -> None:
    """Piece by piece, and whole at the end."""
    said: list[str] = []
    chunks = [{"choices": [{"delta": {"content": piece}}]} for piece in ("a", "", "b")]
    assert (await _ask(model(Canned(Reply.stream(*chunks))), said)).text == "ab"
    assert said == ["a", "b"]


async def test_a_field_that_the_server_does_not_know_is_left_out_from_then_on() -> None:
    """Refused once for it, the server is asked again at once, and never sent it again."""
    server = Canned(Reply({"error": "unknown field stream_options"}, 400), says("one"), says("two"))
    client = model(server)
    async with client:
        for text in ("one", "two"):

            async def on_text(piece: str) -> None:
                pass

            assert (await client.ask([{**ASKED[0], "reasoning_content": "r"}], [], on_text)).text == text
    assert ["stream_options" in asked for asked in server.asked] == [True, False, False]
    assert ["reasoning_content" in asked["messages"][0] for asked in server.asked] == [True, False, False]


async def test_a_request_that_is_refused_twice_says_why() -> None:
    """It was not the optional fields, so they are sent again next time."""
    server = Canned(Reply({"error": {"message": "the context is too long"}}, 400))
    client = model(server)
    with pytest.raises(errors.NotUnderstood, match=r"refused the request \(400\): the context is too long"):
        await _ask(client)
    assert ["stream_options" in asked for asked in server.asked] == [True, False]
    assert client._takes_optional


_REFUSALS: dict[str, tuple[Reply, type[errors.ModelError], str]] = {
    "401": (Reply({"error": {"message": f"Incorrect API key: {KEY}"}}, 401), errors.KeyRefused, "ISORUN_MODEL_KEY"),
    "403": (Reply(b"no", 403), errors.KeyRefused, "ISORUN_MODEL_KEY"),
    "404": (
        Reply({"error": {"message": "no model m"}}, 404),
        errors.NotUnderstood,
        "ISORUN_MODEL_URL .* ISORUN_MODEL ",
    ),
    "429": (Reply({"error": f"slow down {KEY}"}, 429), errors.RateLimited, "Wait a while.*ISORUN_MODEL"),
    "500": (Reply({"detail": f"trace of {KEY}"}, 500), errors.NotUnderstood, r"failed \(500\): trace of \*\*\*"),
    "redirect": (Reply(b"", 302, {"Location": "http://elsewhere.test/"}), errors.NotUnderstood, "ISORUN_MODEL_URL"),
    "a page": (Reply(b"<html>" + KEY.encode()), errors.NotUnderstood, "is not JSON.*ISORUN_MODEL_URL"),
    "not a chunk": (Reply.stream({"a": 1}), errors.NotUnderstood, "no list of choices"),
    "no end": (
        Reply.stream({"choices": [{"delta": {"content": "a"}}]}, end=""),
        errors.Unreachable,
        "broke off in the middle",
    ),
    "an error in the stream": (
        Reply.stream({"error": {"message": f"overloaded {KEY}"}}),
        errors.NotUnderstood,
        r"failed \(500\): overloaded",
    ),
    "a limit in the stream": (
        Reply.stream({"error": {"code": "rate_limit_exceeded", "message": "later"}}),
        errors.RateLimited,
        "later",
    ),
    "deep": (Reply.stream("[" * 100_000), errors.NotUnderstood, "is not JSON"),
    "packed": (
        Reply(gzip.compress(b"{}"), 200, {"Content-Encoding": "gzip"}),
        errors.NotUnderstood,
        "packed answer",
    ),
}


@pytest.mark.parametrize(("reply", "kind", "text"), _REFUSALS.values(), ids=_REFUSALS)
async def test_each_refusal_has_its_error_and_names_the_setting(
    reply: Reply, kind: type[errors.ModelError], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing that can be read afterwards has the key: text, cause, traceback, repr and log."""
    caplog.set_level(logging.DEBUG)
    client = model(Canned(reply))
    with pytest.raises(kind, match=text) as caught:
        await _ask(client)
    assert "ISORUN_MODEL" in caught.value.hint
    shown = "".join(traceback.format_exception(caught.value))
    assert KEY not in shown + repr(caught.value) + repr(client) + repr(vars(client)) + caplog.text


async def test_a_redirect_is_not_followed() -> None:
    """Another server would get the conversation."""
    server = Canned(Reply(b"", 307, {"Location": "http://models.test/other"}))
    with pytest.raises(errors.NotUnderstood, match=r"sends requests elsewhere \(307\)"):
        await _ask(model(server))
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3.0), ("0.5", 0.5), ("-1", 0.0), ("1e9", 86_400.0), ("nan", None), ("soon", None), ("", None), (None, None)],
)
def test_retry_after_is_seconds(header: str | None, seconds: float | None) -> None:
    """Bounded below and above; None for what is no number."""
    assert seconds_of(header) == seconds


def test_retry_after_is_a_date() -> None:
    """In the future, in the past, and one without a zone, which is no instant."""
    assert 90 < (seconds_of(format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)) or 0) <= 100
    assert seconds_of("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert seconds_of("Wed, 21 Oct 2015 07:28:00 -0000") is None


async def test_the_seconds_of_a_limit_are_told() -> None:
    """For who waits, and for people."""
    with pytest.raises(errors.RateLimited, match="Wait 7 s") as caught:
        await _ask(model(Canned(Reply(b"", 429, {"Retry-After": "7"}))))
    assert caught.value.retry_after_s == 7


async def test_nobody_there() -> None:
    """The text has the address and the setting."""
    async with loopback(_never) as url:
        pass
    with pytest.raises(errors.Unreachable, match=rf"at {url}/chat/completions cannot be reached.*ISORUN_MODEL_URL"):
        await _ask(Model(url, "m", KEY))


async def _never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    raise AssertionError("nobody connects")


def _flood(piece: bytes) -> Callable[..., Any]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        writer.write(HEAD)
        while True:
            writer.write(piece * 500)
            await writer.drain()

    return handle


_TEXT = b"data: " + json.dumps({"choices": [{"delta": {"content": "more "}}]}).encode() + b"\n\n"


@pytest.mark.parametrize(
    "piece", [_TEXT, b": waiting\n\n", b"data: x", b"\n"], ids=["text", "comments", "line", "blank"]
)
async def test_an_endless_answer_is_cut_by_its_bytes(piece: bytes) -> None:
    """Whatever it is made of."""
    async with loopback(_flood(piece)) as url:
        with pytest.raises(errors.NotUnderstood, match=r"has more than 100000 bytes|exceeded the 100000 byte limit"):
            await _ask(Model(url, "m", bounds=Bounds(answer_bytes=100_000)))


async def test_an_answer_that_drips_is_ended() -> None:
    """Each byte comes in time, all of them do not."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        writer.write(HEAD)
        while True:
            writer.write(b": wait\n\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with loopback(drip) as url:
        with pytest.raises(errors.TooSlow, match=r"did not end its answer within 0.2 s.*ISORUN_MODEL"):
            await _ask(Model(url, "m", bounds=Bounds(total_s=0.2)))


async def test_a_silent_server_is_given_up() -> None:
    """No byte for so long."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        writer.write(HEAD)
        await asyncio.Event().wait()

    began = time.monotonic()
    async with loopback(silent) as url:
        with pytest.raises(errors.TooSlow, match=r"sent nothing for 0.1 s.*ISORUN_MODEL"):
            await _ask(Model(url, "m", bounds=Bounds(silent_s=0.1, total_s=60)))
    assert time.monotonic() - began < 30


async def test_a_cancelled_question_closes_the_connection() -> None:
    """The server sees that nobody listens any more."""
    asked, left = asyncio.Event(), asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        writer.write(HEAD + _TEXT)
        await writer.drain()
        asked.set()
        while await reader.read(1 << 16):
            pass
        left.set()

    async with loopback(handle) as url, Model(url, "m", KEY) as client:

        async def on_text(text: str) -> None:
            pass

        asking = asyncio.ensure_future(client.ask(ASKED, [], on_text))
        await asyncio.wait_for(asked.wait(), 60)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(left.wait(), 60)


@pytest.mark.parametrize(
    ("url", "name", "key", "text"),
    [
        ("127.0.0.1:8000", "m", "", "ISORUN_MODEL_URL"),
        ("ftp://a/v1", "m", "", "ISORUN_MODEL_URL does not begin with http"),
        ("http://", "m", "", "ISORUN_MODEL_URL does not begin with http"),
        (f"http://me:{KEY}@a/v1", "m", "", "ISORUN_MODEL_URL holds a password or a key"),
        (f"http://a/v1?api_key={KEY}", "m", "", "ISORUN_MODEL_URL holds a password or a key"),
        (f"http://a:{KEY}", "m", "", "ISORUN_MODEL_URL is not an address"),
        (KEY, "m", "", "ISORUN_MODEL_URL does not begin with http"),
        ("http://a/v1", " ", "", "ISORUN_MODEL is not set"),
        ("http://a/v1", "m", f"{KEY}\r\nX: y", "ISORUN_MODEL_KEY has a character"),
        ("http://a/v1", "m", f'"{KEY} "', "ISORUN_MODEL_KEY has a character"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_by_name(url: str, name: str, key: str, text: str) -> None:
    """Before anything is asked, and without showing what may be a key."""
    with pytest.raises(InvalidRequest, match=text) as caught:
        Model(url, name, key)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://a/v1", "http://a/v1/chat/completions"),
        ("http://a/v1/", "http://a/v1/chat/completions"),
        ("https://a:8443/v1/chat/completions", "https://a:8443/v1/chat/completions"),
        ("https://a/openai?api-version=1", "https://a/openai/chat/completions?api-version=1"),
        (" http://[::1]:80/v1#x ", "http://[::1]/v1/chat/completions"),
    ],
)
def test_an_address_may_be_written_in_several_ways(url: str, sent: str) -> None:
    """With and without the end, with a query."""
    assert str(Model(url, "m")._url) == sent


def test_no_proxy_is_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment would look for the server on its own machine."""
    assert not Model("http://127.0.0.1:1/v1", "m")._client.trust_env
    assert not Model("http://localhost:1/v1", "m")._client.trust_env
    assert Model("http://a.test/v1", "m")._client.trust_env


@pytest.mark.parametrize("bound", ["connect_s", "silent_s", "total_s", "answer_bytes"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_bounds_are_positive_and_finite(bound: str, value: float) -> None:
    """No value means without a bound."""
    with pytest.raises(InvalidRequest, match=f"{bound} must be positive and finite"):
        Bounds(**{bound: value})  # type: ignore[arg-type]  # a float for each


async def test_the_scripted_model_is_there_where_none_is_set() -> None:
    """Through the same client; half of the settings is a slip, which is told."""
    client = open_model()
    assert client.name == NAME == "scripted-demo"
    answer = await _ask(client)
    assert "scripted-demo: a script, not a model" in answer.text
    assert 'I can play this:\n\n- "Analyse the table"' in answer.text
    with pytest.raises(InvalidRequest, match="ISORUN_MODEL is set and ISORUN_MODEL_URL is not"):
        open_model(name="gpt")
    with pytest.raises(InvalidRequest, match="ISORUN_MODEL_KEY is set and ISORUN_MODEL_URL is not"):
        open_model(key=KEY)
    with pytest.raises(InvalidRequest, match="ISORUN_MODEL is not set"):
        open_model(url="http://a/v1")


async def test_the_scripted_server_refuses_what_is_no_request() -> None:
    """As other servers do, with 400."""
    client = model(scripted([Quirk.STRICT]))
    async with client:
        for body in (b"[]", b"{", b"{}", b'{"messages": 1}', b'{"messages": [1]}'):
            response = await client._client.post("http://models.test/v1/chat/completions", content=body)
            assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error"), body
