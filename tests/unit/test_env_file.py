"""Which files of settings are believed, and how far: a folder that was cloned cannot act."""

import os
import stat
from pathlib import Path

import pytest

from isorun import env_file
from isorun.core.errors import InvalidRequest
from isorun.core.limits import Limits
from isorun.settings import _RULES, Settings, supervisor_environment

EVIL = {
    "ISORUN_PROGRAM_PYTHON": "./evil",
    "ISORUN_BUNDLE": "./b",
    "ISORUN_PRELOAD": "evil",
    "ISORUN_WORKSPACE_ROOT": "./here",
    "EXEC_WORKSPACE_ROOT": "./here",
    "ISORUN_RETENTION_HOURS": "0.0000001",
    "ISORUN_CGROUP_PARENT": "isorun",
    "ISORUN_TOOL_ENV": "SECRET",
    "ISORUN_EXECUTOR_UID": "1000",
    "EXECUTOR_GID": "0x0",
    "ISORUN_IMAGE": "stranger/image",
    "PY_CODE_EXEC_IMAGE": "stranger/image:2",
    "ISORUN_DOCKER_RUNTIME": "other",
    "PY_CODE_EXEC_NETWORK_MODE": "container:db",
    "HOST_EXEC_WORKSPACE_PATH": "/",
    "HOST_BUNDLES_PATH": "/",
    "HOST_KB_STORAGE_PATH": "/etc",
    "AGENTIC_BUNDLES_ROOT": "/tmp/b",
    "SITE_AGENTIC_BUNDLES_ROOT": "/tmp/b",
    "ISO_RUNTIME_USER_WORKSPACE_ROOT": "./w",
    "ISO_RUNTIME_SANDBOX_ROOT": "./s",
    "XDG_DATA_HOME": "/tmp/theirs",
    "LOG_DIR": "./logs",
    "REDIS_URL": "redis://stranger:1/0",
    "DATABASE_URL": "postgresql://stranger/d",
    "AWS_ACCESS_KEY_ID": "theirs",
    "AWS_SECRET_ACCESS_KEY": "theirs",
    "AWS_PROFILE": "theirs",
    "AWS_REGION": "x@stranger.example/",
    "NO_PROXY": "*",
    "ISORUN_MAX_MEMORY_BYTES": str(2**50),
    "PY_CODE_EXEC_TIMEOUT": "1000000",
    "ISORUN_MAX_PROCESSES": "100000",
    "ISORUN_POOL_SIZE": "1024",
    "ISORUN_MAX_RUNS": "1",
    "ISORUN_ENV_FILE": "./more.env",
}


@pytest.fixture(autouse=True)
def _cloned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cloned"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home")}


def _write(values: dict[str, str]) -> Path:
    path = Path(".env.backend")
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    return path


def test_a_file_that_nobody_trusted_changes_nothing_that_acts(environ, caplog: pytest.LogCaptureFixture) -> None:
    """No code, path, image, account, removal or higher ceiling comes from it, and one line names all and the remedy."""
    _write(EVIL)
    settings = Settings.load(environ=environ)
    assert settings == Settings.load(environ={})
    assert settings.ignored == tuple(EVIL)
    assert {row.source for row in settings.rows()} == {"default"}
    (line,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith(os.getcwd())]
    assert line == (
        f"{Path.cwd()}/.env.backend: {', '.join(EVIL)} ignored, because you have not trusted this file; read it, "
        f"then run: isorun config trust {Path.cwd()}/.env.backend"
    )


def test_the_same_file_acts_once_it_is_trusted(environ) -> None:
    """The control: what is ignored above is what such a file could do."""
    path = _write({name: value for name, value in EVIL.items() if name != "EXECUTOR_GID"})
    env_file.trust(path, environ)
    settings = Settings.load(environ=environ)
    assert settings.program_python == Path.cwd() / "evil"
    assert settings.image == "stranger/image"
    assert settings.limits().memory_bytes == 2**50
    assert settings.ignored == ()
    assert supervisor_environment(settings)["AWS_ACCESS_KEY_ID"] == "theirs"
    assert settings.env_file is None, "a file names no other file"


def test_what_is_harmless_counts_without_trust(environ) -> None:
    """Lower ceilings, a region, no network and how logs are written run no code and choose no path."""
    _write(
        {
            "PY_CODE_EXEC_TIMEOUT": "120",
            "AWS_REGION": "us-east-1",
            "PY_CODE_EXEC_NETWORK_MODE": "none",
            "PY_CODE_EXEC_IMAGE": "py-code-exec:latest",
            "EXEC_USER_LOG_MODE": "print_only",
            "ISORUN_POOL_SIZE": "1",
        }
    )
    settings = Settings.load(environ=environ)
    assert (settings.limits().wall_s, settings.network_mode, settings.pool_size) == (120.0, "none", 1)
    assert (settings.aws_region, settings.user_log_mode, settings.ignored) == ("us-east-1", "print_only", ())


def test_every_setting_is_refused_to_a_stranger_unless_its_rule_says_otherwise() -> None:
    """A new setting is not harmless because somebody forgot to say what it does."""
    open_to_all = {key for key, rule in _RULES.items() if rule.harmless.says == "yes"}
    assert open_to_all == {
        *("backend", "advertise_side_effect_tool", "user_log_mode", "traceback_remap", "keep_value", "save_figures")
    }
    lower = {key for key, rule in _RULES.items() if rule.harmless.says == "lower"}
    users = {"user_runs_at_once", "user_runs_per_day", "user_bytes"}
    assert lower == {"pool_size", "zygote_runs", *users, *(f"max_{name}" for name in Limits.__dataclass_fields__)}


