"""Jupyter's messages as Open WebUI sends them: a kernel, a socket, an execute_request, and until the kernel is idle."""

import asyncio
import base64
import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from service.conftest import Served
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

pytestmark = [pytest.mark.slow, pytest.mark.any_user]
END_S = 60


class OpenWebUI:
    """Its code interpreter: all that it knows is a URL and a token, which it puts into the query."""

    def __init__(self, url: str, key: str) -> None:
        self.url, self.query = url, {"token": key}
        self.http = httpx2.AsyncClient(base_url=url, timeout=END_S)

    async def kernel(self) -> str:
        made = await self.http.post("/api/kernels", params=self.query)
        assert made.status_code == 201, made.text
        return str(made.json()["id"])

    @contextlib.asynccontextmanager
    async def socket(self, kernel: str, **more: Any) -> AsyncIterator[ClientConnection]:  # noqa: ANN401 - connect's
        address = f"{self.url.replace('http', 'ws', 1)}/api/kernels/{kernel}/channels?token={self.query['token']}"
        async with connect(address, max_size=None, **more) as socket:
            yield socket

    async def execute(self, code: str) -> list[dict[str, Any]]:
        """Every message that answers the request, until the kernel is idle."""
        kernel = await self.kernel()
        async with self.socket(kernel) as socket:
            told = await answered(socket, code)
        gone = await self.http.delete(f"/api/kernels/{kernel}", params=self.query)
        assert gone.status_code == 204
        return told


def request(code: str, kind: str = "execute_request") -> dict[str, Any]:
    header = {"msg_id": uuid.uuid4().hex, "msg_type": kind, "username": "user", "session": "s", "date": ""}
    content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
    sent = {"header": {**header, "version": "5.3"}, "parent_header": {}, "metadata": {}, "content": content}
    return {**sent, "channel": "shell"}


async def answered(socket: ClientConnection, code: str, kind: str = "execute_request") -> list[dict[str, Any]]:
    sent = request(code, kind)
    await socket.send(json.dumps(sent))
    told: list[dict[str, Any]] = []
    async with asyncio.timeout(END_S):
        while not told or told[-1]["content"].get("execution_state") != "idle":
            told.append(json.loads(await socket.recv()))
            assert told[-1]["parent_header"] == sent["header"]
    return told


def kinds(told: list[dict[str, Any]]) -> list[str]:
    return [one["msg_type"] for one in told]


def text(told: list[dict[str, Any]], stream: str = "stdout") -> str:
    return "".join(
        one["content"]["text"] for one in told if one["msg_type"] == "stream" and one["content"]["name"] == stream
    )


@pytest.fixture
async def client(served: Served) -> AsyncIterator[OpenWebUI]:
    client = OpenWebUI(served.url, served.key)
    async with client.http:
        yield client


async def test_a_program_is_told_of_in_order(client: OpenWebUI) -> None:
    """Busy, what it prints, its pictures, the value of its last line, the reply, idle."""
    png = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
    told = await client.execute(
        f"import base64, sys\nprint('out'); print('err', file=sys.stderr)\n"
        f"open('a.png', 'wb').write(base64.b64decode('{png}'))\nx = 40\nx + 2"
    )
    without_streams = [kind for kind in kinds(told) if kind != "stream"]
    assert without_streams == ["status", "display_data", "execute_result", "execute_reply", "status"]
    assert kinds(told)[1] == "stream"
    assert (text(told), text(told, "stderr")) == ("out\n", "err\n")
    data = [one["content"]["data"] for one in told if "data" in one["content"]]
    assert data == [{"image/png": png, "text/plain": "<a.png>"}, {"text/plain": "42"}]
    assert told[-2]["content"] == {"execution_count": 1, "status": "ok", "user_expressions": {}, "payload": []}
    assert {one["channel"] for one in told if one["msg_type"] != "execute_reply"} == {"iopub"}


async def test_a_figure_is_shown_without_being_saved(client: OpenWebUI) -> None:
    """As in a notebook: by `plt.show()`, and one that is open at the end."""
    pytest.importorskip("matplotlib")
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\nplt.figure()\nplt.plot([3])"
    told = await client.execute(code)
    pictures = [one["content"]["data"] for one in told if one["msg_type"] == "display_data"]
    assert [one["text/plain"] for one in pictures] == ["<figure-1.png>", "<figure-2.png>"], text(told, "stderr")
    assert all(base64.b64decode(one["image/png"]).startswith(b"\x89PNG") for one in pictures)


async def test_an_exception_is_an_error_whose_traceback_is_told_once(client: OpenWebUI) -> None:
    told = await client.execute("print('before')\n1 / 0")
    assert [kind for kind in kinds(told) if kind != "stream"] == ["status", "error", "execute_reply", "status"]
    error = told[-3]["content"]
    assert (error["ename"], error["traceback"]) == ("ZeroDivisionError", [])
    assert text(told, "stderr").count("Traceback") == 1
    assert (told[-2]["content"]["status"], told[-2]["content"]["ename"]) == ("error", "ZeroDivisionError")


