"""No trick leads a fetch to a place that is not public: the listening server sees no connection.

Every address leads to that server, so each attack has its control: with the wall of addresses off, it arrives.
"""

from __future__ import annotations

import asyncio

import httpcore2
import pytest

from isorun.tools.web.fetch import fetch
from isorun.tools.web.rules import MAX_REDIRECTS, Refused, Rules, checked_url
from isorun.tools.web.transport import Guard, guarded_client
from tests.unit.tools.web.serving import Led, anywhere, guarded, http, moved, names, serving

PAGE = http("<p>a secret of this machine</p>")
#: Hosts that mean an address which is not public, and reach it where nothing refuses them.
HOSTS = (
    "127.0.0.1",
    "localhost",
    "2130706433",
    "0x7f.1",
    "127.1",
    "0",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::1]",
    "[2002:7f00:1::]",
    "[::127.0.0.1]",
    "[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
    "169.254.169.254",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "[fec0::1]",
    "[ff02::1]",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.0.1",
    "100.64.0.1",
    "192.88.99.1",
    "224.0.0.1",
    "255.255.255.255",
    "127。0。0。1",
    "LOCALHOST",
)
#: Texts that are no URL which anybody is sent to: they are refused with the wall of addresses off, too.
TEXTS = (
    "http://0177.0.0.1/",
    "http://①②⑦.0.0.1/",
    "http://\uff11\uff12\uff17。\uff10。\uff10。\uff11/",  # digits of full width
    "http://[fe80::1%25eth0]/",
    "http://[::1%25lo]/",
    "file:///etc/passwd",
    "ftp://example.org/",
    "gopher://127.0.0.1/",
    "unix:///var/run/docker.sock",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/info",
    "javascript:alert(1)",
    "data:text/html,x",
    "//example.org/",
    "example.org",
    "http://",
    "http:///etc/passwd",
    "http://user@example.org/",
    "http://user:secret@example.org/",
    "http://example.org@127.0.0.1/",
    "http://exa mple.org/",
    "http://[::1/",
    "http://example.org:99999/",
    "http://example.org/" + "a" * 3000,
)


async def fetched(url: str, rules: Rules) -> dict[str, object]:
    (row,) = await fetch(url, rules=rules)
    return dict(row)


@pytest.mark.parametrize("host", HOSTS)
async def test_an_address_that_is_not_public_gets_no_connection(host) -> None:
    """The row says not_public and which kind of address it is."""
    async with serving({"/": PAGE}) as served:
        row = await fetched(f"http://{host}/", guarded(served, ports=frozenset({80, 443})))
        assert (row["status"], row["text"], row["http_status"]) == ("not_public", "", None)
        assert "only public addresses are fetched" in str(row["detail"])
        assert served.connections == 0


@pytest.mark.parametrize("host", HOSTS)
async def test_without_the_wall_of_addresses_it_arrives(host) -> None:
    """The control of the test above: each of the hosts is one that a connection is made to."""
    async with serving({"/": PAGE}) as served:
        row = await fetched(f"http://{host}/", anywhere(served))
        assert (row["status"], row["text"]) == ("success", "a secret of this machine")
        assert served.connections == 1


@pytest.mark.parametrize("text", TEXTS)
async def test_a_text_that_is_no_url_of_a_page_is_refused(text) -> None:
    """Scheme, user name, port and form are judged from the text; nothing is resolved."""
    async with serving({"/": PAGE}) as served:
        row = await fetched(text, anywhere(served, resolve=names({})))
        assert (row["status"], served.connections) == ("not_public", 0)
        assert row["detail"]


@pytest.mark.parametrize("port", [22, 25, 2375, 6379, 8080])
async def test_another_port_is_refused(port) -> None:
    """A page is served on 80 and 443; with the wall of ports off, the same URL arrives."""
    async with serving({"/": PAGE}) as served:
        url = f"http://8.8.8.8:{port}/"
        refused = await fetched(url, guarded(served, ports=frozenset({80, 443})))
        assert refused["detail"] == f"port {port} is refused: only 80 and 443 are allowed"
        assert served.connections == 0
        assert (await fetched(url, guarded(served)))["status"] == "success"


