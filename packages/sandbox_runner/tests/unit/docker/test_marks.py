"""Our marks are taken out of a command's stderr, and every other byte is the command's, however the bytes are cut."""

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from sandbox_runner.docker.inside import Marks, command, end, new_token

TOKEN = b"sandbox-0123456789abcdef0123456789abcdef"
BEGIN, END = TOKEN + b" begin 12 11\n", TOKEN + b" end 3 0 0\n"
#: What a command prints: anything, and what begins as our marks do.
PARTS = st.sampled_from([TOKEN[:7], TOKEN, TOKEN + b" ", TOKEN + b" en", TOKEN + b" end", b"\n", b" end 0 0 0\n", b"s"])
OUTPUT = st.lists(st.one_of(st.binary(max_size=20), PARTS), max_size=12).map(b"".join)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """*data* in pieces."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:stop] for start, stop in pairwise(edges)]


def through(pieces: list[bytes]) -> tuple[Marks, bytes]:
    """What comes out of *pieces*, with the end of the stream."""
    marks = Marks(TOKEN)
    return marks, b"".join(map(marks.feed, pieces)) + marks.end()


def is_forged(output: bytes) -> bool:
    """Whether *output* holds a mark of its own that is whole: then the command speaks for itself."""
    return any(
        len(words := line.split(b"\n")[0].split()) == 3 and all(word.isdigit() for word in words)
        for line in (output + TOKEN).split(TOKEN + b" end ")[1:]
    )


@given(output=OUTPUT, places=st.lists(st.integers(0, 10_000), max_size=12))
@example(output=b"", places=[])
@example(output=TOKEN + b" end ", places=[1])
@example(output=TOKEN * 3 + b" end x\n" * 3, places=list(range(200)))
def test_exactly_the_commands_bytes_come_out(output, places) -> None:
    """For any output, also one that holds pieces of marks, and for any cut."""
    if is_forged(output):
        return
    marks, came = through(cut(BEGIN + output + END, places))
    assert came == output
    assert (marks.began, marks.ended, marks.has_left, marks.engine_said) == ((12, 11), (3, 0), False, b"")


@given(output=OUTPUT, places=st.lists(st.integers(0, 10_000), max_size=12))
def test_without_an_end_all_that_came_is_the_commands(output, places) -> None:
    """Somebody ended our shell; nothing that was held back is lost."""
    if is_forged(output):
        return
    marks, came = through(cut(BEGIN + output, places))
    assert came == output
    assert marks.ended is None


@given(output=OUTPUT, places=st.lists(st.integers(0, 10_000), max_size=12))
def test_nothing_is_passed_on_later_than_it_must_be(output, places) -> None:
    """Of what a command prints no more is held back than can be the beginning of a mark."""
    if is_forged(output):
        return
    marks, came = Marks(TOKEN), b""
    for piece in cut(BEGIN + output, places):
        came += marks.feed(piece)
    assert len(output) - len(came) <= len(TOKEN) + len(b" end ") + 64


@given(before=st.binary(max_size=60), after=st.binary(max_size=60), places=st.lists(st.integers(0, 500), max_size=8))
def test_what_is_around_the_marks_is_the_engines(before, after, places) -> None:
    """And never the command's."""
    if TOKEN in before or TOKEN in after:
        return
    marks, came = through(cut(before + BEGIN + b"out" + END + after, places))
    assert came == b"out"
    assert marks.engine_said == before + after


def test_what_did_not_begin_is_the_engines() -> None:
    """All of it, up to a limit."""
    marks, came = through([b"Error response from daemon: no", b" such container\n"])
    assert (came, marks.began, marks.engine_said) == (b"", None, b"Error response from daemon: no such container\n")
    shown = " ".join(command(TOKEN.decode(), 7, "/", ["x"], own_init=True)).encode()
    marks, came = through([b"Error response from daemon: ", shown])
    assert (came, marks.began, marks.engine_said) == (b"", None, (b"Error response from daemon: " + shown)[:4096])
    marks, came = through([b"x" * 100_000])
    assert (came, len(marks.engine_said)) == (b"", 4096)


def test_a_folder_that_is_not_there_is_told() -> None:
    """Before anything begins."""
    marks, came = through([TOKEN + b" place\n"])
    assert (came, marks.has_no_place, marks.began) == (b"", True, None)
    marks, _ = through([BEGIN, TOKEN + b" place\n"])
    assert marks.has_no_place is False


def test_what_was_left_and_killed_is_told() -> None:
    """The numbers of the last mark: exit code, kills for want of memory, whether something could not be ended."""
    marks, _ = through([BEGIN, TOKEN + b" end 137 4 1\n"])
    assert (marks.ended, marks.has_left) == ((137, 4), True)


def test_a_forged_mark_takes_no_memory() -> None:
    """Behind an end nothing is held but what the engine may say; a mark without end is not waited for."""
    marks = Marks(TOKEN)
    marks.feed(BEGIN + END)
    for _ in range(100):
        assert marks.feed(b"x" * 10_000) == b""
    assert len(marks.engine_said) == 4096
    assert len(marks._held) == 0
    marks = Marks(TOKEN)
    came = marks.feed(BEGIN + TOKEN + b" end ")
    for _ in range(100):
        came += marks.feed(b"1" * 10_000)
        assert len(marks._held) < 200
    assert came + marks.end() == TOKEN + b" end " + b"1" * 1_000_000


def test_a_token_is_not_known_beforehand() -> None:
    """128 random bits, new for each command; only its own end names it."""
    assert len({new_token() for _ in range(100)}) == 100
    marks = Marks(TOKEN)
    assert TOKEN.decode() in end(marks, 7)
    marks.feed(BEGIN)
    assert end(marks, 7)[-4:] == [TOKEN.decode(), "7", "12", "11"]


def test_a_commands_own_arguments_come_last() -> None:
    """And as they are: the shell has them as parameters, and not as text of its script."""
    argv = ["a b", "$(x)", ""]
    for own_init in (True, False):
        line = command("token", 7, "/a b", argv, own_init=own_init)
        assert line[-6:] == ["token", "7", "/a b", *argv]
        assert (line[0] == "/sbin/docker-init") is own_init
