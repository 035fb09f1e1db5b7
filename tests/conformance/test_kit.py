"""`isorun.testing.kit` on every backend of ours, and on backends that each do one thing wrong."""

import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from isorun.backends.base import Backend, Program, Slot, Usage
from isorun.core.errors import SetupFailed, Unavailable
from isorun.core.limits import Limits
from isorun.core.outcome import Exit
from isorun.testing.fake import FakeBackend
from isorun.testing.kit import CLAIMS, check

pytestmark = pytest.mark.timeout(180)  # sixteen claims, each some programs


def test_every_claim_of_the_kit_holds(rt, new_backend) -> None:
    """On every kind; `rt` finds out whether this machine has it."""
    assert {name: said for name, said in check(new_backend).items() if said is not True} == {}


class _Changed(FakeBackend):
    """The fake backend with one change to each slot."""

    @asynccontextmanager
    async def launch(self, limits: Limits) -> AsyncIterator[Slot]:
        async with super().launch(limits) as slot:
            self.change(slot)
            yield slot

    def change(self, slot: Slot) -> None: ...


class AlwaysWell(_Changed):
    """Says of every program that it exited with 0."""

    def change(self, slot: Slot) -> None:
        kill = slot.kill

        async def killed() -> tuple[Exit, Usage]:
            return Exit(code=0), (await kill())[1]

        slot.kill = killed  # type: ignore[method-assign] - of this one object


class Forgetful(_Changed):
    """Sends a program without its arguments, and of its files the code alone; its stdin is one of them."""

    def change(self, slot: Slot) -> None:
        start = slot.start

        async def started(program: Program) -> None:
            code = [file for file in program.files if file.path == "work/user_code.py"]
            await start(replace(program, files=code, argv=()))

        slot.start = started  # type: ignore[method-assign] - of this one object


class Restless(_Changed):
    """Says that a program is frozen, and lets it run."""

    def change(self, slot: Slot) -> None:
        async def nothing() -> None: ...

        slot.freeze = nothing  # type: ignore[method-assign] - of this one object


class Littering(FakeBackend):
    """Leaves a process, which somebody else must end."""

    processes: list["subprocess.Popen[bytes]"] = []  # noqa: RUF012 - of all of them

    async def __aenter__(self) -> "Littering":
        self.processes.append(subprocess.Popen(["sleep", "600"]))  # noqa: ASYNC220 - it is not waited for
        return await super().__aenter__()  # type: ignore[return-value] - the same object


@pytest.fixture
def ended() -> Iterator[None]:
    """Whoever was left is ended."""
    yield
    while Littering.processes:
        with Littering.processes.pop() as process:
            process.kill()


@pytest.mark.any_user
@pytest.mark.parametrize(
    ("backend", "names"),
    [
        (AlwaysWell, {"exit codes"}),
        (Forgetful, {"inputs", "arguments", "stdin"}),
        (Restless, {"frozen"}),
        (Littering, {"nothing left"}),
    ],
)
def test_a_backend_that_does_one_thing_wrong_fails_the_claims_of_that(
    backend: Callable[[], Backend], names: set[str], ended: None
) -> None:
    """The other claims hold, and each that does not says what was got instead."""
    found = check(backend)
    wrong = {name: said for name, said in found.items() if said is not True}
    assert set(wrong) == names, wrong
    assert all(said.startswith("got ") for said in wrong.values()), wrong
    assert list(found) == list(CLAIMS)


@pytest.mark.any_user
def test_what_a_backend_makes_elsewhere_is_asked_for() -> None:
    """`left` names it: what is there after a Runtime was left, and was not before, is told by that name."""
    made: set[str] = set()

    class Leaky(FakeBackend):
        async def __aenter__(self) -> "Leaky":
            made.add(f"container {len(made)}")
            return await super().__aenter__()  # type: ignore[return-value] - the same object

    found = check(Leaky, left=made.copy)
    assert [name for name, said in found.items() if said is not True] == ["nothing left"]
    assert str(found["nothing left"]).startswith("got ['container ")


def test_a_backend_that_cannot_be_entered_is_not_judged() -> None:
    """What it raises is raised."""

    class Nowhere(FakeBackend):
        async def __aenter__(self) -> "Nowhere":
            raise Unavailable("there is no such engine")

    with pytest.raises(Unavailable, match="there is no such engine"):
        check(Nowhere)


def test_no_claim_is_an_assert_statement() -> None:
    """`python -O` takes those out, and every backend would pass."""
    code = (
        "from isorun.testing.kit import check\n"
        "from isorun.testing.fake import FakeBackend\n"
        "class Deaf(FakeBackend):\n"
        "    def launch(self, limits): raise RuntimeError('deaf')\n"
        "print(sum(said is True for said in check(Deaf).values()))"
    )
    done = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True, cwd=Path("/"))
    assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr


@pytest.mark.any_user
async def test_without_its_interpreter_the_fake_backend_launches_nothing() -> None:
    """Programs are forked from it. Its end is an error of the sandbox, not of a program, and the backend is left."""
    async with FakeBackend() as backend:
        async with backend.launch(Limits()):
            interpreter = backend._forks._process
        interpreter.kill()
        interpreter.wait()
        with pytest.raises(SetupFailed, match="the interpreter that forks them is dead"):
            async with backend.launch(Limits()):
                pass
