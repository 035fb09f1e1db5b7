"""`make bench` measures peers in turns with ours, and says when the machine was too busy to tell."""

import pytest

from bench import beside, monty, peers, promised
from bench.__main__ import exit_code, page
from bench.figures import Figure
from bench.fork_server import fork_server
from bench.others import MOST, Others, busy_s
from bench.pairs import Ratio, rounds


def test_a_ratio_is_that_of_the_pairs_with_its_spread() -> None:
    """A machine that is slow for two rounds changes both of each pair, and not the ratio; medians apart would."""
    ours, theirs = [1.0, 1.0, 10.0, 10.0, 1.0], [3.0, 3.0, 30.0, 30.0, 6.0]
    ratio = Ratio.of(theirs, ours)
    assert ratio == Ratio(median=3.0, low=3.0, high=3.0, pairs=5)
    shown = Ratio.of([1.0, 2.0, 3.0, 4.0], [1.0] * 4).shown("ours")
    assert shown == "2.00× ours, half of 4 pairs 1.00 to 3.00×"
    with pytest.raises(ValueError, match="shorter"):
        Ratio.of(theirs, ours[1:])


async def test_each_round_has_every_kind_once_in_an_order_of_its_own() -> None:
    """After a rest each; the first round warms both and is not counted."""
    seen: list[str] = []

    def kind(name: str):  # noqa: ANN202 - a kind of `rounds`
        async def once() -> float:
            seen.append(name)
            return float(len(seen))

        return once

    async def rest() -> None:
        seen.append("rest")

    found = await rounds({"a": kind("a"), "b": kind("b"), "c": kind("c")}, 20, rest)
    turns = [seen[at : at + 6] for at in range(0, len(seen), 6)]
    assert len(turns) == 21
    assert all(turn[::2] == ["rest"] * 3 and sorted(turn[1::2]) == ["a", "b", "c"] for turn in turns)
    assert len({tuple(turn) for turn in turns}) > 2
    assert [len(seconds) for seconds in found.values()] == [20, 20, 20]
    assert min(found["a"]) > 6


def test_what_others_take_is_read_from_the_kernel() -> None:
    """Idle processors and those that wait for a disk are not busy; time that the host's host took is."""
    stat = "cpu  100 10 50 9000 500 5 5 30 70 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n"
    assert busy_s(stat, 100) == 2.0


@pytest.mark.parametrize(
    ("busy_s", "own_s", "share"),
    [(1.0, 1.0, 0.0), (0.99, 1.0, 0.0), (1.2, 1.0, 0.1), (2.0, 1.0, 0.5), (2.0, 0.5, 0.75)],
)
def test_others_have_what_is_busy_without_us(busy_s: float, own_s: float, share: float) -> None:
    """Of two processors, for a second."""
    others = Others()
    others.add(busy_s, own_s, 1.0, 2)
    assert others.share == pytest.approx(share)
    assert others.are_busy == (share > MOST)


def test_a_look_counts_this_machine() -> None:
    """It ends, and what it finds is a share; without one there is nothing to say."""
    others = Others()
    assert (others.share, others.are_busy) == (0.0, False)
    others.look()
    assert 0.0 <= others.share <= 1.05  # the kernel counts hundredths


def _others(share: float) -> Others:
    others = Others()
    others.add(2 * share, 0.0, 1.0, 2)
    return others


def _figure(ok: bool | None) -> Figure:
    return Figure(name="f", value="v", gate="" if ok is None else "g", ok=ok, raw={})


@pytest.mark.parametrize(
    ("oks", "share", "code"),
    [([True, None], 0.02, 0), ([True, False], 0.02, 1), ([True, False], 0.5, 3), ([True, None], 0.5, 0)],
)
def test_the_exit_code_tells_a_missed_gate_from_a_busy_machine(oks: list[bool | None], share: float, code: int) -> None:
    """A gate that is met beside others is met all the same: they make nothing quicker."""
    assert exit_code([_figure(ok) for ok in oks], _others(share)) == code


@pytest.mark.parametrize(
    ("share", "said", "met"),
    [
        (0.02, "took 2 % of the processors; above 10 % the machine would have been too busy to tell.", "**no**"),
        (0.5, "took 50 % of the processors, more than 10 %: the machine was too busy to tell.", "too busy to tell"),
    ],
)
def test_the_page_says_whether_the_machine_was_quiet(share: float, said: str, met: str) -> None:
    """In a sentence, and in the row of each gate that was not met."""
    about = {"cores": 2, "kernel": "k", "python": "p", "load_before": [0.1]}
    walls = {"level": "full", "limits": "cgroup-v2", "walls": {"landlock_abi": 5, "seccomp": {"filters": 1}}}
    text = page([_figure(False), _figure(True), _figure(None)], walls, about, _others(share))
    assert said in text
    assert f"| f | v | g | {met} |\n| f | v | g | yes |\n| f | v |  |  |" in text


async def test_the_fork_server_runs_the_program_of_its_peers() -> None:
    """In a child of an interpreter that stays; a program that fails is no figure."""
    async with fork_server(peers.HELLO) as once:
        assert 0 < await once() < 20
        assert 0 < await once() < 20
    async with fork_server("raise SystemExit(3)") as once:
        with pytest.raises(SystemExit, match="a peer failed: the fork server said"):
            await once()


def test_a_gate_of_a_peer_may_be_for_either_side() -> None:
    """Most peers have to be slower than ours, a bare fork only a little quicker."""
    slower = beside.figure(beside.Peer(name="s", least=3), [0.03], [0.01])
    quicker = beside.figure(beside.Peer(name="q", most=1.4), [0.01], [0.013])
    late = beside.figure(beside.Peer(name="q", most=1.4), [0.01], [0.02])
    assert (slower.ok, quicker.ok, late.ok) == (True, True, False)
    assert slower.value == "p50 30.00 ms, p99 30.00 ms (3.00× ours, half of 1 pairs 3.00 to 3.00×)"
    assert quicker.value == "p50 10.00 ms, p99 10.00 ms (ours takes 1.30× as long, half of 1 pairs 1.30 to 1.30×)"
    assert (slower.gate, quicker.gate) == ("ours ≥ 3× faster", "ours ≤ 1.4×")


@pytest.mark.timeout(300)  # 16 slots are built twice, and 128 runs started
async def test_whole_runs_are_measured_with_their_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row has its figure; what is not installed says so, and is not judged."""
    monkeypatch.setattr(peers, "docker_is_there", lambda: False)
    monkeypatch.setattr(peers, "sandlock_is_there", lambda: False)
    monkeypatch.setattr(monty, "find_spec", lambda name: None)
    found = [*await promised.checked(1), await promised.burst(1), *await beside.figures(1), *await monty.figures(1)]
    assert {figure.name: figure.gate for figure in found} == {
        "whole `execute`, csv file under contract, which an inspector opens, paced": "p50 ≤ 10 ms",
        "whole `execute`, json file under contract, which an inspector opens, paced": "p50 ≤ 10 ms",
        "128 runs at once, pool of 4: until the last one has ended well": "≤ 2 s",
        "peer: warm fork server, no walls": "ours ≤ 1.4×",
        "peer: plain subprocess `python -I -c`, no walls": "",
        "peer: cold Python in bubblewrap": "ours ≥ 3× faster",
        "peer: cold Python in sandlock": "",
        monty.NAME: "",
    }
    missing = [figure.value for figure in found if not figure.raw]
    assert missing == ["not here: pip install sandlock", "not here: pip install pydantic-monty"]
    assert all((figure.ok is None) == (figure.gate == "") for figure in found)
