"""Runs attacks and their controls, and says of each whether the wall held.

Theory of operation. The attacks run one after the other in a runtime with every wall up. The control of each is the
same program where its wall is not: in a runtime of the embedded backend that leaves the wall out or has its ceilings
far away, or as a plain process of this user; or it is an honest program that must be let through. Runtimes are kept
for the attacks that share one. Only the programs of this package ever run with a wall left out.
"""

from __future__ import annotations

import functools
import os
import secrets
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from isorun.api import SyncRuntime
from isorun.backends.docker.walls import has_own_kernel
from isorun.backends.namespace.backend import NamespaceBackend, Options
from isorun.cli.attacks import artifacts, escapes, resources, tool_calls
from isorun.cli.attacks.attack import EPILOGUE, PRELUDE, WON, Attack
from isorun.core.errors import IsorunError
from isorun.core.limits import MIB, Limits
from isorun.runtime.runtime import RuntimeOptions
from isorun.testing.fake import FakeBackend
from sandbox_runner.linux.syscall_numbers import NUMBERS

if TYPE_CHECKING:
    from isorun.core.result import RunResult
    from isorun.settings import Settings

#: Small, so that an attack reaches one of them in a second.
SMALL = Limits(
    wall_s=30.0,
    memory_bytes=256 * MIB,
    processes=32,
    workspace_bytes=32 * MIB,
    workspace_inodes=500,
    file_bytes=8 * MIB,
    tmp_bytes=16 * MIB,
    shm_bytes=16 * MIB,
    open_files=256,
    log_bytes=1 * MIB,
    result_bytes=256 << 10,
    output_bytes=16 * MIB,
    grace_s=0.3,
)
#: What an attack on a ceiling gets where that ceiling is far away.
ROOMY = Limits(wall_s=30.0, processes=256, grace_s=0.3)
ATTACKS: tuple[Attack, ...] = (*escapes.ATTACKS, *resources.ATTACKS, *artifacts.ATTACKS, *tool_calls.ATTACKS)
#: Classes of attacks that there is nothing to try on.
NOTHING_TO_ATTACK = {"Service": "there is no service in this version"}
_MACHINE = os.uname().machine if hasattr(os, "uname") else ""

HELD, NOT_HELD, NOT_APPLICABLE = "held", "not held", "not applicable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What came of one attack."""

    kind: str
    attack: str
    verdict: str
    control: str  # what the control was
    reason: str = ""


class Host:
    """What attacks are aimed at: a server, a file, a process and a secret of the host's, and names to look for."""

    def __init__(self, stack: ExitStack) -> None:
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="isorun-attacks-")))
        self.folder.chmod(0o755)
        self.token = f"isorun-attack-{secrets.token_hex(8)}"
        canary = self.folder / "canary"
        canary.write_text(self.token)
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
        self.secret = secrets.token_hex(8)
        # Whose environment has it from its first moment on: what is set later, /proc does not show.
        holder = os.posix_spawn("/bin/sleep", ["sleep", "600"], {"ATTACK_CANARY": self.secret})
        stack.callback(os.waitpid, holder, 0)
        stack.callback(os.kill, holder, signal.SIGKILL)
        self._named: dict[str, object] = {
            "port": server.getsockname()[1],
            "canary": str(canary),
            "pid": holder,
            "token": self.token,
            "secret": self.secret,
        }

    def aimed(self, code: str) -> str:
        """*code* as a whole program, aimed at this host."""
        text = PRELUDE.replace("{numbers}", repr(NUMBERS.get(_MACHINE, {}))) + code + EPILOGUE
        for name, value in self._named.items():
            text = text.replace(f"{{{name}}}", str(value))
        return text

    def bundle(self) -> Path:
        """The folder of the bundle that is attacked."""
        folder = self.folder / "bundle"
        if not folder.exists():
            folder.mkdir()
            (folder / f"{tool_calls.ALIAS}.py").write_text(tool_calls.MODULE)
            entry = {"alias": tool_calls.ALIAS, "ref": f"{tool_calls.ALIAS}.py"}
            (folder / "tools_descriptor.py").write_text(f"TOOLS = [{entry!r}]\n")
        return folder

    def is_changed(self, check: str, result: RunResult) -> bool:
        """Whether *check* finds on the host what the attack wanted."""
        if check == "no process":
            return any(_commands(self.token))
        name = {"no forged result": "result.json", "no forged log": "logs/infra.log"}[check]
        return f'"status": "{self.token}"' in (text := (result.out_dir / name).read_text()) or text == self.token


def _commands(token: str) -> Iterator[str]:
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = entry.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if text.startswith(token):
            yield text


