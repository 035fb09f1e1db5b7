"""Whether a run kept its contract: one verdict per promised file.

Pure: from the contract, what was collected and what `inspection` found to values. It
opens no file. Checks are functions given to `judge`; they too return values and never
raise for what a program wrote.
"""

from bisect import bisect_left
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from isorun.core.contract.checks import needs_a_look
from isorun.core.contract.items import Contract, ContractItem
from isorun.core.outcome import Code
from isorun.core.result import Item
from isorun.core.text import composed, file_name, folded
from isorun.store.collect import NOT_REGULAR, Collected, FileRecord, by_path, refusal_of

MISSING_FILE = "missing_file"
EMPTY_FILE = "empty_file"
INVALID = "artifact_invalid"

_LOOKED_AT = 1000  # files that nobody promised
_COMPARED = 20  # of those with one name

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


def checks_with(found: Mapping[str, Sequence[Finding]], looked_into: Container[str] | None = None) -> tuple[Check, ...]:
    """Every check of a contract, given what was *found* by path; *looked_into*: what was opened, None for all of it."""
    opened = found if looked_into is None else looked_into

    def looked(item: ContractItem, file: FileRecord) -> Sequence[Finding]:
        if file.path in opened or not needs_a_look(item.path, item.checks):
            return found.get(file.path, ())
        # A promise that nobody checked must not be called kept.
        return (*found.get(file.path, ()), Finding(code=INVALID, hint=f"{item.path} was not checked"))

    return _min_bytes, looked


def judge(contract: Contract, collected: Collected, checks: Sequence[Check] = ()) -> tuple[Item, ...]:
    """One verdict per item, in the contract's order. *checks* see only files that are there and not empty."""
    refusals = by_path(collected.refused)
    promised = {item.path for item in contract.items}
    strays = _Strays(sorted(path for path in collected.files if path not in promised))
    verdicts: list[Item] = []
    for item in contract.items:
        file = collected.files.get(item.path)
        refusal = refusal_of(item.path, refusals)
        if file is not None:
            findings = _findings(item, file, checks)
            verdicts.append(_verdict(item, "invalid" if findings else "ok", findings, file))
        elif refusal is not None:
            hint = f"out/{refusal.path} {refusal.reason}"
            verdicts.append(_verdict(item, "invalid", [Finding(code=refusal.code, hint=hint)]))
        elif strays.are_below(item.path):
            hint = f"out/{item.path} is a directory"
            verdicts.append(_verdict(item, "invalid", [Finding(code=NOT_REGULAR, hint=hint)]))
        else:
            verdicts.append(_verdict(item, "missing", [_missing(item, strays)]))
    return tuple(verdicts)


def precedence(verdicts: Iterable[Item]) -> Code | None:
    """The code that broken promises give a run that ended well; missing comes before invalid."""
    states = {verdict.state for verdict in verdicts}
    if "missing" in states:
        return Code.MISSING_OUTPUT_FILES
    return Code.ARTIFACT_VALIDATION_FAILED if "invalid" in states else None


def _verdict(item: ContractItem, state: State, findings: Sequence[Finding], file: FileRecord | None = None) -> Item:
    return Item(
        path=item.path,
        description=item.description,
        visibility=item.visibility,
        state=state,
        codes=tuple(dict.fromkeys(finding.code for finding in findings)),
        hints=tuple(dict.fromkeys(finding.hint for finding in findings if finding.hint)),
        sha256=file.sha256 if file else None,
        bytes=file.bytes if file else None,
        mime=file.mime if file else None,
    )


def _findings(item: ContractItem, file: FileRecord, checks: Sequence[Check]) -> list[Finding]:
    if file.bytes == 0:
        return [Finding(code=EMPTY_FILE, hint=f"out/{item.path} has no bytes")]
    return [finding for check in checks for finding in check(item, file)]


def _missing(item: ContractItem, strays: "_Strays") -> Finding:
    nearest = strays.nearest(item.path)
    if nearest is None:
        return Finding(code=MISSING_FILE, hint="")
    hint = f"found out/{file_name(nearest)}, promised {item.path}{_other_form(_name(nearest), _name(item.path))}"
    return Finding(code=MISSING_FILE, hint=hint)


def _other_form(found: str, promised: str) -> str:
    """What to say of two names that look the same; "" if they do not, or are one."""
    if found == promised or composed(found) != composed(promised):
        return ""
    form = "NFC" if composed(promised) == promised else "NFD"
    return f': the same name in another Unicode form, so write unicodedata.normalize("{form}", name)'


class _Strays:
    """The files that were not promised, sorted; looked through once, however many promises were broken.

    Only the first `_LOOKED_AT` of them can be the file that was meant: folding a name costs up to 0.1 ms, and a
    program can leave as many as it has inodes, all of one name but for its case.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._folders: dict[str, list[str]] = {}
        self._alike: dict[str, list[str]] | None = None  # only a run that broke a promise pays for it

    def are_below(self, path: str) -> bool:
        """Whether *path* is a folder of one of them."""
        at = bisect_left(self._paths, path + "/")
        return at < len(self._paths) and self._paths[at].startswith(path + "/")

    def nearest(self, promised: str) -> str | None:
        """The file that was probably meant by *promised*: of that name, or of a name that looks the same."""
        if self._alike is None:
            self._alike = {}
            for path in self._paths[:_LOOKED_AT]:
                self._alike.setdefault(folded(_name(path)), []).append(path)
        found = self._alike.get(folded(_name(promised)), [])
        exact = [path for path in found if _name(path) == _name(promised)]
        return min((exact or found)[:_COMPARED], key=lambda path: self._distance(path, promised), default=None)

    def _distance(self, found: str, promised: str) -> tuple[int, str]:
        """Sorts what was found: the folder with most in common first, then by path."""
        theirs, ours = self._folder(found), self._folder(promised)
        shared = next((n for n, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), None)
        common = min(len(theirs), len(ours)) if shared is None else shared
        return len(theirs) + len(ours) - 2 * common, found

    def _folder(self, path: str) -> list[str]:
        if path not in self._folders:
            self._folders[path] = folded(path.rpartition("/")[0]).split("/") if "/" in path else []
        return self._folders[path]


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]
