"""What becomes of each answer of a server: a row, whatever the server does."""

from __future__ import annotations

import asyncio
import gzip
import io
import itertools
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterator

import pytest

from isorun.supervisor.tool import ToolError
from isorun.tools.web import fetch as fetching
from isorun.tools.web.body import TooLarge, read_body
from isorun.tools.web.fetch import MAX_BYTES, fetch, saved_name
from tests.unit.tools.web.serving import Answer, anywhere, http, moved, serving

TEXT = "A page about nothing in particular, which is long enough to be taken for one. " * 4
PAGE = f"<html><head><title>On nothing</title></head><body><p>{TEXT}</p><h2>Nothing</h2><p>{TEXT}</p></body></html>"


async def one(answer: Answer, path: str = "/", **more: object) -> dict[str, object]:
    """The row of a page that is answered so."""
    async with serving({path: answer}) as served:
        (row,) = await fetch(served.url(path), rules=anywhere(), **more)  # type: ignore[arg-type]  # a test's own
        return {**row, "url": row["url"].replace(str(served.port), "P")}


async def test_a_page_becomes_a_row() -> None:
    """Every key has its value; the text is Markdown."""
    row = await one(http(PAGE, "text/html; charset=utf-8"))
    assert "\n## Nothing\n" in str(row.pop("text"))
    assert str(row.pop("final_url")).startswith("http://127.0.0.1:")
    assert row == {
        "sid": None,
        "url": "http://127.0.0.1:P/",
        "status": "success",
        "http_status": 200,
        "title": "On nothing",
        "published": None,
        "mime": "text/html",
        "bytes": len(PAGE),
        "truncated": False,
        "path": None,
        "detail": "",
    }


async def test_text_has_no_markdown_if_text_is_wanted() -> None:
    """A heading has no mark in front."""
    row = await one(http(PAGE), format="text")
    assert "\nNothing\n" in str(row["text"])


@pytest.mark.parametrize(
    ("status", "said"),
    [
        *((code, "blocked") for code in (401, 403, 407, 429, 451)),
        *((code, "http_error") for code in (204 + 100, 400, 404, 410, 500, 503)),
    ],
)
async def test_an_answer_that_is_no_page_says_its_status(status, said) -> None:
    """The server's number is in the row, and its text is not taken for a page's."""
    row = await one(http(PAGE, status=status))
    assert (row["status"], row["http_status"], row["text"]) == (said, status, "")
    assert f"the server answered {status}" in str(row["detail"])


async def test_a_challenge_is_blocked() -> None:
    """A page that wants a browser's script to run is no page to read."""
    row = await one(http(PAGE, headers={"cf-mitigated": "challenge"}))
    assert row["status"] == "blocked"


async def test_a_redirect_without_a_place_is_an_error() -> None:
    """There is nothing to follow."""
    assert (await one(http(b"", status=302)))["status"] == "http_error"


async def test_a_body_over_the_bound_is_too_large() -> None:
    """By its own word before anything is read, and by count if it says nothing."""
    said = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % (MAX_BYTES + 1)
    assert (await one(said))["status"] == "too_large"

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n")
        while True:
            writer.write(b"x" * (1 << 16))
            await writer.drain()

    row = await one(endless)
    assert (row["status"], row["text"]) == ("too_large", "")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_bomb_is_too_large(encoding) -> None:
    """1 MB that would become 1 GB is left at the bound, and little more than the bound was ever in memory."""
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
    data = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(64)) + bomb.flush()
    started = time.process_time()
    row = await one(http(data, headers={"Content-Encoding": encoding}))
    assert (row["status"], row["bytes"]) == ("too_large", 0)
    assert time.process_time() - started < 5


