"""Whether a run kept its contract: one verdict per promised file.

Pure: from the contract, what was collected and what `inspection` found to values. It
opens no file. Checks are functions given to `judge`; they too return values and never
raise for what a program wrote.
"""

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from isorun.core.checks import needs_a_look
from isorun.core.contract import Contract, ContractItem, Visibility
from isorun.core.outcome import Code
from isorun.runtime.collect import NOT_REGULAR, Collected, FileRecord, by_path, refusal_of
from isorun.runtime.tree import printable

MISSING_FILE = "missing_file"
EMPTY_FILE = "empty_file"
INVALID = "artifact_invalid"

State = Literal["ok", "missing", "invalid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing wrong with a promised file: a stable word, and what to do about it."""

    code: str
    hint: str


Check = Callable[[ContractItem, FileRecord], Sequence[Finding]]


def _min_bytes(item: ContractItem, file: FileRecord) -> Sequence[Finding]:
    least = item.checks.get("min_bytes", 0)
    if file.bytes >= least:
        return ()
    hint = f"{item.path} has {file.bytes} bytes, promised at least {least}"
    return (Finding(code=INVALID, hint=hint),)


def checks_with(found: Mapping[str, Sequence[Finding]]) -> tuple[Check, ...]:
    """Every check of a contract, given what the inspection *found* by path."""

    def looked_into(item: ContractItem, file: FileRecord) -> Sequence[Finding]:
        if file.path in found or not needs_a_look(item.path, item.checks):
            return found.get(file.path, ())
        # A promise that nobody checked must not be called kept.
        return (Finding(code=INVALID, hint=f"{item.path} was not looked into"),)

    return _min_bytes, looked_into


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemVerdict:
    """What became of one promise. The last three are None if there is no file."""

    path: str
    description: str
    visibility: Visibility
    state: State
    codes: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    sha256: str | None = None
    bytes: int | None = None
    mime: str | None = None


def judge(contract: Contract, collected: Collected, checks: Sequence[Check] = ()) -> tuple[ItemVerdict, ...]:
    """One verdict per item, in the contract's order. *checks* see only files that are there and not empty."""
    refusals = by_path(collected.refused)
    promised = {item.path for item in contract.items}
    strays = [path for path in collected.files if path not in promised]
    verdicts: list[ItemVerdict] = []
    for item in contract.items:
        file = collected.files.get(item.path)
        refusal = refusal_of(item.path, refusals)
        if file is not None:
            findings = _findings(item, file, checks)
            verdicts.append(_verdict(item, "invalid" if findings else "ok", findings, file))
        elif refusal is not None:
            hint = f"out/{refusal.path} {refusal.reason}"
            verdicts.append(_verdict(item, "invalid", [Finding(code=refusal.code, hint=hint)]))
        elif any(path.startswith(item.path + "/") for path in strays):
            hint = f"out/{item.path} is a directory"
            verdicts.append(_verdict(item, "invalid", [Finding(code=NOT_REGULAR, hint=hint)]))
        else:
            verdicts.append(_verdict(item, "missing", [_missing(item, strays)]))
    return tuple(verdicts)


def precedence(verdicts: Iterable[ItemVerdict]) -> Code | None:
    """The code that broken promises give a run that ended well; missing comes before invalid."""
    states = {verdict.state for verdict in verdicts}
    if "missing" in states:
        return Code.MISSING_OUTPUT_FILES
    return Code.ARTIFACT_VALIDATION_FAILED if "invalid" in states else None


def _verdict(
    item: ContractItem, state: State, findings: Sequence[Finding], file: FileRecord | None = None
) -> ItemVerdict:
    return ItemVerdict(
        path=item.path,
        description=item.description,
        visibility=item.visibility,
        state=state,
        codes=tuple(dict.fromkeys(finding.code for finding in findings)),
        hints=tuple(finding.hint for finding in findings if finding.hint),
        sha256=file.sha256 if file else None,
        bytes=file.bytes if file else None,
        mime=file.mime if file else None,
    )


def _findings(item: ContractItem, file: FileRecord, checks: Sequence[Check]) -> list[Finding]:
    if file.bytes == 0:
        return [Finding(code=EMPTY_FILE, hint=f"out/{item.path} has no bytes")]
    return [finding for check in checks for finding in check(item, file)]


def _missing(item: ContractItem, strays: Sequence[str]) -> Finding:
    nearest = min(
        (path for path in strays if _folded(_name(path)) == _folded(_name(item.path))),
        key=lambda path: _distance(path, item.path),
        default=None,
    )
    hint = f"found out/{printable(nearest)}, promised {item.path}" if nearest is not None else ""
    return Finding(code=MISSING_FILE, hint=hint)


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _folded(text: str) -> str:
    """Equal for names that people, and some disks, take for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def _distance(found: str, promised: str) -> tuple[bool, int, str]:
    """Sorts what was found: the exact name first, then the folder with most in common, then by path."""
    theirs, ours = found.split("/")[:-1], promised.split("/")[:-1]
    shared = next((n for n, (a, b) in enumerate(zip(theirs, ours, strict=False)) if _folded(a) != _folded(b)), None)
    common = min(len(theirs), len(ours)) if shared is None else shared
    return _name(found) != _name(promised), len(theirs) + len(ours) - 2 * common, found