async def test_a_name_with_one_bad_address_is_refused() -> None:
    """One private address among public ones is enough, wherever it stands."""
    async with serving({"/": PAGE}) as served:
        for found in (["93.184.216.34", "10.0.0.1"], ["10.0.0.1", "93.184.216.34"], ["2606:4700::1", "::1"]):
            known = names({"mixed.test": found})
            row = await fetched("http://mixed.test/", guarded(served, resolve=known))
            assert (row["status"], served.connections) == ("not_public", 0), found
        row = await fetched("http://mixed.test/", anywhere(served, resolve=known))
        assert row["status"] == "success"


async def test_a_name_is_resolved_once_and_the_judged_address_is_used() -> None:
    """A name that answers with a private address the second time is not asked a second time."""
    async with serving({"/": PAGE}) as served:
        asked: list[str] = []
        answers = iter([["93.184.216.34"], ["127.0.0.1"]])

        async def rebinding(host: str, port: int) -> list[str]:
            asked.append(host)
            return next(answers)

        led = Led(served)
        row = await fetched("http://rebind.test/", guarded(served, resolve=rebinding, network=lambda: led))
        assert (row["status"], asked, led.went) == ("success", ["rebind.test"], [("93.184.216.34", 80)])
        assert served.asked[0].headers["host"] == "rebind.test"


async def test_a_new_connection_to_the_same_name_is_judged_anew() -> None:
    """After a redirect to itself the name answers with a private address: refused, and only one connection was made."""
    async with serving({"/": moved("/next"), "/next": PAGE}) as served:
        answers = iter([["93.184.216.34"], ["127.0.0.1"]])

        async def rebinding(host: str, port: int) -> list[str]:
            return next(answers)

        row = await fetched("http://rebind.test/", guarded(served, resolve=rebinding))
        assert (row["status"], row["final_url"], served.connections) == ("not_public", "http://rebind.test/next", 1)


@pytest.mark.parametrize(
    "place",
    [
        "http://10.0.0.1/",
        "http://[::1]/",
        "http://169.254.169.254/latest/meta-data/",
        "//127.1/",
        "file:///etc/passwd",
        "http://inner.test/",
        "http://user:secret@93.184.216.34/",
        "http://①②⑦.0.0.1/",
        "http://[bad/",
    ],
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_judged_as_the_first_url(place, status) -> None:
    """A public page cannot send the fetch to a private one, or to another scheme."""
    async with serving({"/start": moved(place, status), "/": PAGE}) as served:
        known = names({"public.test": ["93.184.216.34"], "inner.test": ["192.168.1.1"]})
        row = await fetched("http://public.test/start", guarded(served, resolve=known))
        assert (row["status"], served.connections) == ("not_public", 1)
        assert [asked.target for asked in served.asked] == ["/start"]


async def test_without_the_wall_a_redirect_arrives() -> None:
    """The control of the test above."""
    async with serving({"/start": moved("http://10.0.0.1/"), "/": PAGE}) as served:
        row = await fetched("http://93.184.216.34/start", anywhere(served))
        assert (row["status"], row["final_url"], served.connections) == ("success", "http://10.0.0.1/", 2)


async def test_redirects_have_an_end() -> None:
    """Five are followed, the sixth is not."""
    hops = {f"/{n}": moved(f"/{n + 1}") for n in range(MAX_REDIRECTS + 1)}
    async with serving({**hops, f"/{MAX_REDIRECTS + 1}": PAGE}) as served:
        row = await fetched("http://8.8.8.8/0", guarded(served))
        assert (row["status"], served.connections) == ("too_many_redirects", MAX_REDIRECTS + 1)
        row = await fetched("http://8.8.8.8/1", guarded(served))
        assert (row["status"], row["final_url"]) == ("success", f"http://8.8.8.8/{MAX_REDIRECTS + 1}")


async def test_the_next_address_is_tried_if_the_first_answers_nobody() -> None:
    """A host with an IPv6 address that does not answer is still reached: both addresses were judged."""
    async with serving({"/": PAGE}) as served:

        class Half(Led):
            async def connect_tcp(self, host: str, *rest: object, **more: object) -> httpcore2.AsyncNetworkStream:
                if ":" in host:
                    raise httpcore2.ConnectError("no route")
                return await super().connect_tcp(host, *rest, **more)  # type: ignore[arg-type]  # passed on

        known = names({"both.test": ["2606:4700::1", "93.184.216.34"]})
        row = await fetched("http://both.test/", guarded(served, resolve=known, network=lambda: Half(served)))
        assert row["status"] == "success"


async def test_no_setting_of_the_environment_leads_elsewhere(monkeypatch) -> None:
    """A proxy, a certificate file and a netrc of the environment are not looked at."""
    async with serving({"/": PAGE}) as served, serving({"/": http("<p>the proxy</p>")}) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.url())
        row = await fetched("http://8.8.8.8/", guarded(served))
        assert (row["text"], proxy.connections) == ("a secret of this machine", 0)