class Arriving:
    """An answer in gzip whose parts a test gives; each is counted as it is taken."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self.headers = {"content-encoding": "gzip"}
        self.parts, self.taken = parts, 0

    async def aiter_raw(self, size: int) -> AsyncIterator[bytes]:
        for part in self.parts:
            self.taken += len(part)
            yield part


async def test_a_bomb_is_not_unpacked_to_be_counted() -> None:
    """One part of 64 kB that would become 64 MB: little more than the bound is in memory at any time."""
    part = gzip.compress(bytes(64 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            await read_body(Arriving(iter([part])), 1 << 20)  # type: ignore[arg-type]  # what it needs of an answer
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


async def test_bytes_that_unpack_to_nothing_are_counted() -> None:
    """Empty blocks without end give no text, and end at the bound all the same."""
    start = gzip.compress(b"")[:10]
    endless = Arriving(itertools.chain([start], itertools.repeat(b"\x00\x00\x00\xff\xff" * 1000)))
    with pytest.raises(TooLarge):
        await read_body(endless, 1 << 20)  # type: ignore[arg-type]  # what it needs of an answer
    assert endless.taken < 2 << 20


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("gzip", gzip.compress(PAGE.encode())),
        ("x-gzip", gzip.compress(PAGE[:50].encode()) + gzip.compress(PAGE[50:].encode())),
        ("deflate", zlib.compress(PAGE.encode())),
        ("deflate", zlib.compress(PAGE.encode())[2:-4]),
        ("identity", PAGE.encode()),
    ],
)
async def test_a_compressed_page_is_read(encoding, data) -> None:
    """Each form that servers send, of one part or several; `bytes` counts what came out."""
    row = await one(http(data, headers={"Content-Encoding": encoding}))
    assert (row["status"], row["bytes"], row["title"]) == ("success", len(PAGE), "On nothing")


@pytest.mark.parametrize(
    ("encoding", "data", "said"),
    [
        ("gzip", b"not gzip at all", "the answer is not compressed as it says"),
        ("gzip", gzip.compress(PAGE.encode())[:-20], "the compressed answer ended early"),
        ("br", b"xx", "the answer is compressed as 'br', which was not asked for"),
        ("gzip, gzip", b"xx", "the answer is compressed as 'gzip, gzip', which was not asked for"),
    ],
)
async def test_a_wrong_compression_is_an_error(encoding, data, said) -> None:
    """The row says what is wrong; nothing is guessed."""
    row = await one(http(data, headers={"Content-Encoding": encoding}))
    assert (row["status"], row["detail"]) == ("http_error", said)


async def drip(writer: asyncio.StreamWriter) -> None:
    """A body that never stops and never is silent for long: no timeout of a single read meets it."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def header_drip(writer: asyncio.StreamWriter) -> None:
    """The same with headers."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: y\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


async def silence(writer: asyncio.StreamWriter) -> None:
    """Nothing at all, until the client has gone."""
    await asyncio.Event().wait()


@pytest.mark.parametrize("act", [drip, header_drip, silence])
async def test_who_is_slow_is_left_at_the_deadline(act) -> None:
    """The time is of the whole answer; what came before is not given as the page."""
    row = await one(act, until=time.monotonic() + 0.6)
    assert (row["status"], row["text"], row["bytes"]) == ("timeout", "", 0)


async def test_a_slow_page_does_not_delay_the_others(monkeypatch) -> None:
    """Its neighbours have their texts, and it has the time of one URL."""
    monkeypatch.setattr(fetching, "URL_S", 0.5)
    async with serving({"/slow": silence, "/": http(PAGE)}) as served:
        rows = await fetch([served.url(path) for path in ("/slow", "/", "/slow", "/")], rules=anywhere())
    assert [row["status"] for row in rows] == ["timeout", "success", "timeout", "success"]


async def test_pages_that_take_long_to_parse_leave_the_others_a_row() -> None:
    """Once the time is over no other text is begun: the rows that are there come back."""
    slow = "<html><body>" + "<a href=x>" * 9000  # half a second of the parser's time
    async with serving({"/": http(slow)}) as served:
        rows = await fetch([served.url()] * 5, rules=anywhere(), until=time.monotonic() + 1.0)
    told = [row["status"] for row in rows]
    assert set(told) <= {"success", "timeout"}
    assert told.count("timeout") >= 2


async def test_at_most_five_are_asked_at_once() -> None:
    """The sixth waits until one has its answer."""
    now, most = 0, 0

    async def counted(writer: asyncio.StreamWriter) -> None:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        await asyncio.sleep(0.05)
        writer.write(http("x", "text/plain"))
        await writer.drain()
        now -= 1

    async with serving({"/": counted}) as served:
        rows = await fetch([served.url()] * 10, rules=anywhere())
    assert ({row["status"] for row in rows}, most) == ({"success"}, 5)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5000\r\n\r\n<p>short</p>",
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nxxxxx",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nxxxxx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999x\r\n\r\nxxxxx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\nxxx\r\n",
        b"HTTP/1.1 9999 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00\x01\x02\x03" * 100,
        b"HTTP/1.1 302 Found\r\nLocation: http://\xff\xfe/\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_an_answer_that_breaks_the_protocol_is_a_row(answer) -> None:
    """A length that lies, a number that is none, another protocol: no exception, no text."""
    row = await one(answer)
    assert (row["text"], row["path"]) == ("", None)
    assert row["status"] in ("http_error", "not_public")
    assert row["detail"]


async def test_headers_without_end_are_an_error() -> None:
    """They end at the library's bound of 100 kB, long before the time does."""

    async def act(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X-Filler: " + b"y" * 1000 + b"\r\n")
            await writer.drain()

    assert (await one(act))["status"] == "http_error"


async def test_a_server_that_is_not_there_is_an_error() -> None:
    """Nothing listens: the row says so."""
    async with serving({}) as served:
        url = served.url()
    (row,) = await fetch(url, rules=anywhere())
    assert (row["status"], row["http_status"]) == ("http_error", None)
    assert row["detail"].startswith("ConnectError")


async def test_a_longer_body_than_said_is_cut_where_it_said() -> None:
    """What follows belongs to no answer."""
    row = await one(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nabcdefgh")
    assert (row["status"], row["text"]) == ("success", "abcd")


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        ("application/json", '{"a": [1, 2]}', '{"a": [1, 2]}'),
        ("application/ld+json", '{"a": 1}', '{"a": 1}'),
        ("text/markdown", "# A\n\n* b", "# A\n\n* b"),
        ("text/plain", "<b>no page</b>", "<b>no page</b>"),
        ("text/csv", "a,b\n1,2", "a,b\n1,2"),
        ("application/rss+xml", "<rss/>", "<rss/>"),
        ("", "just a text", "just a text"),
        ("application/octet-stream", "just a text", "just a text"),
        ("TEXT/PLAIN; x=y; charset=utf-8", "ä", "ä"),
    ],
)
async def test_other_texts_are_given_as_they_are(kind, body, text) -> None:
    """JSON, Markdown, tables and plain text lose nothing."""
    row = await one(http(body, kind))
    assert (row["status"], row["text"]) == ("success", text)


