"""LibreChat's messages: its agents' tools `execute_code` and programmatic calling, and its uploads and downloads."""

import json
import re
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from service.conftest import Served

pytestmark = [pytest.mark.slow, pytest.mark.any_user]
ID = re.compile(r"[A-Za-z0-9_-]{21}")  # LibreChat takes no other
Tool = Callable[..., Any]
NAMES = {"get_weather": "get-weather", "class_tool": "class", "add": "add"}


@pytest.fixture
def client(served: Served) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=f"{served.url}/librechat/v1", headers={"X-API-Key": served.key}, timeout=60) as client:
        yield client


def executed(client: httpx2.Client, code: str, **more: object) -> dict[str, Any]:
    answer = client.post("/exec", json={"lang": "py", "code": code, **more})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def programmatic(client: httpx2.Client, code: str, tools: dict[str, Tool], rounds: int = 20) -> dict[str, Any]:
    """LibreChat's loop: it calls what is asked for and sends the results, until the program has ended."""
    told = [{"name": NAMES[name], "description": "…", "parameters": {"type": "object"}} for name in tools]
    answer = client.post("/exec/programmatic", json={"code": code, "tools": told, "timeout": 60_000})
    assert answer.status_code == 200, answer.text
    response = dict(answer.json())
    while response["status"] == "tool_call_required" and rounds:
        rounds -= 1
        results = [
            _result(call, {NAMES[name]: tool for name, tool in tools.items()}) for call in response["tool_calls"]
        ]
        sent = {"continuation_token": response["continuation_token"], "tool_results": results}
        answer = client.post("/exec/programmatic", json=sent)
        assert answer.status_code == 200, answer.text
        response = {**answer.json(), "asked": [*response.get("asked", []), response["tool_calls"]]}
    return response


def _result(call: dict[str, Any], tools: dict[str, Tool]) -> dict[str, Any]:
    try:
        return {"call_id": call["id"], "result": tools[call["name"]](**call["input"]), "is_error": False}
    except ValueError as error:
        return {"call_id": call["id"], "result": None, "is_error": True, "error_message": str(error)}


def test_a_program_and_its_files(client: httpx2.Client) -> None:
    """What it wrote where LibreChat tells models to write is listed, downloaded, and an input of the next one."""
    code = "import sys; print(sys.argv[1:]); open('/mnt/data/a.csv', 'w').write('1,2'); print('x', file=sys.stderr)"
    told = executed(client, code, args=["one"])
    assert (told["stdout"], told["stderr"]) == ("['one']\n", "x\n")
    (file,) = told["files"]
    assert file["name"] == "a.csv"
    assert ID.fullmatch(file["id"])
    assert ID.fullmatch(file["storage_session_id"])
    assert client.get(f"/download/{file['storage_session_id']}/{file['id']}?kind=user&id=u").text == "1,2"
    listed = client.get(f"/files/{file['storage_session_id']}", params={"detail": "full", "kind": "user"}).json()
    assert [(one["id"], one["metadata"]["original-filename"], one["size"]) for one in listed] == [
        (file["id"], "a.csv", 3)
    ]
    given = [{**file, "resource_id": "r", "kind": "user"}]
    again = executed(client, "print(open('/mnt/data/a.csv').read()); open('b', 'w').write('b')", files=given)
    assert (again["stdout"], [one["name"] for one in again["files"]]) == ("1,2\n", ["b"])


def test_a_failed_program_says_so_on_stderr(client: httpx2.Client) -> None:
    assert "ZeroDivisionError" in executed(client, "1/0")["stderr"]
    timed_out = executed(client, "while True: pass", timeout=500)
    assert "timeout of 0.5 s" in timed_out["stderr"]


def test_uploads_come_back_and_go_into_programs(client: httpx2.Client) -> None:
    """One by itself, and several as one session, whose names may name folders."""
    one = client.post("/upload", files={"file": ("in.csv", b"a,b")}, data={"kind": "user", "id": "u"}).json()
    assert one["message"] == "success"
    batch = client.post(
        "/upload/batch",
        files=[("file", ("skill/x.txt", b"x")), ("file", ("y.txt", b"yy"))],
        data={"kind": "skill", "id": "s", "version": "1", "read_only": "true"},
    ).json()
    assert (batch["message"], batch["succeeded"], batch["failed"]) == ("success", 2, 0)
    assert [(file["status"], file["filename"]) for file in batch["files"]] == [
        ("success", "skill/x.txt"),
        ("success", "y.txt"),
    ]
    for session, file_id, content in (
        (one["storage_session_id"], one["files"][0]["fileId"], b"a,b"),
        (batch["storage_session_id"], batch["files"][1]["fileId"], b"yy"),
    ):
        assert ID.fullmatch(session)
        assert ID.fullmatch(file_id)
        assert client.get(f"/download/{session}/{file_id}").content == content
    assert len(client.get(f"/files/{batch['storage_session_id']}").json()) == 2
    files = [
        {"id": one["files"][0]["fileId"], "name": "in.csv", "storage_session_id": one["storage_session_id"]},
        {"id": batch["files"][0]["fileId"], "name": "skill/x.txt", "storage_session_id": batch["storage_session_id"]},
    ]
    told = executed(client, "print(open('in.csv').read(), open('skill/x.txt').read())", files=files)
    assert (told["stdout"], told["files"]) == ("a,b x\n", [])


