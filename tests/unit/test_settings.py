"""SPEC A6: where settings come from, which name wins, and that no secret gets out.

Longer than 400 lines because A6 names some fifty settings and each has its row.
"""

import dataclasses
import logging
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import isorun
from isorun import env_file
from isorun import settings as settings_module
from isorun.core.errors import InvalidRequest
from isorun.core.limits import Limits
from isorun.core.quantity import bytes_of
from isorun.settings import (
    SettingRow,
    Settings,
    get_exec_workspace_root,
    in_container,
    supervisor_environment,
)

# The assignments of an operations guide's .env.backend, with comments where it has them.
SEED_BARE_METAL = """\
# AWS
AWS_REGION=us-east-1
AWS_DEFAULT_REGION=us-east-1
AWS_ACCESS_KEY_ID=AKIA...           # key
AWS_SECRET_ACCESS_KEY=xxx...         # secret

PY_CODE_EXEC_IMAGE=py-code-exec:latest
PY_CODE_EXEC_TIMEOUT=600             # 10 minutes
PY_CODE_EXEC_NETWORK_MODE=host       # network
"""
SEED_IN_DOCKER = """\
HOST_KB_STORAGE_PATH=/Users/yourname/project/deployment/cicd/local/kdcube-storage
HOST_BUNDLES_PATH=/Users/yourname/project/bundles
HOST_EXEC_WORKSPACE_PATH=/Users/yourname/project/deployment/cicd/local/exec-workspace
# HOST_BUNDLES_PATH=/home/deploy/bundles
SITE_AGENTIC_BUNDLES_ROOT=/Users/yourname/project/bundles  # host
AGENTIC_BUNDLES_ROOT=/bundles                                # container
# NO_PROXY=169.254.169.254,localhost,127.0.0.1
"""


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings_module._warn_once.cache_clear()  # as in a new process


def rows(settings: Settings) -> dict[str, SettingRow]:
    return {row.name: row for row in settings.rows()}


SIZE = "a size such as 256M or 1.5G, or a whole number of bytes, above 0"
TIME = "a time such as 500ms, 90s, 10m or 1h, or a number of seconds, above 0"


def refused(env: dict[str, str]) -> str:
    with pytest.raises(InvalidRequest) as caught:
        Settings.load(environ=env)
    assert caught.value.code == "invalid_setting"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    return str(caught.value)


def test_modes_of_tools_are_pairs() -> None:
    """Each tool once; which tools and modes there are is for the bundle to say."""
    settings = Settings.load(environ={"ISORUN_TOOL_RUNTIME": " a.b=local, a.c=none,"})
    assert settings.tool_modes() == {"a.b": "local", "a.c": "none"}
    for text in ("a.b", "a=local", "a.b=", "=local", "a.b=local,a.b=none", "a.b=local x.y=none", "a.b=LOCAL"):
        assert "must be pairs such as files.convert=local" in refused({"ISORUN_TOOL_RUNTIME": text})


def test_the_defaults_are_those_of_the_documents() -> None:
    """With nothing set every value is the documented default, and each row says so."""
    settings = Settings.load(environ={})
    assert settings == Settings()
    assert settings.limits() == Limits()
    values = {row.name: row.value for row in settings.rows() if row.value is not None}
    limits = {f"ISORUN_MAX_{name.upper()}": str(value) for name, value in dataclasses.asdict(Limits()).items()}
    assert values == limits | {
        "ISORUN_USER_RUNS_AT_ONCE": "8",
        "ISORUN_USER_RUNS_PER_DAY": "10000",
        "ISORUN_USER_BYTES": str(2 << 30),
        "ISORUN_BACKEND": "auto",
        "ISORUN_PRELOAD": "",
        "ISORUN_TOOL_ENV": "",
        "ISORUN_TOOL_RUNTIME": "",
        "ISORUN_BUILTIN_TOOLS": "0",
        "ISORUN_SEARCH_PROVIDERS": "",
        "ISORUN_POOL_SIZE": "4",
        "ISORUN_ZYGOTE_RUNS": "1000",
        "ISORUN_RETENTION_HOURS": "168.0",
        "ISORUN_ALLOW_LOOPBACK": "1",
        "ISORUN_SESSION_RETENTION_HOURS": "720.0",
        "ISORUN_ADVERTISE_SIDE_EFFECT_TOOL": "0",
        "ISORUN_EXECUTOR_UID": "1001",
        "ISORUN_EXECUTOR_GID": "1000",
        "ISORUN_USER_LOG_MODE": "include_logging",
        "ISORUN_TRACEBACK_REMAP": "1",
        "ISORUN_KEEP_VALUE": "1",
        "ISORUN_SAVE_FIGURES": "1",
        "ISORUN_IMAGE": "py-code-exec:latest",
        "ISORUN_NETWORK_MODE": "host",
        "ISORUN_BUNDLES_ROOT": "/bundles",
        "ISORUN_REDIS_PORT": "6379",
        "ISORUN_POSTGRES_PORT": "5432",
    }
    assert {(row.source, row.name_used == row.name) for row in settings.rows()} == {("default", True)}