@pytest.mark.parametrize("kind", ["image/png", "video/mp4", "application/zip", "image/svg+xml", "font/woff2"])
async def test_what_has_no_text_is_not_even_read(kind) -> None:
    """The header decides; the body stays where it is."""
    row = await one(http(b"\x89PNG\r\n", kind))
    assert (row["status"], row["bytes"]) == ("unsupported_type", 0)
    assert "save=True keeps it" in str(row["detail"])


async def test_bytes_without_a_type_are_looked_at() -> None:
    """No type, and no text either: unsupported."""
    assert (await one(http(b"\x00\x01\x02\x03", "")))["status"] == "unsupported_type"
    assert (await one(http(PAGE, "")))["title"] == "On nothing"


async def test_the_text_is_cut_where_the_caller_says() -> None:
    """`truncated` says that there is more."""
    row = await one(http("x" * 100, "text/plain"), max_chars=10)
    assert (row["text"], row["truncated"]) == ("x" * 10, True)
    row = await one(http("x" * 10, "text/plain"), max_chars=10)
    assert (row["text"], row["truncated"]) == ("x" * 10, False)


class Kept(io.BytesIO):
    """A file whose bytes outlive it."""

    def __init__(self, files: dict[str, bytes], path: str) -> None:
        super().__init__()
        self._files, self._path = files, path

    def close(self) -> None:
        self._files[self._path] = self.getvalue()
        super().close()


