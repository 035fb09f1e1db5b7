"""What a scenario is, and the comparison of what was expected with what was seen.

It must not know any scenario: the table is in exec.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from isorun.core.result import RunResult

Mode = Literal["contract", "side effects"]
NOTE = "local_tools.write_note"
_IMPLIED = ("program_error", "timeout", "out_of_memory")  # by the status; compared all the same
ESCAPED = "GOT "  # begins what a program prints that got out of its walls


@dataclass(frozen=True, kw_only=True)
class Expected:
    """How a run must end. Counts are exact; `says` must be in user.log; `because` in the error."""

    status: str
    code: str | None = None
    succeeded: int = 0
    missing: int = 0
    created: int = 0
    notes: int = 0
    comm_error: bool | None = False  # None: if and only if a MemoryError ended it
    says: tuple[str, ...] = ()
    because: str = ""
    item_codes: tuple[str, ...] = ()
    calls: tuple[tuple[str, str], ...] = ()  # tool and status of each call, in order
    synced: bool = True

    def __str__(self) -> str:
        """The verdict in a few words, as the tables show it."""
        words = [self.status if self.code in (None, *_IMPLIED) else f"{self.status} · {self.code}"]
        counts = {"succeeded": self.succeeded, "missing": self.missing, "created": self.created, "note": self.notes}
        words += [f"{count} {name}" for name, count in counts.items() if count]
        words += {True: ["comm.error"], False: [], None: ["comm.error if MemoryError"]}[self.comm_error]
        return ", ".join(words)


@dataclass(frozen=True, kw_only=True)
class OnOwnKernel:
    """How a run may end besides, where programs run on a kernel of their own (gVisor), and why its walls hold there."""

    endings: tuple[Expected, ...]
    why: str


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One program. *promises* are names below turn_<id>/files/, *checks* what each must hold beside being there.

    *tools* is what it is granted.
    """

    number: int
    title: str
    program: str
    expected: Expected
    promises: tuple[str, ...] = ("hello-iso-runtime.txt",)
    mode: Mode = "contract"
    timeout_s: float = 10.0
    tools: tuple[str, ...] = (NOTE,)
    checks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    on_own_kernel: OnOwnKernel | None = None

    def contract(self, turn: str) -> list[dict[str, Any]]:
        """The promise for the turn folder *turn*."""
        about = {"description": f"Output of {self.title}"}
        return [{"filename": f"{turn}/files/{name}", **about, **self.checks.get(name, {})} for name in self.promises]

    @property
    def followup(self) -> str:
        """What a user clicks to run it."""
        return f"{self.number}. {self.title}"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a run of a scenario was seen to do, beside its result."""

    result: RunResult
    user_log: str
    notes: int
    comm_error: bool
    synced: bool

    def __str__(self) -> str:
        """The real verdict, in the words of `Expected`."""
        return str(Expected(**self.facts()))

    @property
    def has_own_kernel(self) -> bool:
        """Whether the program ran on another kernel than the host's, by what was read back of its walls."""
        return self.result.isolation.get("walls", {}).get("runtime", "runc") not in ("runc", "crun")

    def facts(self) -> dict[str, Any]:
        """What can be compared with `Expected`, by its names."""
        result = self.result
        return {
            "status": str(result.status),
            "code": str(result.error.code) if result.error else None,
            "succeeded": len(result.succeeded),
            "missing": len(result.missing),
            "created": len((result.workspace_diff or {}).get("created", ())),
            "notes": self.notes,
            "comm_error": self.comm_error,
            "item_codes": tuple(code for item in result.items for code in item.codes if item.state == "invalid"),
            "calls": tuple((call["tool_id"], call["status"]) for call in result.tool_calls),
            "synced": self.synced,
        }


def wrong_with(scenario: Scenario, seen: Seen) -> tuple[str, ...]:
    """Every way in which a run was not as its scenario says; nothing, if it was, or if it is known why not."""
    return () if known_ending(scenario, seen) else _wrong_with(scenario.expected, seen)


def known_ending(scenario: Scenario, seen: Seen) -> str:
    """Why a run may have ended otherwise than its scenario says, where every wall held all the same; else ""."""
    known = scenario.on_own_kernel
    if known is None or not seen.has_own_kernel or not _wrong_with(scenario.expected, seen):
        return ""
    return known.why if any(not _wrong_with(ending, seen) for ending in known.endings) else ""


def _wrong_with(expected: Expected, seen: Seen) -> tuple[str, ...]:
    facts = seen.facts()
    wanted = {name: getattr(expected, name) for name in facts}
    if expected.comm_error is None:
        wanted["comm_error"] = "MemoryError" in seen.user_log
    wrong = [f"{name}: expected {wanted[name]!r}, got {facts[name]!r}" for name in facts if wanted[name] != facts[name]]
    wrong += [f"user.log should hold {text!r}" for text in expected.says if text not in seen.user_log]
    error = seen.result.error
    if expected.because not in (f"{error.message} {error.hint}" if error else ""):
        wrong.append(f"the error should say {expected.because!r}")
    if any(line.startswith(ESCAPED) for line in seen.user_log.splitlines()):
        wrong.append("the program got out")
    if seen.result.isolation.get("level") != "full":
        wrong.append(f"isolation is {seen.result.isolation.get('level')}")
    return tuple(wrong)
