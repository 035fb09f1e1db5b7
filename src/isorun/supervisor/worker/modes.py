"""Where each tool of a bundle runs. Pure: it starts nothing, and does not know how a mode is carried out.

The first that names the tool decides: the operator (`ISORUN_TOOL_RUNTIME`), the bundle (`TOOL_RUNTIME`), the default,
which is a function that the host passes down.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from isorun.core.errors import InvalidRequest, Unavailable
from isorun.core.text import shown

NONE, LOCAL, LOCAL_NETWORK, DOCKER = MODES = ("none", "local", "local_network", "docker")
SETTING = "ISORUN_TOOL_RUNTIME"
SUPERVISOR_NETWORK, OWN_NETWORK, NO_SOCKETS = "supervisor's", "own", "no sockets"
IN_WORKERS = (LOCAL, LOCAL_NETWORK)


@dataclass(frozen=True, slots=True, order=True)
class WorkerKind:
    """What a worker has. `secrets`: whether it sees the bundle's variables.

    `network`: SUPERVISOR_NETWORK, the supervisor's; OWN_NETWORK, an empty network namespace; NO_SOCKETS, the same, and
    the worker can make no socket either.
    """

    network: str
    secrets: bool

    @classmethod
    def of(cls, mode: str, *, network: bool, context: bool) -> "WorkerKind":
        """For a tool in *mode*. *network*: what its mark says; *context*: whether it takes a `ToolContext`."""
        granted = OWN_NETWORK if mode == LOCAL_NETWORK else SUPERVISOR_NETWORK
        return cls(network=granted if network else NO_SOCKETS, secrets=network and context)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModePolicy:
    """What a tool's mode is decided by: the operator's modes, the default for an id, where the supervisor is."""

    operators: Mapping[str, str] = field(default_factory=dict)
    default: Callable[[str], str] = lambda _: NONE
    in_container: bool = False

    def resolve(self, bundles: Mapping[str, str], tools: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """The mode of each of *tools*, which are as `Tool.described` says. *bundles*: the descriptor's `TOOL_RUNTIME`.

        Raises `InvalidRequest` for an unknown mode or id, `Unavailable` for a mode that this host cannot provide.
        """
        for tool_id in self.operators:
            if tool_id not in tools:
                raise InvalidRequest(
                    f"{SETTING} names {shown(tool_id)}, and the bundle has no such tool; it has {', '.join(tools)}",
                    code="invalid_setting",
                )
        return {tool_id: self._resolve(tool_id, bundles, tools[tool_id]["network"]) for tool_id in tools}

    def _resolve(self, tool_id: str, bundles: Mapping[str, str], network: bool) -> str:
        source, mode = "tools_insights", self.default(tool_id)
        if tool_id in self.operators:
            source, mode = SETTING, self.operators[tool_id]
        elif tool_id in bundles:
            source, mode = "TOOL_RUNTIME", bundles[tool_id]
        elif not network and mode == NONE:
            mode = LOCAL  # a worker can be without network, the supervisor cannot
        if mode not in MODES:
            raise InvalidRequest(
                f"{source}: the mode of {tool_id} is {shown(mode)}; use one of {', '.join(MODES)}",
                code="invalid_setting" if source == SETTING else "invalid_bundle",
            )
        if mode == DOCKER and not self.in_container:
            raise Unavailable(
                f"{tool_id} is to run in a container ({source} says docker), and the tools of the embedded backend run "
                f"on this machine; use ISORUN_BACKEND=docker, or set {SETTING}={tool_id}=local"
            )
        if not network and mode not in IN_WORKERS:
            raise InvalidRequest(
                f"{tool_id} is marked network=False, and the mode {mode} ({source}) leaves it the network; use {LOCAL}",
                code="invalid_setting" if source == SETTING else "invalid_bundle",
            )
        return mode