async def test_the_bytes_are_saved_as_they_came() -> None:
    """Of what has no text, too; the row has the path below out/."""
    files: dict[str, bytes] = {}
    answers = {
        "/a": http(gzip.compress(PAGE.encode()), headers={"Content-Encoding": "gzip"}),
        "/b": http(b"\x89PNG", "image/png"),
    }
    async with serving(answers) as served:
        rows = await fetch([served.url("/a"), served.url("/b")], rules=anywhere(), save=lambda path: Kept(files, path))
    assert [row["status"] for row in rows] == ["success", "unsupported_type"]
    assert [files[str(row["path"])] for row in rows] == [PAGE.encode(), b"\x89PNG"]
    assert [str(row["path"]).rpartition(".")[2] for row in rows] == ["html", "png"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ToolError("'web/x' goes through a link")])
async def test_a_file_that_cannot_be_saved_loses_no_text(error) -> None:
    """The row says why there is no file."""

    def save(path: str) -> io.BytesIO:
        raise error

    row = await one(http(PAGE), save=save)
    assert (row["status"], row["path"], row["title"]) == ("success", None, "On nothing")
    assert str(row["detail"]) == f"not saved: {error}"


@pytest.mark.parametrize(
    "url", ["http://a/../../etc/passwd", "http://[::1]:80/x", "http://..../", "http://a\x00b/", "http://" + "a" * 2000]
)
def test_a_saved_name_stays_below_its_folder(url) -> None:
    """A URL's author chooses no folder, and no name of more than 100 characters."""
    folder, _, name = saved_name(url, "text/html").partition("/")
    assert (folder, "/" in name, name.startswith("."), len(name) < 120) == ("web", False, False, True)
    assert name.isascii()
    assert name.isprintable()


@pytest.mark.parametrize(
    ("urls", "more", "said"),
    [
        ([], {}, "urls must hold 1 to 10 URLs, got 0"),
        (["http://a/"] * 11, {}, "urls must hold 1 to 10 URLs, got 11"),
        ([" "], {}, "urls must be texts that are not blank"),
        ([5], {}, "urls must be texts that are not blank"),
        ("http://a/", {"max_chars": 0}, "max_chars must be a whole number from 1 to 200000, got 0"),
        ("http://a/", {"max_chars": True}, "max_chars must be a whole number from 1 to 200000, got True"),
        ("http://a/", {"format": "html"}, "format must be 'markdown' or 'text', got 'html'"),
    ],
)
async def test_a_wrong_argument_is_said(urls, more, said) -> None:
    """Before anything is asked for."""
    with pytest.raises(ValueError, match=said):
        await fetch(urls, **more)


async def test_the_last_url_is_told_after_redirects() -> None:
    """`url` is what was asked for, `final_url` where the text is from."""
    async with serving({"/old": moved("new?x=1#here"), "/new": http(PAGE)}) as served:
        (row,) = await fetch(served.url("/old"), rules=anywhere())
        assert (row["url"], row["final_url"]) == (served.url("/old"), served.url("/new?x=1"))


async def test_only_what_is_needed_is_sent() -> None:
    """One GET without cookie, referrer or credential, and only the compressions that are counted."""
    async with serving({"/": http(PAGE)}) as served:
        await fetch(served.url(), rules=anywhere())
        (asked,) = served.asked
    assert (asked.method, asked.headers["accept-encoding"]) == ("GET", "gzip, deflate")
    assert asked.headers.keys() == {"host", "accept", "accept-language", "accept-encoding", "connection", "user-agent"}