async def test_the_operators_proxy_is_used_and_addresses_are_still_judged() -> None:
    """A name goes to the proxy unresolved; what the URL itself shows is refused before."""
    async with serving({"http://any.test/": http("<p>by the proxy</p>")}) as proxy:
        rules = Rules(proxy=proxy.url(), resolve=names({}))
        row = await fetched("http://any.test/", rules)
        assert (row["status"], row["text"]) == ("success", "by the proxy")
        assert proxy.asked[0].target == "http://any.test/"
        for url in (
            "http://10.0.0.1/",
            "http://127.1/",
            "http://10.0.0.1./",
            "http://any.test:22/",
            "http://u:p@any.test/",
        ):
            row = await fetched(url, rules)
            assert (row["status"], proxy.connections) == ("not_public", 1), url


async def test_a_unix_socket_is_refused() -> None:
    """The guard has no way to one, whatever the library asks for."""
    with pytest.raises(Refused, match="no unix socket"):
        await Guard(Rules()).connect_unix_socket("/var/run/docker.sock")


async def test_every_connection_passes_the_guard() -> None:
    """The library's private attribute is still where the guard is put: a client cannot connect beside it."""
    async with serving({"/": PAGE}) as served:
        async with guarded_client(guarded(served)) as client:
            assert (await client.get("http://8.8.8.8/")).status_code == 200
            with pytest.raises(Refused, match=r"127\.0\.0\.1, which is loopback"):
                await client.get(served.url())
        assert served.connections == 1


async def test_cookies_do_not_go_from_page_to_page() -> None:
    """Each URL has a client of its own, so what one page sets, another does not get."""
    async with serving({"/": http("<p>x</p>", headers={"Set-Cookie": "a=1"})}) as served:
        await fetch(["http://8.8.8.8/", "http://8.8.8.8/"], rules=guarded(served))
        await fetch("http://8.8.8.8/", rules=guarded(served))
        assert [asked.headers.get("cookie") for asked in served.asked] == [None, None, None]


async def test_a_name_without_address_is_an_error_of_the_net() -> None:
    """Not found is not refused: the row says http_error, with the name."""
    async with serving({}) as served:
        for known in (names({}), names({"gone.test": []})):
            row = await fetched("http://gone.test/", guarded(served, resolve=known))
            assert row["status"] == "http_error"
            assert "gone.test has no address" in str(row["detail"])


def test_a_fragment_is_not_sent() -> None:
    """It belongs to the reader of the page."""
    assert str(checked_url("http://example.org/a?b=c#d", Rules())) == "http://example.org/a?b=c"


async def test_a_resolver_that_hangs_is_left_at_the_deadline() -> None:
    """The time of a URL holds for its name, too."""
    waiting = asyncio.Event()

    async def never(host: str, port: int) -> list[str]:
        await waiting.wait()
        return []

    async with serving({}) as served:
        loop = asyncio.get_running_loop()
        (row,) = await fetch("http://slow.test/", rules=guarded(served, resolve=never), until=loop.time() + 0.2)
        assert (row["status"], served.connections) == ("timeout", 0)