def test_a_variable_for_tools_is_not_taken_from_a_stranger(environ) -> None:
    """ISORUN_TOOL_ENV of the user names TOKEN; a folder's file does not say what it is."""
    _write({"TOKEN": "theirs"})
    settings = Settings.load(environ={**environ, "ISORUN_TOOL_ENV": "TOKEN"})
    assert settings.tool_environment == {}
    assert settings.ignored == ("TOKEN",)


@pytest.mark.parametrize("change", ["changed", "moved", "replaced by a link"])
def test_trust_is_of_one_text_in_one_place(change: str, environ, tmp_path: Path) -> None:
    """A trusted file that changes, is copied elsewhere or points elsewhere is a stranger's again."""
    path = _write({"ISORUN_BUNDLE": "./b"})
    env_file.trust(path, environ)
    assert Settings.load(environ=environ).bundle is not None
    if change == "changed":
        path.write_text(path.read_text() + "# a comment\n")
    elif change == "moved":
        (tmp_path / "elsewhere").mkdir()
        os.chdir(tmp_path / "elsewhere")
        _write({"ISORUN_BUNDLE": "./b"})
    else:
        (tmp_path / "other").write_text(path.read_text())
        path.unlink()
        path.symlink_to(tmp_path / "other")
    assert Settings.load(environ=environ).bundle is None


def test_trust_is_taken_back(environ) -> None:
    """All that was ever said of a file goes, whatever the file held."""
    path = _write({"ISORUN_BUNDLE": "./b"})
    env_file.trust(path, environ)
    _write({"ISORUN_BUNDLE": "./c"})
    env_file.trust(path, environ)
    assert env_file.forget(path, environ) == 2
    assert Settings.load(environ=environ).bundle is None


@pytest.mark.root
def test_a_file_of_another_user_is_refused(environ) -> None:
    """Neither found nor named: its owner could change it after it was read by us."""
    path = _write({"PY_CODE_EXEC_TIMEOUT": "120"})
    os.chown(path, 4242, -1)
    for named in (None, path):
        with pytest.raises(InvalidRequest) as caught:
            Settings.load(env_file=named, environ=environ)
        assert "belongs to uid 4242, neither to you nor to root; run `chown 0` on it" in str(caught.value)


@pytest.mark.root
@pytest.mark.parametrize("spoiled", ["owner of the folder", "mode of the folder", "owner of the record"])
def test_a_record_that_somebody_else_could_have_made_is_no_trust(spoiled: str, environ) -> None:
    """Who can write our records could trust their own files for us."""
    path = _write({"ISORUN_BUNDLE": "./b"})
    file = env_file.trust(path, environ)
    records = Path(environ["HOME"]) / ".local/share/isorun/trusted"
    assert stat.S_IMODE(records.stat().st_mode) == 0o700
    if spoiled == "mode of the folder":
        records.chmod(0o777)
    else:
        os.chown(records if spoiled == "owner of the folder" else records / file.digest, 4242, -1)
    assert Settings.load(environ=environ).bundle is None


def test_a_folder_does_not_say_where_the_records_are(environ, tmp_path: Path) -> None:
    """A repository that brings its own records, and names them, is not trusted by itself."""
    path = _write({"XDG_DATA_HOME": str(tmp_path / "theirs"), "ISORUN_BUNDLE": "./b"})
    env_file.trust(path, {"XDG_DATA_HOME": str(tmp_path / "theirs")})
    assert Settings.load(environ=environ).bundle is None


@pytest.mark.parametrize("kind", ["fifo", "directory", "socket"])
def test_what_is_no_file_is_refused_and_holds_up_nobody(kind: str, environ) -> None:
    """Opening a FIFO waits for a writer, and whoever runs anything in that folder would wait."""
    path = Path(".env.backend")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        import socket

        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(".env.backend")
    with pytest.raises(InvalidRequest) as caught:
        Settings.load(environ=environ)
    assert str(caught.value).startswith(".env.backend: ")


def test_names_and_values_reach_no_terminal_raw(environ, caplog: pytest.LogCaptureFixture) -> None:
    """A folder's file and the folder's own name could set a title, clear the screen or hide a line."""
    folder = Path("a\x1b]0;b\x07\u200bc")
    folder.mkdir()
    os.chdir(folder)
    Path(".env.backend").write_bytes(
        b"ISORUN_X\x1b]0;pwned\x07=1\nISORUN_BUNDLE=./b\nISORUN_TRACEBACK_REMAP=0\nEXEC_TRACEBACK_REMAP=\x1b[2J1\n"
    )
    with pytest.raises(InvalidRequest):
        Settings.load(environ={**environ, "EXEC_TRACEBACK_REMAP": "x\x1b[2J"})
    Path(".env.backend").write_bytes(
        b"ISORUN_X\x1b]0;pwned\x07=1\nISORUN_BUNDLE=./b\nAWS_REGION=us\nPY_CODE_EXEC_IMAGE=py-code-exec:latest\n"
    )
    settings = Settings.load(environ={**environ, "ISORUN_IMAGE": "a\x1b[2J"})
    told = [*settings.warnings, *(record.getMessage() for record in caplog.records)]
    assert any("ISORUN_BUNDLE ignored" in line for line in told), told
    assert any("ISORUN_X" in line for line in told)
    assert any("py-code-exec:latest" in line for line in told)
    assert all(line.isprintable() for line in told)