SEED_NAMES = {
    "PY_CODE_EXEC_IMAGE": ("image", "other:1", "other:1"),
    "PY_CODE_EXEC_NETWORK_MODE": ("network_mode", "none", "none"),
    "HOST_EXEC_WORKSPACE_PATH": ("host_workspace_path", "/h/w", Path("/h/w")),
    "HOST_BUNDLES_PATH": ("host_bundles_path", "C:/b", Path("C:/b")),
    "HOST_KB_STORAGE_PATH": ("host_kb_storage_path", "/h/k", Path("/h/k")),
    "AGENTIC_BUNDLES_ROOT": ("bundles_root", "/b", Path("/b")),
    "SITE_AGENTIC_BUNDLES_ROOT": ("site_bundles_root", "/s", Path("/s")),
    "EXEC_USER_LOG_MODE": ("user_log_mode", "print_only", "print_only"),
    "EXEC_TRACEBACK_REMAP": ("traceback_remap", "0", False),
    "ISO_RUNTIME_USER_WORKSPACE_ROOT": ("user_workspace_root", "/u", Path("/u")),
    "ISO_RUNTIME_SANDBOX_ROOT": ("sandbox_root", "/x", Path("/x")),
    "XDG_DATA_HOME": ("data_home", "/d", Path("/d")),
    "EXEC_WORKSPACE_ROOT": ("workspace_root", "/w", Path("/w")),
    "EXECUTOR_UID": ("executor_uid", "2001", 2001),
    "EXECUTOR_GID": ("executor_gid", "2000", 2000),
    "REDIS_URL": ("redis_url", "redis://h:1/0", "redis://h:1/0"),
    "REDIS_HOST": ("redis_host", "h", "h"),
    "REDIS_PORT": ("redis_port", "1", 1),
    "DATABASE_URL": ("database_url", "postgresql+asyncpg://h/d", "postgresql+asyncpg://h/d"),
    "POSTGRES_HOST": ("postgres_host", "h", "h"),
    "POSTGRES_PORT": ("postgres_port", "2", 2),
    "POSTGRES_USER": ("postgres_user", "u", "u"),
    "POSTGRES_PASSWORD": ("postgres_password", "p", "p"),
    "POSTGRES_DB": ("postgres_db", "d", "d"),
    "LOG_DIR": ("log_dir", "/l", Path("/l")),
}


@pytest.mark.parametrize("name", SEED_NAMES)
def test_each_older_name_is_accepted_and_ours_does_the_same(name: str) -> None:
    """Every name of SPEC A6 sets its setting, and so does `ISORUN_<FIELD>`."""
    attribute, text, value = SEED_NAMES[name]
    older = Settings.load(environ={name: text})
    assert getattr(older, attribute) == value
    ours = f"ISORUN_{attribute.upper()}"
    assert Settings.load(environ={ours: text}) == older
    assert rows(older)[ours].name_used == name
    assert rows(older)[ours].source == "environment"


