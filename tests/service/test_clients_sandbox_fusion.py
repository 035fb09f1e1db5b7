"""SandboxFusion's messages, as its client 0.3.7 and verl send them. The client itself pulls aiohttp and eight more."""

import base64
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from service.conftest import Served

pytestmark = [pytest.mark.slow, pytest.mark.any_user]
TEXT = base64.b64encode(b"a,b\n1,2\n").decode()


@pytest.fixture
def client(served: Served) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=served.url, headers={"Authorization": f"Bearer {served.key}"}, timeout=60) as client:
        yield client


def asked(code: str, **more: object) -> dict[str, Any]:
    """A request with every field that the client sends."""
    fields = {"compile_timeout": 10, "run_timeout": 10, "code": code, "stdin": None, "language": "python"}
    return {**fields, "files": {}, "fetch_files": [], "args": [], **more}


def ran(client: httpx2.Client, code: str, **more: object) -> dict[str, Any]:
    answer = client.post("/run_code", json=asked(code, **more))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_program_that_ends_well_is_a_success(client: httpx2.Client) -> None:
    """Its output, code and time are where the client looks for them, and files come and go."""
    code = "import sys; print(input(), sys.argv[1:], open('d/in.csv').read()); open('out.txt', 'w').write('made')"
    told = ran(
        client, code, stdin="hello", args=["x"], files={"d/in.csv": TEXT}, fetch_files=["out.txt", "d/in.csv", "none"]
    )
    assert (told["status"], told["message"], told["compile_result"]) == ("Success", "", None)
    result = told["run_result"]
    assert (result["status"], result["return_code"], result["stderr"]) == ("Finished", 0, "")
    assert result["stdout"] == "hello ['x'] a,b\n1,2\n\n"
    assert 0 < result["execution_time"] < 10
    assert told["files"] == {"out.txt": base64.b64encode(b"made").decode(), "d/in.csv": TEXT}


@pytest.mark.parametrize(
    ("code", "more", "status", "return_codes"),
    [
        ("raise SystemExit(3)", {}, "Finished", [3]),
        ("1/0", {}, "Finished", [1]),
        ("while True: pass", {"run_timeout": 0.5}, "TimeLimitExceeded", [None]),
        ("import os; os.kill(os.getpid(), 11)", {}, "Finished", [-11]),
        # Killed, or refused the memory, as the host counts it.
        ("x = bytearray(300_000_000); x[::4096] = x[::4096]", {"memory_limit_MB": 128}, "Finished", [-9, 1]),
    ],
)
def test_what_goes_wrong_in_a_program_is_failed_and_never_an_error_of_the_sandbox(
    client: httpx2.Client, code: str, more: dict[str, Any], status: str, return_codes: list[int | None]
) -> None:
    """The client would try again, five times, and then give the error to its caller."""
    told = ran(client, code, **more)
    assert told["status"] == "Failed"
    assert told["run_result"]["status"] == status
    assert told["run_result"]["return_code"] in return_codes


def test_another_language_is_refused_in_its_shape(client: httpx2.Client) -> None:
    told = ran(client, "int main() {}", language="cpp")
    assert (told["status"], told["run_result"]) == ("SandboxError", None)
    assert "python" in told["message"]


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../b", ""])
def test_no_name_leads_out_of_the_folder(client: httpx2.Client, name: str) -> None:
    """Of a file that comes along it is an error; of one to fetch, there is none."""
    answer = client.post("/run_code", json=asked("print(1)", files={name: TEXT}))
    assert answer.status_code == 422
    assert "detail" in answer.json()
    told = ran(client, "print(1)", fetch_files=["../result.json", "/etc/passwd", "../../etc/passwd", name])
    assert (told["status"], told["files"]) == ("Success", {})


def test_a_link_is_not_fetched(client: httpx2.Client) -> None:
    told = ran(client, "import os; os.symlink('/etc/passwd', 'link.txt')", fetch_files=["link.txt"])
    assert told["files"] == {}


def test_a_key_is_needed_and_can_stand_in_the_url(served: Served) -> None:
    """Its client knows a URL alone, so the key is the password there."""
    body = asked("print(7)")
    for headers in ({}, {"Authorization": "Bearer isr_wrong"}, {"Authorization": "Basic !!!"}, {"Cookie": "x=y"}):
        refused = httpx2.post(f"{served.url}/run_code", json=body, headers=headers)
        assert (refused.status_code, set(refused.json())) == (401, {"detail"})
        assert refused.headers["www-authenticate"] == "Bearer"
    with_key = served.url.replace("http://", f"http://isorun:{served.key}@")
    assert httpx2.post(f"{with_key}/run_code", json=body, timeout=60).json()["run_result"]["stdout"] == "7\n"
    assert served.key not in served.log.read_text()
