"""Which tool runs where: the operator's word, the bundle's, the default; and what is refused, in which words."""

from collections.abc import Mapping

import pytest

from isorun.core.errors import InvalidRequest, IsorunError, Unavailable
from isorun.supervisor.worker.modes import MODES, NO_SOCKETS, OWN_NETWORK, SUPERVISOR_NETWORK, ModePolicy, WorkerKind
from isorun.tools import tools_insights

TOOLS = {"x.f": {"network": True}, "x.g": {"network": True}, "x.sealed": {"network": False}}


@pytest.mark.parametrize(
    ("operators", "bundles", "default", "mode"),
    [
        ({}, {}, "none", "none"),
        ({}, {}, "local", "local"),
        ({}, {"x.f": "none"}, "local", "none"),
        ({}, {"x.f": "local_network"}, "none", "local_network"),
        ({"x.f": "local"}, {"x.f": "none"}, "none", "local"),
        ({"x.f": "none"}, {"x.f": "local"}, "local", "none"),
        ({"x.g": "local"}, {}, "none", "none"),
    ],
)
def test_the_strongest_word_counts(
    operators: Mapping[str, str], bundles: Mapping[str, str], default: str, mode: str
) -> None:
    """The operator's, then the bundle's, then the default's, for each tool by itself."""
    policy = ModePolicy(operators=operators, default=lambda _: default)
    assert policy.resolve(bundles, TOOLS)["x.f"] == mode


def test_a_tool_that_needs_no_network_gets_a_process_where_that_can_be_had() -> None:
    """Unless a mode is named: then it is taken, or refused."""
    assert ModePolicy().resolve({}, TOOLS) == {"x.f": "none", "x.g": "none", "x.sealed": "local"}
    assert ModePolicy().resolve({"x.sealed": "local_network"}, TOOLS)["x.sealed"] == "local_network"


def test_docker_is_where_the_supervisor_is_in_a_container() -> None:
    """And nowhere else: it is never replaced by another mode."""
    assert ModePolicy(in_container=True).resolve({"x.f": "docker"}, TOOLS)["x.f"] == "docker"


REFUSED: dict[str, tuple[ModePolicy, Mapping[str, str], type[IsorunError], str]] = {
    "an unknown id": (
        ModePolicy(operators={"x.h": "local"}),
        {},
        InvalidRequest,
        "ISORUN_TOOL_RUNTIME names 'x.h', and the bundle has no such tool; it has x.f, x.g, x.sealed",
    ),
    "an unknown mode of the operator's": (
        ModePolicy(operators={"x.f": "thread"}),
        {},
        InvalidRequest,
        "ISORUN_TOOL_RUNTIME: the mode of x.f is 'thread'; use one of none, local, local_network, docker",
    ),
    "an unknown default": (
        ModePolicy(default=lambda _: "thread"),
        {},
        InvalidRequest,
        "tools_insights: the mode of x.f is 'thread'; use one of none, local, local_network, docker",
    ),
    "a container on the embedded backend": (
        ModePolicy(),
        {"x.f": "docker"},
        Unavailable,
        "x.f is to run in a container (TOOL_RUNTIME says docker), and the tools of the embedded backend run on this "
        "machine; use ISORUN_BACKEND=docker, or set ISORUN_TOOL_RUNTIME=x.f=local; run `isorun doctor`",
    ),
    "a mode that leaves the network": (
        ModePolicy(),
        {"x.sealed": "none"},
        InvalidRequest,
        "x.sealed is marked network=False, and the mode none (TOOL_RUNTIME) leaves it the network; use local",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_mode_that_cannot_be_had_is_refused_with_the_remedy(case: str) -> None:
    """The text names the tool, who said so, and what to say instead."""
    policy, bundles, error, text = REFUSED[case]
    with pytest.raises(error) as raised:
        policy.resolve(bundles, TOOLS)
    assert str(raised.value) == text


@pytest.mark.parametrize(
    ("mode", "network", "context", "kind"),
    [
        ("local", True, True, WorkerKind(SUPERVISOR_NETWORK, True)),
        ("local", True, False, WorkerKind(SUPERVISOR_NETWORK, False)),
        ("local_network", True, True, WorkerKind(OWN_NETWORK, True)),
        ("local", False, True, WorkerKind(NO_SOCKETS, False)),
        ("local_network", False, True, WorkerKind(NO_SOCKETS, False)),
    ],
)
def test_secrets_are_for_tools_that_are_handed_them(mode: str, network: bool, context: bool, kind: WorkerKind) -> None:
    """Without a ToolContext, or without a network, a worker sees none of the operator's variables."""
    assert WorkerKind.of(mode, network=network, context=context) == kind


WRITERS = ("write_pdf", "write_pptx", "write_docx", "write_html", "write_png", "write_xlsx", "write_file")
WEB = ("web_search", "fetch_url_contents", "web_fetch")


def test_by_default_web_and_write_tools_have_a_process_of_their_own() -> None:
    """They and no other, and none of another alias."""
    for name in (*WRITERS, *WEB):
        assert tools_insights.tool_isolation(f"generic_tools.{name}") == "local"
        assert tools_insights.tool_isolation(f"other.{name}") == "none"
        assert tools_insights.is_write_tool(f"generic_tools.{name}") == (name in WRITERS)
        assert tools_insights.is_search_tool(f"generic_tools.{name}") == (name == "web_search")
        assert tools_insights.is_fetch_uri_content_tool(f"generic_tools.{name}") == (name in WEB[1:])
    assert tools_insights.tool_isolation("generic_tools.other") == "none"
    assert tools_insights.tool_isolation("generic_tools") == "none"
    assert not tools_insights.CUSTOM_ISOLATED
    assert set(MODES) == {"none", "local", "local_network", "docker"}


def test_one_line_moves_a_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name in `CUSTOM_ISOLATED`, or another answer of `should_isolate_in_docker`."""
    monkeypatch.setattr(tools_insights, "CUSTOM_ISOLATED", {"my_tools.my_heavy_tool"})
    assert tools_insights.tool_isolation("my_tools.my_heavy_tool") == "local"
    assert tools_insights.should_isolate_tool_execution("my_tools.my_heavy_tool")
    assert tools_insights.tool_isolation("my_tools.light") == "none"
    monkeypatch.setattr(tools_insights, "should_isolate_in_docker", lambda tool_id: tool_id == "my_tools.light")
    assert tools_insights.tool_isolation("my_tools.light") == "docker"
    assert tools_insights.should_isolate_tool_execution("my_tools.light")