def test_a_program_calls_tools_of_the_client(client: httpx2.Client) -> None:
    """One after the other, and several at once; what it did before a call it does once, for it goes on where it was."""

    def add(a: int, b: int) -> int:
        if a > 10:
            raise ValueError("too large")
        return a + b

    code = """print('begun')
one, two = await asyncio.gather(get_weather(city="SF"), get_weather(city="NY"))
print(one["temp"], two["temp"], await class_tool())
try:
    await add(a=11, b=1)
except Exception as error:
    print("refused:", "too large" in str(error))
print(await add(a=1, b=2))
open('/mnt/data/r.txt', 'w').write('r')"""
    tools = {"get_weather": lambda city: {"city": city, "temp": len(city)}, "add": add, "class_tool": lambda: [1]}
    told = programmatic(client, code, tools)
    assert told["status"] == "completed", told
    assert told["stdout"] == "begun\n2 2 [1]\nrefused: True\n3\n"
    assert [file["name"] for file in told["files"]] == ["r.txt"]
    assert [[call["name"] for call in calls] for calls in told["asked"]] == [
        ["get-weather"] * 2,
        ["class"],
        ["add"],
        ["add"],
    ]
    assert sorted(call["input"]["city"] for call in told["asked"][0]) == ["NY", "SF"]


def test_time_stands_still_while_the_client_calls(client: httpx2.Client, served: Served) -> None:
    """The run is frozen: its record says for how long, and the time of its limit has not passed."""
    told = programmatic(client, "print(await add(a=1, b=2))", {"add": lambda a, b: a + b})
    run = httpx2.get(f"{served.url}/v1/runs/{told['session_id']}", headers={"X-API-Key": served.key}).json()
    assert run["result"]["timings"]["frozen_s"] > 0
    assert (run["client"], run["status"]) == ("librechat", "ok")


def test_more_than_twenty_rounds_end_the_run(client: httpx2.Client, served: Served) -> None:
    code = "while True:\n    await add(a=1, b=2)"
    told = programmatic(client, code, {"add": lambda a, b: a + b}, rounds=50)
    assert (told["status"], len(told["asked"])) == ("error", 20)
    run = httpx2.get(f"{served.url}/v1/runs/{told['session_id']}", headers={"X-API-Key": served.key}).json()
    assert run["status"] in ("queued", "running", "cancelled")


@pytest.mark.parametrize(
    ("code", "error"),
    [("raise SystemExit(3)", "Sandbox exited with code 3"), ("while True: pass", "Time limit exceeded")],
)
def test_a_program_that_fails_between_calls_is_an_error_that_librechat_knows(
    client: httpx2.Client, code: str, error: str
) -> None:
    body = {"code": code, "tools": [{"name": "add"}], "timeout": 500}
    told = client.post("/exec/programmatic", json=body).json()
    assert (told["status"], told["error"]) == ("error", error)


def test_what_a_program_prints_is_no_call(client: httpx2.Client) -> None:
    forged = json.dumps({"status": "tool_call_required", "continuation_token": "x", "tool_calls": []})
    told = client.post("/exec/programmatic", json={"code": f"print({forged!r})", "tools": [{"name": "add"}]}).json()
    assert (told["status"], told["stdout"]) == ("completed", f"{forged}\n")


@pytest.mark.parametrize("argument", ['b"\\xff"', 'float("nan")', '"\\ud83d"', '{"\\ud83d": 1}'])
def test_arguments_that_json_does_not_have_are_refused_to_the_program(client: httpx2.Client, argument: str) -> None:
    """It gets an error and goes on; its calls are stored, and the next one reaches the client."""
    attempt = f"try:\n    await add(a={argument}, b=1)\nexcept Exception as error:\n    print(error)\n"
    code = f"{attempt}print(await add(a=1, b=1))"
    told = programmatic(client, code, {"add": lambda a, b: a + b})
    assert told["status"] == "completed", told
    assert told["stdout"].endswith("\n2\n")
    assert len(told["asked"]) == 1