class Grounds:
    """The places where attacks run; each is made when it is first asked for and goes with the stack."""

    def __init__(self, stack: ExitStack, settings: Settings, host: Host, *, use_cgroup: bool) -> None:
        self._stack, self._settings, self._host, self._use_cgroup = stack, settings, host, use_cgroup
        self._open: dict[tuple[object, ...], SyncRuntime] = {}

    def sealed(self, *, tools: bool) -> SyncRuntime:
        """Every wall up."""
        settings = replace(self._settings, bundle=self._host.bundle() if tools else None)
        backend = settings.backend if self._use_cgroup else NamespaceBackend(self._options(()))
        return self._kept(("sealed", tools), lambda: {"settings": settings, "backend": backend, "limits": SMALL})

    @functools.cached_property
    def attacked(self) -> str:
        """The sandbox that is attacked: backend, a kernel of its own, and what holds its ceilings."""
        isolation = self.sealed(tools=False).execute("pass").isolation
        runtime = isolation["walls"].get("runtime", "")
        own = f" ({runtime})" if has_own_kernel(runtime) else ""
        return f"{isolation['backend']}{own}, {isolation['limits']}"

    def without(self, walls: Sequence[str], *, roomy: bool) -> SyncRuntime:
        """The embedded backend, with those walls left out, or with the ceilings far away."""

        settings = replace(self._settings, bundle=None, network_mode="host")
        limits = ROOMY if roomy else SMALL

        def given() -> RuntimeOptions:
            return {"settings": settings, "backend": NamespaceBackend(self._options(walls)), "limits": limits}

        return self._kept(("without", frozenset(walls), roomy), given)

    def unsealed(self) -> SyncRuntime:
        """A plain process of this user, with the same loader and not a single wall."""
        settings = replace(self._settings, bundle=None, network_mode="host")
        return self._kept(("unsealed",), lambda: {"settings": settings, "backend": FakeBackend(), "limits": ROOMY})

    def _options(self, walls: Sequence[str]) -> Options:
        parent = self._settings.cgroup_parent
        return Options(
            cgroup_parent=str(parent) if parent else None,
            use_cgroup=self._use_cgroup,
            executor_uid=self._settings.executor_uid,
            executor_gid=self._settings.executor_gid,
            without=frozenset(walls),
        )

    def _kept(self, key: tuple[object, ...], given: Callable[[], RuntimeOptions]) -> SyncRuntime:
        if key not in self._open:
            runs = self._host.folder / f"runs-{len(self._open)}"
            runs.mkdir(mode=0o700)
            options: RuntimeOptions = {**given(), "pool_size": 1, "workspace_root": runs}
            self._open[key] = self._stack.enter_context(SyncRuntime(**options))
        return self._open[key]


@contextmanager
def opened(settings: Settings, *, use_cgroup: bool = True) -> Iterator[tuple[Host, Grounds]]:
    """A host to attack, and the places to attack it from; nothing of either is left.

    Without *use_cgroup* the embedded backend holds its ceilings as where no control group can be written.
    """
    with ExitStack() as stack:
        host = Host(stack)
        yield host, Grounds(stack, settings, host, use_cgroup=use_cgroup)


def attack_all(host: Host, grounds: Grounds, tell: Callable[[Attack], None]) -> Iterator[Row]:
    """Try every attack and its control; *tell* hears of each before it begins. Raises `Unavailable`, `SetupFailed`."""
    for attack in ATTACKS:
        tell(attack)
        yield attempt(attack, host, grounds)
    for kind, reason in NOTHING_TO_ATTACK.items():
        yield Row(kind=kind, attack="–", verdict=NOT_APPLICABLE, control="–", reason=reason)


def attempt(attack: Attack, host: Host, grounds: Grounds) -> Row:
    """The verdict on one attack."""
    control = control_of(attack)

    def row(verdict: str, reason: str = "") -> Row:
        return Row(kind=attack.kind, attack=attack.name, verdict=verdict, control=control, reason=reason)

    if attack.embedded and not grounds.attacked.startswith("namespace"):
        return row(NOT_APPLICABLE, attack.embedded)
    if attack.host_kernel and has_own_kernel(grounds.attacked):
        return row(NOT_APPLICABLE, attack.host_kernel)
    runtime = grounds.sealed(tools=attack.tools is not None)
    if attack.before:
        runtime.execute(host.aimed(attack.before), timeout_s=attack.timeout_s)
    try:
        result = _run(attack, attack.code, runtime, host)
    except IsorunError:
        try:  # a busy machine or engine may fail to build one; an attack that breaks a sandbox breaks the next one too
            result = _run(attack, attack.code, runtime, host)
        except IsorunError as error:
            return row(NOT_HELD, f"the sandbox failed: {error}")
    if attack.judge(result) or any(host.is_changed(check, result) for check in attack.checks):
        return row(NOT_HELD, f"{result.status}: {WON}")
    try:
        succeeds = _control_succeeds(attack, host, grounds)
    except IsorunError as error:
        return row(HELD, f"its control could not be tried: {error}")
    if succeeds is False:
        return row(NOT_APPLICABLE, "where the wall is not, the attack fails on this machine too")
    return row(HELD, attack.no_control)


def control_of(attack: Attack) -> str:
    """What the control of *attack* is, in words."""
    words = (
        (attack.off, f"without {', '.join(attack.off)}"),
        (attack.roomy, "higher ceilings"),
        (attack.on_host, "a plain process"),
        (attack.honest, "an honest program"),
    )
    return ", ".join(text for wanted, text in words if wanted) or "none"


def _control_succeeds(attack: Attack, host: Host, grounds: Grounds) -> bool | None:
    """Whether the attack succeeds where its wall is not; None if there is no such place."""
    if attack.off or attack.roomy:
        return attack.judge(_run(attack, attack.code, grounds.without(attack.off, roomy=attack.roomy), host))
    if attack.on_host:
        return attack.judge(_run(attack, attack.code, grounds.unsealed(), host))
    if attack.honest:
        return attack.judge(_run(attack, attack.honest, grounds.sealed(tools=attack.tools is not None), host))
    return None


def _run(attack: Attack, code: str, runtime: SyncRuntime, host: Host) -> RunResult:
    result: RunResult = runtime.execute(
        host.aimed(code),
        timeout_s=attack.timeout_s,
        contract=list(attack.contract) or None,
        turn_id=1 if attack.contract else None,
        tools=list(attack.tools) if attack.tools is not None else None,
    )
    return result
