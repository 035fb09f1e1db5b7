"""deployment/cicd/local: the compose file has the names that people know, no secret, and every value is explained."""

import re
from typing import Any

import pytest
import yaml

from isorun.settings import _RULES, Settings
from tests.docs.pages import ROOT

pytestmark = pytest.mark.any_user
LOCAL = ROOT / "deployment" / "cicd" / "local"
TEXT = (LOCAL / "docker-compose.yml").read_text(encoding="utf-8")
EXAMPLE = (LOCAL / ".env.backend.example").read_text(encoding="utf-8")
#: Of Compose alone, and of no setting of isorun.
COMPOSES = {"CHAT_PORT", "AWS_CONFIG_FOLDER", "CHAT_IMAGE", "REDIS_IMAGE", "POSTGRES_IMAGE", "BASE_IMAGE"}
#: A value that Compose fills in: its name, how it is filled in if it is empty, and with what.
_FILLED = re.compile(r"(?<!\$)\$\{(\w+)(?:(:[-?])([^}]*))?\}")


@pytest.fixture(scope="module")
def file() -> dict[str, Any]:
    """The compose file with every value filled in as if nothing were set."""
    return yaml.safe_load(_FILLED.sub(lambda found: found[3] or "", TEXT))


def assigned(text: str) -> dict[str, str]:
    """The variables of an env file, comments among them that would be variables."""
    return dict(re.findall(r"^(?:# )?([A-Z][A-Z0-9_]*)=(.*)$", text, re.MULTILINE))


def test_the_services_have_the_names_of_the_older_guide(file) -> None:
    """Services, images, the container, the network and the volumes."""
    services = file["services"]
    assert list(services) == ["chat", "redis", "postgres-db"]
    images = {name: service["image"] for name, service in services.items()}
    assert images == {"chat": "chat-chat:latest", "redis": "redis:7", "postgres-db": "postgres:16"}
    assert services["chat"]["container_name"] == "chat-chat"
    assert all(service["networks"] == ["chat-internal"] for service in services.values())
    assert file["networks"] == {"chat-internal": {"name": "chat-internal", "driver": "bridge"}}
    assert list(file["volumes"]) == ["redis-data", "postgres-data"]


def test_the_chat_service_is_built_and_started_as_the_older_guide_has_it(file) -> None:
    """Its context is the checkout; the env file may be missing; Redis and PostgreSQL come first."""
    chat = file["services"]["chat"]
    assert (LOCAL / chat["build"]["context"]).resolve() == ROOT
    assert (ROOT / chat["build"]["dockerfile"]).name == "Dockerfile_Chat"
    assert (ROOT / chat["build"]["dockerfile"]).is_file()
    assert chat["env_file"] == [{"path": "./.env.backend", "required": False}]
    assert {name: chat["environment"][name] for name in ("REDIS_HOST", "POSTGRES_HOST")} == {
        "REDIS_HOST": "redis",
        "POSTGRES_HOST": "postgres-db",
    }
    assert list(chat["depends_on"]) == ["redis", "postgres-db"]


def test_the_mounts_are_those_of_the_older_guide(file) -> None:
    """The engine's socket, three folders beside the file, the bundles, and AWS credentials if somebody names them."""
    assert file["services"]["chat"]["volumes"] == [
        "/var/run/docker.sock:/var/run/docker.sock",
        "./kdcube-storage:/kdcube-storage",
        "./exec-workspace:/exec-workspace",
        "./logs/chat:/logs",
        "../../../examples/bundles:/bundles",
        "./no-aws:/home/appuser/.aws:ro",
    ]
    assert "${SITE_AGENTIC_BUNDLES_ROOT:-../../../examples/bundles}:${AGENTIC_BUNDLES_ROOT:-/bundles}" in TEXT
    assert (LOCAL / "../../../examples/bundles/with-isoruntime/tools_descriptor.py").is_file()
    assert file["services"]["redis"]["volumes"] == ["redis-data:/data"]
    assert file["services"]["postgres-db"]["volumes"] == ["postgres-data:/var/lib/postgresql/data"]


def test_nobody_outside_this_machine_reaches_a_port(file) -> None:
    """The page is at the loopback alone; Redis and PostgreSQL are in their network only."""
    ports = {name: service.get("ports", []) for name, service in file["services"].items()}
    assert ports == {"chat": ["127.0.0.1:8000:8000"], "redis": [], "postgres-db": []}


def test_every_service_says_whether_it_is_well_and_has_a_bounded_log(file) -> None:
    """What waits for another waits for its health check, and no log fills the disk."""
    for service in file["services"].values():
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    waits = file["services"]["chat"]["depends_on"]
    assert {one["condition"] for one in waits.values()} == {"service_healthy"}


def test_no_secret_is_in_the_file_and_an_empty_password_is_refused() -> None:
    """What is secret has no default: Compose refuses to start without a password, and says where it belongs."""
    secret = {name for rule in _RULES.values() if rule.mask is not str for name in rule.names}
    filled = {name: (how, text) for name, how, text in _FILLED.findall(TEXT)}
    assert filled.keys() & secret == {"POSTGRES_PASSWORD"}
    how, said = filled["POSTGRES_PASSWORD"]
    assert how == ":?"
    assert ".env.backend" in said
    given = [
        (name, value) for name, value in re.findall(r"^ +([A-Z_]+): (\S.*)$", TEXT, re.MULTILINE) if name in secret
    ]
    assert given == [("POSTGRES_PASSWORD", f'"${{POSTGRES_PASSWORD:?{said}}}"')]


def test_every_value_is_in_the_example_and_explained() -> None:
    """Each has a comment above it, names a setting or something of Compose's, and no secret has a value."""
    filled = {name for name, *_ in _FILLED.findall(TEXT)}
    told = assigned(EXAMPLE)
    assert filled <= told.keys()
    names = {name for rule in _RULES.values() for name in rule.names}
    assert told.keys() - names == COMPOSES
    assert {name: told[name] for name in told if name in names and _mask(name) is not str and told[name]} == {}
    assert [name for name in told if not explained(name)] == []


def explained(name: str) -> bool:
    """Whether the paragraph of *name* has a sentence above it; a heading is none."""
    (block,) = (part for part in EXAMPLE.split("\n\n") if re.search(rf"^(# )?{name}=", part, re.MULTILINE))
    above = re.split(rf"^(?:# )?{name}=", block, maxsplit=1, flags=re.MULTILINE)[0]
    return re.search(r"^# (?!===)[^=\n]*[.:]$", above, re.MULTILINE) is not None


def _mask(name: str) -> object:
    return next(rule.mask for rule in _RULES.values() if name in rule.names)


def test_the_example_gives_what_the_settings_take(tmp_path) -> None:
    """Read as a file of settings, with a password, it is a deployment that can start."""
    file = tmp_path / ".env.backend"
    file.write_text(EXAMPLE.replace("POSTGRES_PASSWORD=", "POSTGRES_PASSWORD=hush"))
    file.chmod(0o600)
    found = Settings.load(env_file=file, environ={})
    assert (found.postgres_password, found.postgres_user, found.network_mode) == ("hush", "isorun", "chat-internal")
    assert (found.model_url, found.host_workspace_path, found.site_bundles_root) == (None, None, None)


def test_the_examples_defaults_are_the_files() -> None:
    """A value in the example is the one that Compose takes without it, where it has one."""
    told = assigned(EXAMPLE)
    defaults = {name: text for name, how, text in _FILLED.findall(TEXT) if how == ":-"}
    assert {name: told[name] for name in defaults if told[name] not in ("", defaults[name])} == {}