@pytest.mark.parametrize(
    ("name", "text", "attribute", "value"),
    [
        ("ISORUN_BACKEND", "namespace", "backend", "namespace"),
        ("ISORUN_PROGRAM_PYTHON", "/opt/p/bin/python", "program_python", Path("/opt/p/bin/python")),
        ("ISORUN_PRELOAD", "numpy, matplotlib.pyplot,", "preload", ("numpy", "matplotlib.pyplot")),
        ("ISORUN_POOL_SIZE", "0", "pool_size", 0),
        ("ISORUN_ZYGOTE_RUNS", "5", "zygote_runs", 5),
        ("ISORUN_MAX_RUNS", "8", "max_runs", 8),
        ("ISORUN_RETENTION_HOURS", "0.5", "retention_hours", 0.5),
        ("ISORUN_SESSION_RETENTION_HOURS", "90d", "session_retention_hours", 2160.0),
        ("ISORUN_CGROUP_PARENT", "/sys/fs/cgroup/me", "cgroup_parent", Path("/sys/fs/cgroup/me")),
        ("ISORUN_ADVERTISE_SIDE_EFFECT_TOOL", "Yes", "advertise_side_effect_tool", True),
        ("ISORUN_REQUIRE", "namespace,root", "require", "namespace,root"),
    ],
)
def test_our_own_names_are_read(name: str, text: str, attribute: str, value: object) -> None:
    """Each setting without an older name is read from its `ISORUN_` name, without a warning."""
    settings = Settings.load(environ={name: text})
    assert getattr(settings, attribute) == value
    assert settings.warnings == ()


@pytest.mark.parametrize("field", dataclasses.fields(Limits), ids=lambda field: field.name)
def test_each_limit_has_a_name(field: dataclasses.Field[float]) -> None:
    """Every ceiling of DESIGN 6 is set by `ISORUN_MAX_<NAME>` and nothing else changes."""
    value = 1 << 31 if field.name == "memory_bytes" else 3  # less memory would hold no tmpfs
    settings = Settings.load(environ={f"ISORUN_MAX_{field.name.upper()}": str(value)})
    assert settings.limits() == Limits(**{field.name: value})


def test_the_seed_timeout_is_the_wall_limit() -> None:
    """PY_CODE_EXEC_TIMEOUT is the ceiling of a run's wall time."""
    settings = Settings.load(environ={"PY_CODE_EXEC_TIMEOUT": "90"})
    assert settings.limits() == Limits(wall_s=90.0)
    assert rows(settings)["ISORUN_MAX_WALL_S"] == SettingRow(
        "ISORUN_MAX_WALL_S", "90.0", "environment", "PY_CODE_EXEC_TIMEOUT"
    )


@pytest.mark.parametrize("how", ["named", "named by the environment", "trusted"])
def test_the_seed_file_with_comments_behind_values_is_read(how: str, tmp_path: Path) -> None:
    """A .env.backend that was named or trusted is read whole, and a comment is no part of a value."""
    path = tmp_path / ".env.backend"
    path.write_text(SEED_BARE_METAL)
    environ = {"XDG_DATA_HOME": str(tmp_path / "data")}
    if how == "trusted":
        env_file.trust(path, environ)
    if how == "named by the environment":
        environ["ISORUN_ENV_FILE"] = ".env.backend"
    settings = Settings.load(env_file=".env.backend" if how == "named" else None, environ=environ)
    assert settings.limits().wall_s == 600.0
    assert settings.network_mode == "host"
    assert settings.image == "py-code-exec:latest"
    assert supervisor_environment(settings) == {
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "AKIA...",
        "AWS_SECRET_ACCESS_KEY": "xxx...",
    }
    assert rows(settings)["ISORUN_MAX_WALL_S"].source == ".env.backend"


def test_an_env_file_is_read_and_its_lines_in_comments_are_not(tmp_path: Path) -> None:
    """`--env-file` names any file; the row says which."""
    path = tmp_path / "other.env"
    path.write_text(SEED_IN_DOCKER)
    settings = Settings.load(env_file=path, environ={})
    assert settings.host_bundles_path == Path("/Users/yourname/project/bundles")
    assert settings.site_bundles_root == Path("/Users/yourname/project/bundles")
    assert settings.bundles_root == Path("/bundles")
    assert supervisor_environment(settings) == {}
    assert rows(settings)["ISORUN_BUNDLES_ROOT"].source == str(path)


def test_the_environment_beats_the_file_and_the_named_file_the_default_one(tmp_path: Path) -> None:
    """Process environment, then --env-file, then ./.env.backend, whatever names they use."""
    env = {"ISORUN_POOL_SIZE": "3", "PY_CODE_EXEC_IMAGE": "b", "XDG_DATA_HOME": str(tmp_path / "data")}
    path = tmp_path / ".env.backend"
    path.write_text("ISORUN_POOL_SIZE=1\nISORUN_ZYGOTE_RUNS=1\nISORUN_IMAGE=a\n")
    env_file.trust(path, env)
    (tmp_path / "more.env").write_text("ISORUN_POOL_SIZE=2\nISORUN_ZYGOTE_RUNS=2\n")
    settings = Settings.load(env_file="more.env", environ=env)
    assert (settings.pool_size, settings.zygote_runs, settings.image) == (3, 2, "b")


