"""The backend over one Runtime, with programs that really run: their output, end, files, and who sees them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

import isorun
from isorun.core.errors import InvalidRequest
from isorun.core.request import Named, RunRequest
from isorun.service.mcp.local import LocalBackend
from isorun.testing.fake import FakeBackend


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[isorun.Runtime]:
    async with isorun.Runtime(backend=FakeBackend(), pool_size=0, workspace_root=tmp_path / "root") as opened:
        yield opened


async def test_a_run_from_start_to_list(runtime) -> None:
    """What is printed comes as it is printed; the file that was given is there, and what was written can be read."""
    backend = LocalBackend(runtime)
    code = b"print(open('in.txt').read(), flush=True)\nopen('a.txt', 'w').write('abc')"
    exec_id = await backend.start(RunRequest(code=code, inputs=(Named("in.txt", b"given"),)))
    running = await backend.latest(5)
    printed = "".join([text async for text in backend.output(exec_id)])
    ended = await backend.result(exec_id)
    assert printed == "given\n"
    assert [(run.exec_id, run.status) for run in running] in ([(exec_id, "running")], [])
    assert (ended.result["ok"], [(file.path, file.bytes) for file in ended.files]) == (True, [("a.txt", 3)])
    assert (await backend.read(exec_id, "a.txt", offset=1, most=9)).data == b"bc"
    assert (await backend.read(exec_id, "logs/user.log", offset=0, most=99)).data.endswith(b"\ngiven\n")
    (listed,) = await backend.latest(5)
    assert (listed.exec_id, listed.status, [file.path for file in listed.files]) == (exec_id, "ok", ["a.txt"])
    assert listed.started.endswith("Z")


async def test_other_runs_of_the_user_are_not_seen(runtime) -> None:
    """A program that the user ran otherwise may have read what no model is to see."""
    result = await runtime.execute("open('private.txt', 'w').write('x')")
    backend = LocalBackend(runtime)
    assert [*await backend.latest(5)] == []
    with pytest.raises(InvalidRequest) as caught:
        await backend.read(result.exec_id, "private.txt", offset=0, most=9)
    assert caught.value.code == "no_such_run"


async def test_the_newest_runs_are_listed_first(runtime) -> None:
    """As many as are asked for, also those of an earlier server of this user."""
    backend = LocalBackend(runtime)
    made = []
    for _ in range(3):
        made.append(await backend.start(RunRequest(code=b"pass")))
        await backend.result(made[-1])
    assert [run.exec_id for run in await LocalBackend(runtime).latest(2)] == [made[2], made[1]]


async def test_a_cancelled_run_has_ended(runtime) -> None:
    """Once `cancel` returns nothing runs, and what was printed until then is kept."""
    backend = LocalBackend(runtime)
    exec_id = await backend.start(RunRequest(code=b"print('begun', flush=True)\nimport time\ntime.sleep(600)"))
    async with aclosing(backend.output(exec_id)) as output, asyncio.timeout(60):
        assert await anext(output) == "begun\n"
    await backend.cancel(exec_id)
    (listed,) = await backend.latest(5)
    assert listed.status == "cancelled"
    assert (await backend.read(exec_id, "logs/user.log", offset=0, most=99)).data.endswith(b"\nbegun\n")
    with pytest.raises(InvalidRequest):
        await backend.result(exec_id)


async def test_a_bad_request_starts_nothing(runtime) -> None:
    """What a run refuses is refused here, with its own words."""
    backend = LocalBackend(runtime)
    with pytest.raises(InvalidRequest, match="the contract is empty"):
        await backend.start(RunRequest(code=b"pass", contract=[]))
    assert [*await backend.latest(5)] == []
