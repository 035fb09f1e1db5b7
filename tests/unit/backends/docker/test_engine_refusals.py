"""From the engine's words to the setting that is to be corrected."""

import pytest

from isorun.backends.docker.refusals import check_network, check_unseen, explained
from isorun.core.errors import InvalidRequest, Unavailable

_ENGINE = "container: the container ended: docker: Error response from daemon: "
_BIND = 'invalid mount config for type "bind": bind source path does not exist: '
_NAMED = {"HOST_KB_STORAGE_PATH": "/srv/kb", "HOST_BUNDLES_PATH": "/srv/bundles/mine"}


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (f"{_BIND}/srv/kb. See 'docker run --help'.", Unavailable, "/srv/kb: set HOST_KB_STORAGE_PATH"),
        (f"{_BIND}/srv/bundles/mine.\nSee 'docker run --help'.", Unavailable, "/mine: set HOST_BUNDLES_PATH"),
        (
            f"{_BIND}/data/my runs/x Run 'docker run --help'",
            Unavailable,
            "/data/my runs/x: set HOST_EXEC_WORKSPACE_PATH",
        ),
        (f"{_BIND}/data/v1\n\nRun 'docker run --help' for more", Unavailable, "/data/v1: set HOST_EXEC_WORKSPACE_PATH"),
        (f"{_BIND}/data/v1.2/x", Unavailable, "/data/v1.2/x: set HOST_EXEC_WORKSPACE_PATH"),
        ("network nonet not found.", InvalidRequest, "PY_CODE_EXEC_NETWORK_MODE=mine: the engine has no such network"),
        ("No such container: gone", InvalidRequest, "PY_CODE_EXEC_NETWORK_MODE=mine"),
        ("No such image: img:1", Unavailable, "there is no image img:1: make it with `isorun image build`"),
    ],
)
def test_the_engines_words_name_a_setting(said: str, kind: type[Exception], words: str) -> None:
    """And the exit code is that of a request or of a machine to correct, not of a failed sandbox."""
    error = explained(_ENGINE + said, "img:1", "mine", _NAMED)
    assert isinstance(error, kind)
    assert words in str(error)
    assert "docker run" not in str(error)


def test_other_words_stay_the_engines() -> None:
    """Nothing is guessed."""
    assert explained(f"{_ENGINE}OCI runtime create failed: boom", "img:1", "mine", _NAMED) is None


@pytest.mark.parametrize("network", ["host", "none", "bridge", "chat-internal", "container:chat", "n_1.x"])
def test_a_network_may_have_any_name_of_dockers(network: str) -> None:
    """Whether there is one, the engine knows."""
    check_network(network)


@pytest.mark.parametrize("network", ["host   # Supervisor needs it", "two words", "-x", "a,b", "container:"])
def test_what_can_be_no_network_is_refused_before_the_engine(network: str) -> None:
    """`docker run --env-file` keeps a comment as part of the value."""
    with pytest.raises(InvalidRequest) as caught:
        check_network(network)
    assert str(caught.value).startswith(f"PY_CODE_EXEC_NETWORK_MODE={network}: must be host, none or the name")
    assert ("remove the comment" in str(caught.value)) == ("#" in network)


def test_loopback_needs_somebody_who_counts_its_sockets() -> None:
    """Where nobody sees the container's processes; other runs do without."""
    check_unseen(loopback=False)
    with pytest.raises(
        Unavailable, match="nothing would count the sockets of a run with loopback: leave out --loopback"
    ):
        check_unseen(loopback=True)
