"""`.pyi` files of a bundle's tools: a type checker finds a wrong keyword and a wrong type in a program."""

import ast
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import pytest

from isorun.supervisor.registry import own_tool
from isorun.tools.stubs import stubs


@dataclass
class Order:
    """What is bought."""

    item: str
    day: date
    tags: list[str] = field(default_factory=list)


async def sell(order: Order, how: Literal["card", "cash"] = "card", number: UUID | None = None) -> list[Order]:
    r'''Sell it, "as it is".

    Args:
        order: What; with a \ and """three marks"""
        how: What is given for it.
    '''
    return [order] if how or number else []


def time() -> dict[str, Any]:
    """Tell the time, which is no `datetime.time` here."""
    return {}


RIGHT = """
from shop import sell, time

async def program() -> str:
    orders = await sell(order={"item": "tea", "day": "2026-01-01"}, how="cash")
    again = sell.sync(order={"item": "tea", "day": "2026-01-01", "tags": ["a"]})
    return orders[0]["item"] + again[0]["item"] + str(time.sync())
"""
#: A program's mistake, and what is said of it.
WRONG = {
    "await sell(oder={})": 'Unexpected keyword argument "oder"',
    "await sell()": 'Missing named argument "order"',
    "await sell(order={'item': 1, 'day': 'x'})": "Incompatible types",
    "await sell(order={'item': 'tea', 'day': 'x'}, how='gold')": 'Argument "how"',
    "sell.sync(order={'item': 'tea', 'day': 'x'})[0]['price']": 'has no key "price"',
    "await time(zone='x')": 'Unexpected keyword argument "zone"',
}


def described() -> Mapping[str, Mapping[str, Any]]:
    """The two tools above, as a Runtime describes them."""
    return {f"shop.{one.__name__}": own_tool(f"shop.{one.__name__}", one).described() for one in (sell, time)}


def checked(folder: Path) -> str:
    """What mypy says of the programs in *folder*."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--cache-dir",
            str(folder / "cache"),
            "--config-file",
            "",
            "program.py",
        ],
        cwd=folder,
        env={"MYPYPATH": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_type_checker_follows_them(tmp_path: Path) -> None:
    """A right program has no error; each mistake has its own, on its line, and no other."""
    (module,) = stubs(described()).items()
    (tmp_path / f"{module[0]}.pyi").write_text(module[1])
    lines = [f"    {line}" for line in WRONG]
    (tmp_path / "program.py").write_text(RIGHT + "\nasync def wrong() -> None:\n" + "\n".join(lines) + "\n")
    first = len((RIGHT + "\nasync def wrong() -> None:\n").splitlines()) + 1
    said = checked(tmp_path)
    found = {int(line.split(":")[1]): line for line in said.splitlines() if ": error:" in line}
    assert sorted(found) == list(range(first, first + len(WRONG))), said
    for number, wanted in enumerate(WRONG.values(), start=first):
        assert wanted in found[number], found[number]


@pytest.mark.parametrize("text", ['ends with a "', "ends with a \\", 'has """ in it', "has \\N in it", "is\n\nlong"])
def test_whatever_a_docstring_holds(text: str) -> None:
    """The file can be read, and the text is what was written."""

    def told() -> None: ...

    told.__doc__ = text
    module = ast.parse(stubs({"a.told": own_tool("a.told", told).described()})["a"])
    docstrings = [ast.get_docstring(node) for node in ast.walk(module) if isinstance(node, ast.AsyncFunctionDef)]
    assert [" ".join((one or "").split()) for one in docstrings] == [" ".join(text.split())]