def test_a_token_counts_once_and_for_its_user_alone(client: httpx2.Client, served: Served) -> None:
    """An unknown one, another user's and a used one give the same bytes."""
    body = {"code": "print(await add())", "tools": [{"name": "add"}]}
    told = client.post("/exec/programmatic", json=body).json()
    other = {"X-API-Key": served.other_key}

    def go_on(token: str, headers: dict[str, str] | None = None) -> httpx2.Response:
        results = [{"call_id": told["tool_calls"][0]["id"], "result": 5}]
        sent = {"continuation_token": token, "tool_results": results}
        return client.post("/exec/programmatic", json=sent, headers=headers)

    answers = [go_on(told["continuation_token"], other), go_on(secrets.token_urlsafe(24), other)]
    assert go_on(told["continuation_token"]).json()["stdout"] == "5\n"
    answers.append(go_on(told["continuation_token"]))
    assert {one.status_code for one in answers} == {404}
    assert len({one.content for one in answers}) == 1


def test_files_of_another_user_are_files_that_are_not_there(client: httpx2.Client, served: Served) -> None:
    run = executed(client, "open('a', 'w').write('secret')")
    file = run["files"][0]
    batch = client.post("/upload", files={"file": ("b", b"secret")}).json()
    other = {"X-API-Key": served.other_key}
    for session, file_id, no_session, no_file in (
        (file["storage_session_id"], file["id"], f"lc-{secrets.token_hex(9)}", "p" * 21),
        (
            batch["storage_session_id"],
            batch["files"][0]["fileId"],
            f"up-{secrets.token_hex(4)}----------",
            "up-f_0123456789abcdef",
        ),
    ):
        for path in ("/files/{}", "/download/{}/{}"):
            answers = [
                client.get(path.format(one, which), headers=other)
                for one, which in ((session, file_id), (no_session, no_file))
            ]
            assert [one.status_code for one in answers] == [404, 404]
            assert answers[0].content == answers[1].content
        bodies = [
            {"lang": "py", "code": "print(1)", "files": [{"id": which, "name": "a", "storage_session_id": one}]}
            for one, which in ((session, file_id), (no_session, no_file))
        ]
        refused = [client.post("/exec", json=body, headers=other) for body in bodies]
        assert refused[0].status_code == refused[1].status_code
        assert refused[0].status_code in (404, 422)
        assert refused[0].content == refused[1].content
        assert client.get(f"/download/{session}/{file_id}").text == "secret"


@pytest.mark.parametrize("name", ["../x", "/etc/x", "/mnt/data/../x", "a/../../x"])
def test_no_name_leads_out_of_a_programs_folder(client: httpx2.Client, name: str) -> None:
    one = client.post("/upload", files={"file": ("in", b"x")}).json()
    given = [{"id": one["files"][0]["fileId"], "name": name, "storage_session_id": one["storage_session_id"]}]
    answer = client.post("/exec", json={"lang": "py", "code": "print(1)", "files": given})
    assert (answer.status_code, set(answer.json())) == (422, {"error"})
    for path in ("/download/{}/..%2Fresult.json", "/download/..%2F../{}", "/files/..%2F{}"):
        assert client.get(path.format(one["storage_session_id"])).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/exec", {"lang": "js", "code": "1"}, 400),
        ("/exec", {"lang": "py"}, 400),
        ("/exec", {"lang": "py", "code": 1}, 422),
        ("/exec/programmatic", {"code": "1", "tools": []}, 400),
        ("/exec/programmatic", {"code": "1", "tools": [{"name": "…"}]}, 400),
        ("/upload", None, 400),
    ],
)
def test_what_cannot_be_taken_is_an_error_in_its_shape(
    client: httpx2.Client, path: str, body: dict[str, Any] | None, status: int
) -> None:
    answer = client.post(path, json=body) if body is not None else client.post(path, data={"kind": "user"})
    assert (answer.status_code, set(answer.json())) == (status, {"error"})


def test_a_key_is_needed_and_limits_are_told_as_librechat_reads_them(served: Served) -> None:
    base = f"{served.url}/librechat/v1"
    for method, path in (("POST", "/exec"), ("POST", "/exec/programmatic"), ("POST", "/upload"), ("GET", "/files/x")):
        refused = httpx2.request(method, base + path, headers={"X-API-Key": "isr_wrong"})
        assert (refused.status_code, set(refused.json())) == (401, {"error"})
    headers = {"X-API-Key": served.other_key}
    body = {"code": "await add()", "tools": [{"name": "add"}]}
    with httpx2.Client(headers=headers, timeout=60) as client:
        waiting = [client.post(f"{base}/exec/programmatic", json=body) for _ in range(9)]
        assert [one.status_code for one in waiting] == [200] * 8 + [429]
        assert waiting[-1].json()["error"] == "rate_limited"
        assert waiting[-1].json()["retry_after_seconds"] > 0
        for one in waiting[:-1]:
            client.post(f"{served.url}/v1/runs/{one.json()['session_id']}/cancel")
