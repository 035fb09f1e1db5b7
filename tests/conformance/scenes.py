"""The example bundle for tests: its modules, a `comm` that keeps what it is told, and settings of no machine."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import isorun
from isorun.core.request import RunRequest
from isorun.runtime.accepted.handle import Run
from isorun.tools.bundles import bundle_module, example_bundle
from isorun.tools.workspace import Workspaces
from tests.docker.conftest import TAG

BUNDLE = example_bundle()
WORKFLOW = bundle_module(BUNDLE, "workflow")
SCENARIOS = bundle_module(BUNDLE, "exec").SCENARIOS
VERDICTS = bundle_module(BUNDLE, "verdicts")


@dataclass
class Heard:
    """Everything that a workflow told its user."""

    said: list[str] = field(default_factory=list)
    followups: list[str] = field(default_factory=list)
    printed: bytes = b""
    errors: list[dict[str, Any]] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.said.append(text)

    async def started(self, run: Run, request: RunRequest) -> None:
        """Its output is shown as it comes."""

    def suggest(self, followups: Sequence[str]) -> None:
        self.followups = list(followups)

    def output(self, stream: str, data: bytes) -> None:
        self.printed += data

    def error(self, *, message: str, **details: object) -> None:
        self.errors.append({"message": message, **details})


def settings_below(root: Path) -> isorun.Settings:
    """Settings that read nothing of this machine, with every root below *root*."""
    return replace(
        isorun.Settings(),
        image=TAG,
        workspace_root=root / "runs",
        user_workspace_root=root / "workspace",
        sandbox_root=root / "sandbox",
    )


def spaces_below(root: Path) -> Workspaces:
    return Workspaces.of(settings_below(root))


def files_below(folder: Path) -> list[str]:
    """Every file below *folder*, by POSIX path, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