def test_our_name_beats_the_older_one_and_one_line_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """ISORUN_X wins over the seed's name for X; the difference is one log line, without the secrets."""
    env = {"ISORUN_MAX_WALL_S": "5", "PY_CODE_EXEC_TIMEOUT": "9"}
    env |= {"ISORUN_POSTGRES_PASSWORD": "hunter2", "POSTGRES_PASSWORD": "hunter3"}
    with caplog.at_level(logging.WARNING, logger="isorun.settings"):
        settings = Settings.load(environ=env)
    assert settings.limits().wall_s == 5.0
    assert sorted(caplog.messages) == [
        "ISORUN_MAX_WALL_S=5 (environment) is used, PY_CODE_EXEC_TIMEOUT=9 (environment) is not",
        "ISORUN_POSTGRES_PASSWORD=*** (environment) is used, POSTGRES_PASSWORD=*** (environment) is not",
    ]


def test_names_that_agree_are_not_worth_a_line(caplog: pytest.LogCaptureFixture) -> None:
    """Setting both names to one value is silent."""
    Settings.load(environ={"ISORUN_IMAGE": "a", "PY_CODE_EXEC_IMAGE": "a"})
    assert caplog.messages == []


@pytest.mark.parametrize("blank", ["", "  "])
def test_a_blank_value_is_not_set(blank: str) -> None:
    """Compose passes unset names on as blank: they leave the default, or the other name, in force."""
    assert Settings.load(environ={"ISORUN_POOL_SIZE": blank}) == Settings()
    assert Settings.load(environ={"ISORUN_IMAGE": blank, "PY_CODE_EXEC_IMAGE": "a"}).image == "a"


@pytest.mark.parametrize(
    ("name", "value", "wants"),
    [
        ("ISORUN_BACKEND", "fake", "one of auto, namespace, docker"),
        ("EXEC_USER_LOG_MODE", "all", "one of include_logging, print_only"),
        ("EXEC_TRACEBACK_REMAP", "2", "1 or 0"),
        ("ISORUN_POOL_SIZE", "-1", "a whole number from 0 to 1024"),
        ("ISORUN_POOL_SIZE", "1_0", "a whole number from 0 to 1024"),
        ("ISORUN_POOL_SIZE", "\u0664", "a whole number from 0 to 1024"),
        ("ISORUN_MAX_RUNS", "0", "a whole number from 1 to 9007199254740992"),
        ("ISORUN_ZYGOTE_RUNS", "0", "a whole number from 1 to 9007199254740992"),
        ("EXECUTOR_UID", "0", "a whole number from 1 to 4294967294"),
        ("EXECUTOR_GID", "0", "a whole number from 1 to 4294967294"),
        ("REDIS_PORT", "65536", "a whole number from 1 to 65535"),
        ("PY_CODE_EXEC_TIMEOUT", "10 fortnights", TIME),
        ("PY_CODE_EXEC_TIMEOUT", "0", TIME),
        ("PY_CODE_EXEC_TIMEOUT", "0s", TIME),
        ("PY_CODE_EXEC_TIMEOUT", "nan", TIME),
        ("PY_CODE_EXEC_TIMEOUT", "inf", TIME),
        ("ISORUN_MAX_MEMORY_BYTES", "unlimited", SIZE),
        ("ISORUN_MAX_MEMORY_BYTES", "1.5", SIZE),
        ("ISORUN_MAX_FILE_BYTES", "9000T", SIZE),
        ("ISORUN_MAX_PROCESSES", "1k", "a whole number from 1 to 9007199254740992"),
        ("ISORUN_RETENTION_HOURS", "0", "a number of hours above 0, or a time such as 90m, 36h or 7d"),
        ("ISORUN_MAX_CPUS", "2s", "a finite number above 0"),
        ("HOST_BUNDLES_PATH", "./bundles", "an absolute path"),
        ("ISORUN_PRELOAD", "numpy;os", "module names with commas between them"),
        ("REDIS_URL", "localhost", "a URL, scheme://..."),
    ],
)
def test_a_bad_value_is_named_with_its_remedy(name: str, value: str, wants: str) -> None:
    """The error names the variable, the value, where it is from and what it must be."""
    shown = "***" if name == "REDIS_URL" else value
    assert refused({name: value}) == (
        f"{name}={shown} (environment): must be {wants}; correct it, or unset it to get the default"
    )


