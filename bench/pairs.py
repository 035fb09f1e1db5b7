"""Ours and its peers in turns, so that what slows the machine for a moment slows both, and is no difference."""

import math
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

Once = Callable[[], Awaitable[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """How many times as long one took as the other, by pairs: the median, and the quartiles around it."""

    median: float
    low: float
    high: float
    pairs: int

    @classmethod
    def of(cls, above: list[float], below: list[float]) -> "Ratio":
        """That of *above* to *below*, which were measured in the same rounds; at least one."""
        ordered = sorted(a / b for a, b in zip(above, below, strict=True))

        def at(share: float) -> float:
            return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]

        return cls(median=at(0.5), low=at(0.25), high=at(0.75), pairs=len(ordered))

    def shown(self, than: str) -> str:
        """For the table; *than*: what is measured against."""
        return f"{self.median:.2f}× {than}, half of {self.pairs} pairs {self.low:.2f} to {self.high:.2f}×"

    def raw(self) -> dict[str, float]:
        """As JSON."""
        return {name: round(getattr(self, name), 3) for name in ("median", "low", "high", "pairs")}


async def rounds(
    kinds: Mapping[str, Once], count: int, rest: Callable[[], Awaitable[None]], seed: int = 0
) -> dict[str, list[float]]:
    """*count* rounds of seconds, by the name of the kind: each once a round, in random order, after *rest*.

    One more round comes first and is not counted.
    """
    order, shuffle = list(kinds), random.Random(seed).shuffle
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(count + 1):
        shuffle(order)
        for name in order:
            await rest()
            seconds = await kinds[name]()
            if number:
                found[name].append(seconds)
    return found