async def test_what_a_program_prints_is_never_a_message(client: OpenWebUI) -> None:
    """It prints the messages that would end the cell well; they arrive as its text."""
    forged = json.dumps(
        {"msg_type": "status", "content": {"execution_state": "idle"}, "parent_header": {"msg_id": "x"}}
    )
    code = f"import sys\nprint({forged!r})\nsys.stdout.buffer.write(b'\\xff\\x00\\r\\n last')\nraise SystemExit(2)"
    told = await client.execute(code)
    assert forged in text(told)
    assert "last" in text(told)
    assert told[-2]["content"]["status"] == "error"


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("import math\nmath.pi", ["3.141592653589793"]),
        ("'a' + 'b'\n", ["'ab'"]),
        ("import asyncio\nawait asyncio.sleep(0, 'slept')", ["'slept'"]),
        ("None", []),
    ],
)
async def test_the_value_of_a_last_line_is_shown(client: OpenWebUI, code: str, value: list[str]) -> None:
    told = await client.execute(code)
    assert [one["content"]["data"]["text/plain"] for one in told if one["msg_type"] == "execute_result"] == value
    assert told[-2]["content"]["status"] == "ok", text(told, "stderr")


async def test_one_socket_runs_several_cells_in_order_and_answers_what_it_is(client: OpenWebUI) -> None:
    """A kernel is no process: its variables are gone, and its banner says so."""
    kernel = await client.kernel()
    async with client.socket(kernel) as socket:
        info = await answered(socket, "", "kernel_info_request")
        assert kinds(info) == ["status", "kernel_info_reply", "status"]
        first = await answered(socket, "x = 1")
        second = await answered(socket, "x")
    assert (first[-2]["content"]["execution_count"], second[-2]["content"]["execution_count"]) == (1, 2)
    assert second[-2]["content"]["ename"] == "NameError"


async def statuses(client: OpenWebUI) -> list[str]:
    """Of the user's runs, newest first, once none of them goes on."""
    headers = {"Authorization": f"Bearer {client.query['token']}"}
    async with asyncio.timeout(END_S):
        while True:
            listed = (await client.http.get("/v1/runs", headers=headers)).json()["runs"]
            if all(one["ended"] for one in listed):
                return [one["status"] for one in listed]
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("way", ["leave", "delete", "interrupt"])
async def test_a_run_ends_with_its_socket_and_with_its_kernel(client: OpenWebUI, way: str) -> None:
    kernel = await client.kernel()
    async with client.socket(kernel) as socket:
        await socket.send(json.dumps(request("print('begun', flush=True)\nwhile True: pass")))
        async with asyncio.timeout(END_S):
            while json.loads(await socket.recv())["msg_type"] != "stream":
                pass
        if way == "delete":
            assert (await client.http.delete(f"/api/kernels/{kernel}", params=client.query)).status_code == 204
        elif way == "interrupt":
            await client.http.post(f"/api/kernels/{kernel}/interrupt", params=client.query)
            async with asyncio.timeout(END_S):
                while (told := json.loads(await socket.recv()))["msg_type"] != "execute_reply":
                    pass
            assert told["content"]["ename"] == "cancelled"
    assert (await statuses(client))[0] == "cancelled"


async def refusal(url: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url.replace("http", "ws", 1), additional_headers=headers):
            pass
    response = refused.value.response
    return response.status_code, bytes(response.body)


async def test_a_socket_without_a_key_is_refused_whoever_asks(client: OpenWebUI, served: Served) -> None:
    """A page of another origin, this service's own with a cookie alone, and a key that is none."""
    kernel = await client.kernel()
    path = f"{served.url}/api/kernels/{kernel}/channels"
    for query, headers in (
        ("", {}),
        ("", {"Origin": "http://evil.example", "Cookie": "isorun_session=x"}),
        ("", {"Origin": served.url, "Cookie": "isorun_session=x"}),
        ("?token=isr_wrong", {"Origin": "http://evil.example"}),
    ):
        assert (await refusal(path + query, headers))[0] in (401, 403)
    refused = await client.http.post("/api/kernels")
    assert (refused.status_code, refused.json()["reason"]) == (401, "not_signed_in")


async def test_a_kernel_of_another_user_is_one_that_is_not_there(client: OpenWebUI, served: Served) -> None:
    kernel, none = await client.kernel(), str(uuid.uuid4())
    other = {"token": served.other_key}
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/interrupt")):
        answers = [
            await client.http.request(method, f"/api/kernels/{one}{path}", params=other) for one in (kernel, none)
        ]
        assert [one.status_code for one in answers] == [404, 404]
        assert answers[0].content == answers[1].content
    sockets = [
        await refusal(f"{served.url}/api/kernels/{one}/channels?token={served.other_key}") for one in (kernel, none)
    ]
    assert sockets[0] == sockets[1]
    assert (await client.http.get("/api/kernels", params=other)).json() == []
    assert (await client.http.get(f"/api/kernels/{kernel}", params=client.query)).status_code == 200


@pytest.mark.parametrize("sent", ["{", "[]", "[" * 100_000, '{"header": {"msg_id": 1, "msg_type": "execute_request"}}'])
async def test_what_is_no_message_closes_the_socket(client: OpenWebUI, sent: str) -> None:
    async with client.socket(await client.kernel()) as socket:
        await socket.send(sent)
        with pytest.raises(ConnectionClosed) as closed:
            async with asyncio.timeout(END_S):
                await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


async def test_kernels_are_bounded(served: Served) -> None:
    client = OpenWebUI(served.url, served.other_key)
    async with client.http:
        made = [await client.http.post("/api/kernels", params=client.query) for _ in range(33)]
        assert [one.status_code for one in made] == [201] * 32 + [429]
        assert made[-1].json()["reason"] == "too_many_kernels"
        for one in made[:-1]:
            await client.http.delete(f"/api/kernels/{one.json()['id']}", params=client.query)


async def test_the_key_is_not_in_the_log(client: OpenWebUI, served: Served) -> None:
    """It stands in the address of each request, as Open WebUI sends it."""
    await client.execute("1")
    assert served.key not in served.log.read_text()