def test_a_comment_that_another_reader_left_in_the_value_is_explained() -> None:
    """`docker run --env-file` keeps comments: the error says what to remove."""
    assert refused({"PY_CODE_EXEC_TIMEOUT": "600   # 10 minutes"}) == (
        "PY_CODE_EXEC_TIMEOUT=600   # 10 minutes (environment): must be a time such as 500ms, 90s, 10m or 1h, "
        "or a number of seconds, above 0; "
        "remove the comment behind the value; correct it, or unset it to get the default"
    )


def test_limits_that_contradict_each_other_name_their_variables() -> None:
    """Each value is fine alone; the error names those that were set."""
    assert refused({"ISORUN_MAX_MEMORY_BYTES": "1M", "ISORUN_MAX_TMP_BYTES": "600K"}) == (
        "workspace, /tmp and /dev/shm hold 622592 bytes together, "
        "more than half of memory_bytes (1048576); raise memory_bytes or lower them "
        "(set by ISORUN_MAX_MEMORY_BYTES, ISORUN_MAX_TMP_BYTES)"
    )


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("ISORUN_MAX_MEMORY_BYTES", "2G", "memory_bytes", 2 << 30),
        ("ISORUN_MAX_FILE_BYTES", "1.5mib", "file_bytes", 3 << 19),
        ("ISORUN_MAX_SOURCE_BYTES", "512kb", "source_bytes", 512 << 10),
        ("PY_CODE_EXEC_TIMEOUT", "10m", "wall_s", 600.0),
        ("ISORUN_MAX_WALL_S", "1h30m", "wall_s", 5400.0),
        ("ISORUN_MAX_GRACE_S", "500ms", "grace_s", 0.5),
    ],
)
def test_sizes_and_times_are_read_as_people_write_them(name: str, text: str, field: str, value: float) -> None:
    """Every ceiling in bytes or seconds takes a unit."""
    assert getattr(Settings.load(environ={name: text}).limits(), field) == value


@pytest.mark.parametrize(("text", "hours"), [("7d", 168.0), ("36h", 36.0), ("90m", 1.5), ("12", 12.0)])
def test_a_retention_is_hours_or_has_a_unit(text: str, hours: float) -> None:
    """A number alone counts hours, as before."""
    assert Settings.load(environ={"ISORUN_RETENTION_HOURS": text}).retention_hours == hours


@pytest.mark.parametrize("text", ["256M", "268435456", "96m", "3g"])
def test_the_memory_alone_may_be_set(text: str) -> None:
    """The three tmpfs follow it: no sums in bytes."""
    assert Settings.load(environ={"ISORUN_MAX_MEMORY_BYTES": text}).limits() == Limits(memory_bytes=bytes_of(text))


SECRETS = {
    "AWS_ACCESS_KEY_ID": "CANARY-1",
    "AWS_SECRET_ACCESS_KEY": "CANARY-2",
    "AWS_SESSION_TOKEN": "CANARY-3",
    "POSTGRES_PASSWORD": "CANARY-4",
    "DATABASE_URL": "postgresql://me:CANARY-5@x:y/@db:5432/d?sslmode=on&password=CANARY-6&a=b",
    "REDIS_URL": "redis://:CANARY-7@redis:6379/0",
}


def test_no_secret_is_in_rows_or_repr() -> None:
    """Rows, repr and str of settings and of their parts hold no secret, and the rest stays readable."""
    settings = Settings.load(environ=SECRETS)
    for text in (repr(settings), str(settings), repr(settings.rows()), repr(settings.found)):
        assert "CANARY" not in text
    shown = rows(settings)
    assert shown["AWS_SECRET_ACCESS_KEY"].value == "***"
    assert shown["ISORUN_POSTGRES_PASSWORD"].value == "***"
    assert shown["ISORUN_REDIS_URL"].value == "redis://:***@redis:6379/0"
    assert shown["ISORUN_DATABASE_URL"].value == "postgresql://me:***@db:5432/d?sslmode=on&password=***&a=b"


@pytest.mark.parametrize(
    "url",
    ["user:CANARY@host", "host=h password=CANARY", "POSTGRES://me:CANARY@h", "1x://me@corp:CANARY@h\n@x"],
)
def test_no_secret_is_in_an_error(url: str) -> None:
    """A URL that cannot be read is refused without its password, also in the chained errors."""
    assert "CANARY" not in refused({"DATABASE_URL": url})


def test_a_url_without_a_password_is_shown_whole() -> None:
    """A port is not mistaken for a password."""
    settings = Settings.load(environ={"REDIS_URL": "redis://redis:6379/0"})
    assert rows(settings)["ISORUN_REDIS_URL"].value == "redis://redis:6379/0"


@pytest.mark.parametrize(
    ("slip", "nearest"),
    [
        ("ISORUN_POOLSIZE", "ISORUN_POOL_SIZE"),
        ("ISORUN_MAX_MEMORY", "ISORUN_MAX_MEMORY_BYTES"),
        ("ISORUN_PY_CODE_EXEC_TIMEOUT", "ISORUN_MAX_WALL_S"),
        ("ISORUN_EXEC_TRACEBACK_REMAP", "ISORUN_TRACEBACK_REMAP"),
        ("ISORUN_TIMEOUT", "ISORUN_MAX_WALL_S"),
        ("ISORUN_TIMEOUT_S", "ISORUN_MAX_WALL_S"),
        ("ISORUN_MEMORY", "ISORUN_MAX_MEMORY_BYTES"),
        ("ISORUN_CPU", "ISORUN_MAX_CPUS"),
        ("ISORUN_RETENTION", "ISORUN_RETENTION_HOURS"),
        ("ISORUN_BACKENDS", "ISORUN_BACKEND"),
    ],
)
def test_an_unknown_name_warns_with_the_nearest(slip: str, nearest: str, tmp_path: Path) -> None:
    """A slip in an `ISORUN_` name is a warning wherever it stands, and changes nothing."""
    (tmp_path / ".env.backend").write_text(f"{slip}=1\n")
    settings = Settings.load(environ={slip: "1", "OTHER_NAME": "1"})
    assert settings.warnings == (
        f"{slip} (environment) is not a setting; the nearest name is {nearest}",
        f"{slip} (.env.backend) is not a setting; the nearest name is {nearest}",
    )
    assert settings == dataclasses.replace(Settings(), warnings=settings.warnings)


@pytest.mark.parametrize("slip", ["ISORUN_NOPE", "ISORUN_COLOUR", "ISORUN_"])
def test_a_name_that_is_near_to_none_gets_no_suggestion(slip: str) -> None:
    """It says where all names are."""
    warnings = Settings.load(environ={slip: "1"}).warnings
    assert warnings == (f"{slip} (environment) is not a setting; `isorun config show` has all names",)


def test_the_supervisor_gets_the_credentials_that_are_set_and_nothing_else() -> None:
    """The names of SPEC A6 are passed on; a database password or a setting of ours is not."""
    names = [
        "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
        "AWS_PROFILE", "AWS_EC2_METADATA_DISABLED", "AWS_SDK_LOAD_CONFIG", "NO_PROXY",
    ]  # fmt: skip
    env = {name: f"value of {name}" for name in names}
    settings = Settings.load(environ={**env, "POSTGRES_PASSWORD": "p", "ISORUN_POOL_SIZE": "2", "PATH": "/bin"})
    assert supervisor_environment(settings) == env


@pytest.mark.parametrize("mode", ["host", "none"])
def test_the_embedded_backend_knows_two_network_modes(mode: str) -> None:
    """`host` and `none` are accepted."""
    Settings.load(environ={"PY_CODE_EXEC_NETWORK_MODE": mode}).check_embedded()


@pytest.mark.parametrize("name", ["PY_CODE_EXEC_NETWORK_MODE", "ISORUN_NETWORK_MODE"])
def test_the_embedded_backend_refuses_other_network_modes(name: str) -> None:
    """Anything else is refused with the name that was used, the value and the remedy."""
    settings = Settings.load(environ={name: "bridge"})
    with pytest.raises(InvalidRequest) as caught:
        settings.check_embedded()
    assert str(caught.value) == (
        f"{name}=bridge: the embedded backend's supervisor has the host's network or none; "
        f"set {name}=host or {name}=none, or use ISORUN_BACKEND=docker"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"A=1\nPOSTGRES_PASSWORD='CANARY\n", "x.env, line 2: not NAME=value, or a quote that never ends"),
        (b"\xff\xfe", "x.env: is not UTF-8 text"),
        (b"#" * ((1 << 20) + 1), "x.env: longer than 1048576 characters"),
        (None, "x.env: cannot be read: No such file or directory"),
    ],
    ids=["quote", "encoding", "size", "missing"],
)
def test_a_bad_env_file_is_one_clear_error(content: bytes | None, message: str, tmp_path: Path) -> None:
    """The error names file and line and shows nothing of the line."""
    if content is not None:
        (tmp_path / "x.env").write_bytes(content)
    with pytest.raises(InvalidRequest) as caught:
        Settings.load(env_file="x.env", environ={})
    assert (str(caught.value), caught.value.code) == (message, "env_file")


def test_the_process_environment_is_read_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Settings.load()` is what the CLI calls."""
    monkeypatch.setitem(os.environ, "ISORUN_POOL_SIZE", "7")
    assert Settings.load().pool_size == 7


def test_design9_the_workspace_root_that_is_set_wins(tmp_path: Path) -> None:
    """ISORUN_WORKSPACE_ROOT, then EXEC_WORKSPACE_ROOT; a relative one is made absolute."""
    both = Settings.load(environ={"ISORUN_WORKSPACE_ROOT": "/a", "EXEC_WORKSPACE_ROOT": "/b"})
    assert get_exec_workspace_root(both) == Path("/a")
    older = Settings.load(environ={"EXEC_WORKSPACE_ROOT": "here"})
    assert get_exec_workspace_root(older) == tmp_path / "here"


def test_design9_in_a_container_that_has_it_the_root_is_exec_workspace(tmp_path: Path) -> None:
    """/exec-workspace is taken in a container only, and only where it exists."""
    temporary = Path(tempfile.gettempdir())
    settings = Settings.load(environ={})
    (tmp_path / "exec-workspace").mkdir()
    assert get_exec_workspace_root(settings, system_root=tmp_path) == temporary
    (tmp_path / ".dockerenv").touch()
    assert get_exec_workspace_root(settings, system_root=tmp_path) == Path("/exec-workspace")
    (tmp_path / "exec-workspace").rmdir()
    assert get_exec_workspace_root(settings, system_root=tmp_path) == temporary


@pytest.mark.parametrize(
    ("mark", "text", "inside"),
    [
        (".dockerenv", "", True),
        ("run/.containerenv", "", True),
        ("proc/1/cgroup", "0::/docker/0123\n", True),
        ("proc/1/cgroup", "1:cpu:/kubepods/burstable\n", True),
        ("proc/1/cgroup", "0::/init.scope\n", False),
        ("etc/hostname", "", False),
    ],
)
def test_design9_a_container_is_known_by_its_marks(mark: str, text: str, inside: bool, tmp_path: Path) -> None:
    """Docker's and podman's files and the cgroup's name tell; nothing else does."""
    (tmp_path / mark).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / mark).write_text(text)
    assert in_container(tmp_path) is inside


def test_importing_settings_loads_no_third_party_package() -> None:
    """The cold start pays for neither pydantic nor a dotenv reader (docs/decisions/0002)."""
    code = "import sys, isorun.settings; print(*{m.partition('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pydantic", "pydantic_core", "pydantic_settings", "dotenv", "difflib"} & set(done.stdout.split())


NO_NUMBERS = [math.nan, math.inf, -1, -0.5, True, "5", [], 10**400]


@pytest.mark.parametrize(
    "name",
    ["pool_size", "max_runs", "zygote_runs", "retention_hours", "executor_uid", "executor_gid", "redis_port"],
)
def test_a_number_that_a_caller_put_there_is_checked_as_one_that_was_read(name: str) -> None:
    """By the same rule; of what may be missing None stands for that."""
    for value in NO_NUMBERS:
        with pytest.raises(InvalidRequest, match=rf"^{name} must be a .+, got ") as caught:
            Settings(**{name: value})
        assert caught.value.code == "invalid_setting"
        with pytest.raises(InvalidRequest, match=rf"^{name} must be "):
            dataclasses.replace(Settings(), **{name: value})
    default = getattr(Settings(), name)
    assert getattr(Settings(**{name: default}), name) == default


@pytest.mark.parametrize("value", [math.nan, -1, True, 1.5, "4"])
def test_a_pool_of_no_whole_size_is_refused(value: object) -> None:
    """A Runtime's own keyword is a setting, too."""
    with pytest.raises(InvalidRequest, match=r"^pool_size must be a whole number from 0 to 1024, got "):
        isorun.Runtime(pool_size=value)
