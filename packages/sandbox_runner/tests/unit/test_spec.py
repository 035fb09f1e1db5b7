"""Every field of a spec that cannot be used is refused by its name, before anything is built or started."""

import dataclasses
import os
import socket
import tempfile
from pathlib import Path, PurePosixPath

import pytest

from sandbox_runner import DockerSandbox, DockerUnavailable, InvalidSpec, MountSpec, ResourceSpec, SandboxSpec
from sandbox_runner import state as state_module
from sandbox_runner.docker.context import Context
from sandbox_runner.quantity import bytes_of, seconds_of
from sandbox_runner.spec import WALLS, check, check_folder

pytestmark = pytest.mark.uid  # a user's own places are no sources

#: Field, value, and how the text goes on. TMP is replaced by a folder that has `file`, and `context/Dockerfile`.
REFUSED = [
    ("backend", "podman", "'podman' is not one of docker, namespace"),
    ("image_ref", "", "'' is not an image"),
    ("image_ref", "--privileged", "'--privileged' is not an image"),
    ("image_ref", "a b", "'a b' is not an image"),
    ("image_ref", 5, "must be text"),
    ("image_context_path", "TMP/nowhere", "TMP/nowhere is not a folder"),
    ("image_context_path", "TMP/file", "TMP/file is not a folder"),
    ("image_context_path", 5, "must be a path"),
    ("dockerfile", "Dockerfile", "needs image_context_path, the folder it is in"),
    ("dockerfile", 5, "must be a path"),
    ("image_repo", "Upper", "'Upper' is not the name of an image: lower case, without a tag"),
    ("image_repo", "a:tag", "'a:tag' is not the name of an image: lower case, without a tag"),
    ("image_repo", "-x", "'-x' is not the name of an image: lower case, without a tag"),
    ("image_repo", 5, "must be text"),
    ("rebuild_image", "no", "must be True or False"),
    ("image_pull_policy", "sometimes", "'sometimes' is not one of missing, always, never"),
    ("base_image", 5, "must be text"),
    ("base_image", "--help", "'--help' is not an image"),
    ("build_args", {"A-B": "x"}, "'A-B' is not the name of a variable"),
    ("build_args", {"A": 5}, "the value of A must be text without a NUL"),
    ("build_args", {"A": "secret\0"}, "the value of A must be text without a NUL"),
    ("build_args", ["A=secret"], "must be names and values"),
    ("build_target", "--x", "'--x' must be letters, digits and ./:_-"),
    ("build_target", 5, "must be text"),
    ("build_network", "other", "'other' is not one of default, host, none"),
    ("build_timeout_seconds", 0, "0 must be a number above 0"),
    ("build_timeout_seconds", float("inf"), "inf must be a number above 0"),
    ("platform", "linux amd64", "'linux amd64' must be letters, digits and ./:_-"),
    ("platform", "--x", "'--x' must be letters, digits and ./:_-"),
    ("platform", 5, "must be text"),
    ("network_mode", "host", "'host' is not one of open, none"),
    ("cache_mode", "hot", "'hot' is not one of cold, warm"),
    ("cache_dir", "TMP/cache", 'is used with cache_mode="warm" only'),
    ("cache_dir", 5, "must be a path"),
    ("env_allowlist", "PATH", "must be a list of names, not one text"),
    ("env_allowlist", ("A=B",), "'A=B' is not the name of a variable"),
    ("env_allowlist", ("",), "'' is not the name of a variable"),
    ("env_allowlist", (5,), "'5' is not the name of a variable"),
    ("env_overrides", {"1A": "secret"}, "'1A' is not the name of a variable"),
    ("env_overrides", {"A": None}, "the value of A must be text without a NUL"),
    (
        "env_overrides",
        {"A": "secret\nB=1"},
        "the value of A has a line break, which the engine cannot take from a file: set A in your own environment "
        "and name it in env_allowlist, or give it to one command, exec(env=...)",
    ),
    ("env_overrides", {"A": "secret\r"}, "the value of A has a line break, which the engine cannot take from a file"),
    ("env_overrides", {"A": "secret\udc80"}, "the value of A is not UTF-8 text"),
    ("env_overrides", {"A": "s" * 65_000}, "the value of A is longer than the 65000 bytes that an engine takes"),
    ("env_overrides", [("A", "secret")], "must be names and values"),
    ("extra_mounts", (("/etc", "/x"),), "must be a list of MountSpec"),
    ("extra_mounts", MountSpec("/etc", "/x"), "must be a list of MountSpec"),
    ("extra_mounts", (MountSpec("etc", "/x"),), "'etc' must be an absolute path of the host"),
    ("extra_mounts", (MountSpec("/etc", "x"),), "'x' must be an absolute path of the sandbox, without . and .."),
    ("extra_mounts", (MountSpec("/etc", "/"),), "'/' must be an absolute path of the sandbox, without . and .."),
    ("extra_mounts", (MountSpec("/etc", "/x/"),), "'/x/' must be an absolute path of the sandbox, without . and .."),
    ("extra_mounts", (MountSpec("/etc", "/x/../y"),), "'/x/../y' must be an absolute path of the sandbox, without . "),
    ("extra_mounts", (MountSpec("/etc", "//"),), "'//' must be an absolute path of the sandbox, without . and .."),
    ("extra_mounts", (MountSpec("/etc", "//sys"),), "'//sys' must be an absolute path of the sandbox, without . and"),
    ("extra_mounts", (MountSpec("/etc", "//workspace/x"),), "'//workspace/x' must be an absolute path of the sandbox"),
    ("extra_mounts", (MountSpec("/etc", "/workspace"),), "/workspace is mounted already"),
    ("extra_mounts", (MountSpec("/etc", "/artifacts/x"),), "/artifacts/x lies in /artifacts, which is mounted already"),
    (
        "extra_mounts",
        (MountSpec("/etc", "/workspace/a/.venv"),),
        "/workspace/a/.venv lies in /workspace, which is mounted",
    ),
    (
        "extra_mounts",
        (MountSpec("/etc", "/x"), MountSpec("/usr", "/x/y/z")),
        "/x/y/z lies in /x, which is mounted already",
    ),
    ("extra_mounts", (MountSpec("/etc", "/cache"),), "/cache is mounted already"),
    ("extra_mounts", (MountSpec("/etc", "/x"), MountSpec("/usr", "/x")), "/x is mounted already"),
    ("extra_mounts", (MountSpec("/etc", "/tmp"),), "/tmp belongs to the sandbox: use another place"),
    ("extra_mounts", (MountSpec("/etc", "/proc"),), "/proc belongs to the sandbox: use another place"),
    ("extra_mounts", (MountSpec("/etc", "/proc/sys/x"),), "/proc/sys/x belongs to the sandbox: use another place"),
    ("extra_mounts", (MountSpec("/etc", "/sys/x"),), "/sys/x belongs to the sandbox: use another place"),
    ("extra_mounts", (MountSpec("/etc", "/dev/shm"),), "/dev/shm belongs to the sandbox: use another place"),
    ("extra_mounts", (MountSpec("/etc", "/a,readonly=false"),), "'/etc' or '/a,readonly=false' has a comma"),
    ("extra_mounts", (MountSpec('/e"tc', "/a"),), "'/e\"tc' or '/a' has a comma, a quote or a line break"),
    ("extra_mounts", (MountSpec("TMP/nowhere", "/x"),), "TMP/nowhere: No such file or directory"),
    ("resources", {"memory": "1g"}, "must be a ResourceSpec"),
    ("loosen", ("walls",), f"'walls' is not a wall; use one of {', '.join(WALLS)}"),
    ("loosen", "init", "must be a list of names, not one text"),
    ("runtime", "", "'' must be letters, digits and ./:_-"),
    ("runtime", "--x", "'--x' must be letters, digits and ./:_-"),
    ("tmp_bytes", 0, "0 must be a number above 0"),
    ("tmp_bytes", 1.5e9, "must be a whole number"),
    ("host_paths", {"a": "/b"}, "'a': '/b' must both be absolute paths"),
    ("host_paths", {"/a": 5}, "'/a': 5 must both be absolute paths"),
    ("host_paths", "/a:/b", "must be names and values"),
    ("keep_container", "yes", "must be True or False"),
    ("ttl_seconds", -1, "-1 must be a number above 0"),
    ("ttl_seconds", True, "True must be a number above 0"),
    ("docker_timeout_seconds", float("nan"), "nan must be a number above 0"),
]
RESOURCES = [
    ("cpus", 0, "0 must be a number above 0"),
    ("cpus", 0.001, "0.001 is less than the 0.01 that an engine takes"),
    ("cpus", "2", "'2' must be a number above 0"),
    ("memory", "1x", "'1x' is not a size: give bytes, or a number with k, m or g"),
    ("memory", "1.5", "'1.5' is not a size: give bytes, or a number with k, m or g"),
    ("memory", -5, "-5 is not a size: give bytes, or a number with k, m or g"),
    ("memory", "1m", "1m is less than the 6m that an engine takes"),
    ("memory", 0, "0 is less than the 6m that an engine takes"),
    ("pids_limit", 0, "0 must be a whole number above 0"),
    ("pids_limit", 1.5, "1.5 must be a whole number above 0"),
    ("pids_limit", True, "True must be a whole number above 0"),
]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder that has a file, and a context."""
    (tmp_path / "file").touch()
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "Dockerfile").write_text("FROM scratch\n")
    return tmp_path


def replaced(value: object, place: Path) -> object:
    """*value*, with the folder for TMP."""
    if isinstance(value, str):
        return value.replace("TMP", str(place))
    if isinstance(value, tuple) and any(isinstance(part, MountSpec) for part in value):
        return tuple(dataclasses.replace(one, host_path=str(one.host_path).replace("TMP", str(place))) for one in value)
    return value


def refusal(spec: SandboxSpec) -> InvalidSpec:
    """What the check says of *spec*."""
    with pytest.raises(InvalidSpec) as raised:
        check(spec)
    return raised.value


@pytest.mark.parametrize(("field", "value", "said"), REFUSED, ids=lambda value: str(value)[:40])
def test_a_field_that_cannot_be_used_is_refused(place, field, value, said) -> None:
    """The text names the field and the value that is wrong, and never one of a variable."""
    error = refusal(SandboxSpec(**{field: replaced(value, place)}))
    assert str(error).startswith(f"{field}: {said.replace('TMP', str(place))}")
    assert error.field == field
    assert "secret" not in str(error)
    assert isinstance(error, ValueError)


@pytest.mark.parametrize(("field", "value", "said"), RESOURCES)
def test_a_ceiling_that_cannot_be_used_is_refused(field, value, said) -> None:
    """As a field of the spec is."""
    assert str(refusal(SandboxSpec(resources=ResourceSpec(**{field: value})))) == f"resources.{field}: {said}"


def test_every_field_has_a_line_in_the_table() -> None:
    """A new field is not left unchecked."""
    assert {field for field, _, _ in REFUSED} == {field.name for field in dataclasses.fields(SandboxSpec)}
    assert {field for field, _, _ in RESOURCES} == {field.name for field in dataclasses.fields(ResourceSpec)}


@pytest.mark.parametrize("size", ["", "m", "1..5g", "1.g", ".5g", "1e9", "1g5", "1 g b", "1,5g", "0x10", "\u0661m"])
def test_what_is_no_size_is_refused(size) -> None:
    """With what can be given in its place."""
    with pytest.raises(ValueError, match=r"is not a size: give bytes, or a number with k, m or g"):
        bytes_of(size)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(SandboxSpec)])
def test_none_is_the_default_of_every_field(field) -> None:
    """A caller hands on what it was not told itself."""
    assert SandboxSpec(**{field: None}) == SandboxSpec()
    assert dataclasses.replace(SandboxSpec(), **{field: None}) == SandboxSpec()
    check(SandboxSpec(**{field: None}))


def test_none_is_the_default_of_a_mount_too() -> None:
    """And a path of the sandbox may be a path."""
    assert MountSpec("/etc", PurePosixPath("/x"), None) == MountSpec("/etc", "/x")


class Elsewhere(os.PathLike[str]):
    """A path of somebody else's library."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __fspath__(self) -> str:
        return self.text


@pytest.mark.parametrize("kind", [str, Path, PurePosixPath, Elsewhere])
def test_any_path_like_is_taken_where_a_path_is_meant(place, kind) -> None:
    """Both of the host and of the sandbox; a Dockerfile also by its whole path."""
    context = place / "context"
    (context / "deep").mkdir()
    (context / "deep" / "Other").touch()
    for named in ("Dockerfile", "deep/Other", str(context / "deep" / "Other")):
        mounts = (MountSpec(kind(str(place)), kind("/a")),)
        spec = SandboxSpec(image_context_path=kind(str(context)), dockerfile=kind(named), extra_mounts=mounts)
        check(spec)
        assert Context.of(spec).dockerfile == named.removeprefix(f"{context}/")
    check(SandboxSpec(cache_mode="warm", cache_dir=kind(str(place))))


def test_a_line_break_is_refused_only_where_a_file_of_lines_carries_it() -> None:
    """A namespace takes its variables otherwise."""
    for value in ("-----BEGIN KEY-----\nabc\n", "a\r\nb", "\n"):
        check(SandboxSpec(backend="namespace", env_overrides={"A": value}))


@pytest.mark.parametrize("dockerfile", ["/etc/passwd", "../file", "x/../../file", "-"])
def test_a_dockerfile_is_in_its_context(place, dockerfile) -> None:
    """And not any file of this machine."""
    (place / "context" / "x").mkdir()
    error = refusal(SandboxSpec(image_context_path=place / "context", dockerfile=dockerfile))
    assert str(error) == f"dockerfile: {dockerfile!r} must be a path inside the context"


def test_a_dockerfile_must_be_there(place) -> None:
    """The one that is named, or the one of the usual name."""
    error = refusal(SandboxSpec(image_context_path=place / "context", dockerfile="Other"))
    assert str(error) == f"dockerfile: {place}/context has no file Other"
    (place / "context" / "Dockerfile").unlink()
    assert str(refusal(SandboxSpec(image_context_path=place / "context"))).endswith("has no file Dockerfile")


@pytest.mark.parametrize("field", ["image_context_path", "dockerfile", "base_image", "build_target"])
def test_an_image_that_is_used_as_it_is_is_not_built(place, field) -> None:
    """So what only a build needs is a mistake."""
    value = place / "context" if field == "image_context_path" else "x"
    error = refusal(SandboxSpec(image_ref="an:image", **{field: value}))
    assert str(error) == f"{field}: an image_ref is used as it is, and not built"


def test_a_warm_cache_needs_a_folder(place) -> None:
    """And a cache that is a file, or of a name that cannot be mounted, is refused."""
    said = 'cache_dir: cache_mode="warm" needs the folder to keep between sandboxes'
    assert str(refusal(SandboxSpec(cache_mode="warm"))) == said
    error = refusal(SandboxSpec(cache_mode="warm", cache_dir=place / "file"))
    assert str(error) == f"cache_dir: {place}/file is not a folder"
    error = refusal(SandboxSpec(cache_mode="warm", cache_dir=place / "a,b"))
    assert str(error).endswith("has a comma, a quote or a line break")


@pytest.mark.parametrize(
    "field", ["image_ref", "image_context_path", "dockerfile", "runtime", "platform", "build_target"]
)
def test_a_namespace_has_no_image(place, field) -> None:
    """What a container alone has is not ignored."""
    context = place / "context"
    values = {"image_context_path": context, "dockerfile": "Dockerfile"}
    error = refusal(SandboxSpec(backend="namespace", **{field: values.get(field, "x")}))
    assert str(error) == f"{field}: the namespace backend has no image: it shows this machine's own programs"


def test_the_engines_socket_cannot_be_mounted(tmp_path) -> None:
    """It would give the sandbox the whole machine; nor by a link of another name."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "docker.sock"))
        (tmp_path / "link").symlink_to("docker.sock")
        for name in ("docker.sock", "link"):
            error = refusal(SandboxSpec(extra_mounts=(MountSpec(tmp_path / name, "/x"),)))
            assert str(error) == f"extra_mounts: {tmp_path / name} would give the sandbox the whole host"


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A socket that DOCKER_HOST names, in `run/deep` and with a link to it beside."""
    (tmp_path / "run" / "deep").mkdir(parents=True)
    (tmp_path / "run" / "workspace").mkdir()
    path = tmp_path / "run" / "deep" / "engine"
    monkeypatch.chdir(path.parent)  # for a short name
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("engine")
    (tmp_path / "link").symlink_to(path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    return path


@pytest.mark.parametrize("name", ["run/deep/engine", "link", "run/deep", "run", "run/../run/deep", "other"])
def test_what_is_or_holds_an_engines_socket_is_no_source(tmp_path, engine, name) -> None:
    """As a mount, workspace, artifacts or cache; nor by another name of the same file. A folder beside it is one."""
    os.link(engine, tmp_path / "other")
    said = f"{tmp_path / name} would give the sandbox the whole host: {engine} is the socket of an engine"
    assert str(refusal(SandboxSpec(extra_mounts=(MountSpec(tmp_path / name, "/x"),)))) == f"extra_mounts: {said}"
    if (tmp_path / name).is_dir():
        with pytest.raises(InvalidSpec, match=r"^workspace_dir: .* would give the sandbox the whole host"):
            check_folder("workspace_dir", tmp_path / name)
        error = refusal(SandboxSpec(cache_mode="warm", cache_dir=tmp_path / name))
        assert str(error).startswith("cache_dir: ")
    check(SandboxSpec(extra_mounts=(MountSpec(tmp_path / "run" / "workspace", "/x"),)))
    check_folder("workspace_dir", tmp_path / "run" / "workspace")
    check_folder("workspace_dir", tmp_path / "run" / "not" / "yet")


@pytest.mark.parametrize("source", ["/", "/run", "/var/run"])
def test_the_usual_places_of_an_engine_are_no_sources(source, monkeypatch) -> None:
    """Whatever the environment says; here one that is always there stands in for the daemon's."""
    monkeypatch.setattr("os.path.lexists", lambda path: path == "/run/docker.sock")
    error = refusal(SandboxSpec(extra_mounts=(MountSpec(source, "/x"),)))
    assert (
        str(error)
        == f"extra_mounts: {source} would give the sandbox the whole host: /run/docker.sock is the socket of an engine"
    )


@pytest.mark.parametrize(
    "source",
    [
        *("/proc", "/proc/self", "/proc/self/root/proc", "/proc/self/ns/net", "/sys", "/sys/kernel", "/sys/fs/cgroup"),
        *("/dev", "/dev/fd", "/dev/pts", "/dev/ptmx", "/dev/../proc/sys", "link"),
    ],
)
def test_what_the_hosts_kernel_shows_of_itself_is_no_source(tmp_path, source) -> None:
    """Processes, settings and devices of the host, by any name; a sandbox has its own."""
    (tmp_path / "link").symlink_to("/proc/sys/kernel")
    path = tmp_path / source
    if not path.exists():
        pytest.fail(f"{path}: the machine has none")
    said = str(refusal(SandboxSpec(extra_mounts=(MountSpec(path, "/x"),))))
    assert said.startswith(f"extra_mounts: {path} would give the sandbox "), said
    if path.is_dir():
        with pytest.raises(InvalidSpec, match=r"^workspace_dir: .* would give the sandbox "):
            check_folder("workspace_dir", path)


def test_what_lies_beside_the_kernels_files_is_a_source(tmp_path, monkeypatch) -> None:
    """The control: memory below /dev/shm, and the nodes that every sandbox has; but no folder that holds a /proc."""
    (tmp_path / "file").touch()
    for source in ("/dev/null", "/dev/urandom", tmp_path / "file"):
        check(SandboxSpec(extra_mounts=(MountSpec(source, "/x"),)))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        check_folder("workspace_dir", Path(folder))
    check_folder("workspace_dir", tmp_path)
    (tmp_path / "machine" / "proc").mkdir(parents=True)
    line = f"40 1 0:5 / {tmp_path / 'machine' / 'proc'} rw - proc proc rw\n"
    monkeypatch.setattr("sandbox_runner.linux.sources._own_mounts", lambda: line)
    with pytest.raises(InvalidSpec, match="what the host's kernel shows of itself"):
        check_folder("workspace_dir", tmp_path / "machine")


def test_what_is_kept_of_sandboxes_is_no_source(tmp_path, monkeypatch) -> None:
    """Neither the folder of all states, nor one that holds it or lies in it; what lies beside it is one."""
    memory = tmp_path / "memory"
    state = memory / f"sandbox-runner-{os.geteuid()}" / "one"
    state.mkdir(parents=True)
    (memory / "workspace").mkdir()
    (tmp_path / "link").symlink_to(state)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(memory))
    monkeypatch.setattr(state_module, "_is_in_memory", lambda place: place == str(memory))
    for source in (tmp_path, memory, state.parent, state, tmp_path / "link"):
        error = refusal(SandboxSpec(extra_mounts=(MountSpec(source, "/x"),)))
        said = f"{source} would give the sandbox the secrets of others, which are in {state.parent}"
        assert str(error) == f"extra_mounts: {said}"
        with pytest.raises(InvalidSpec) as raised:
            check_folder("artifacts_dir", source)
        assert str(raised.value) == f"artifacts_dir: {said}"
    check_folder("artifacts_dir", memory / "workspace")
    check_folder("artifacts_dir", memory / f"sandbox-runner-{os.geteuid()}0")


def test_a_spec_does_not_show_the_values_of_variables() -> None:
    """It is printed by many a traceback; so are build arguments not shown."""
    shown = repr(SandboxSpec(env_overrides={"A": "secret"}, build_args={"B": "secret"}))
    assert "secret" not in shown


def test_the_strictest_spec_can_be_used(place) -> None:
    """Nothing but the backend; and one with everything."""
    check(SandboxSpec())
    check(SandboxSpec(backend="docker"))
    check(SandboxSpec(backend="namespace"))
    mounts = (MountSpec(place, "/a"), MountSpec(place / "file", "/run/b", read_only=True))
    resources = ResourceSpec(cpus=0.5, memory="512M", pids_limit=10)
    check(
        SandboxSpec(
            image_context_path=place / "context",
            env_allowlist=["A"],
            extra_mounts=mounts,
            resources=resources,
            loosen=set(WALLS),
        ),
        "a_Name.9",
    )


@pytest.mark.parametrize(
    ("size", "number"),
    [
        *(("1", 1), (5, 5), ("2k", 2048), ("3M", 3 << 20), ("1g", 1 << 30), ("9b", 9)),
        *(
            ("512mb", 512 << 20),
            ("1.5g", 3 << 29),
            ("0.5GiB", 1 << 29),
            ("2 GiB", 2 << 30),
            ("2.25KB", 2304),
            ("64Mi", 64 << 20),
        ),
    ],
)
def test_sizes_are_powers_of_1024(size, number) -> None:
    """As Docker reads them, and as people write them."""
    assert bytes_of(size) == number
    if number > 6 << 20:
        assert SandboxSpec(resources=ResourceSpec(memory=size)).memory_bytes == number


@pytest.mark.parametrize("size", ["1.5", "1.g", "g", "5ib", "1  g", "-1g", "1e9", "\u0663m", ""])
def test_what_is_no_size_is_refused_by_its_name(size) -> None:
    """A part of a byte, a unit alone, a sign, another script's digit."""
    with pytest.raises(InvalidSpec) as caught:
        check(SandboxSpec(resources=ResourceSpec(memory=size or " ")))
    assert f"resources.memory: {size or ' '!r} is not a size" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5", 5),
        ("0.5", 0.5),
        ("90s", 90),
        ("10m", 600),
        ("1.5h", 5400),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("500ms", 0.5),
    ],
)
def test_times_are_seconds_or_have_a_unit(text, seconds) -> None:
    """A number alone counts seconds."""
    assert seconds_of(text) == seconds


def test_no_command_is_run_and_nothing_is_made_for_a_spec_that_cannot_be(stub_docker, tmp_path) -> None:
    """The engine is not even asked whether it is there; the folders are not made."""
    stub = stub_docker()
    told = [(field, value) for field, value, said in REFUSED if "not a folder" not in said]  # that comes behind it
    specs = [SandboxSpec(**{field: replaced(value, tmp_path)}) for field, value in told]
    specs += [SandboxSpec(resources=ResourceSpec(**{field: value})) for field, value, _ in RESOURCES]
    for spec in specs:
        with pytest.raises(InvalidSpec):
            DockerSandbox(tmp_path / "workspace", tmp_path / "artifacts", spec).start()
    for workspace in ("a,b", 'a"b', "a\nb"):
        with pytest.raises(InvalidSpec, match=r"^workspace_dir: .* has a comma, a quote or a line break$"):
            DockerSandbox(tmp_path / workspace, tmp_path / "artifacts", SandboxSpec()).start()
        with pytest.raises(InvalidSpec, match=r"^artifacts_dir: .* has a comma, a quote or a line break$"):
            DockerSandbox(tmp_path / "workspace", tmp_path / workspace, SandboxSpec()).start()
    assert stub.calls == []
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("context", ["nowhere", "file", "empty"])
def test_a_missing_engine_is_said_before_a_missing_context(stub_docker, place, context) -> None:
    """As long as there is no engine, nothing can be built; with one, the context is named, and nothing was made."""
    (place / "empty").mkdir()
    spec = SandboxSpec(image_context_path=place / context)
    stub_docker({"version": {"code": 1, "stderr": "Cannot connect to the Docker daemon"}})
    with pytest.raises(DockerUnavailable):
        DockerSandbox(place / "workspace", place / "artifacts", spec).start()
    stub = stub_docker({"version": {"stdout": "20.10"}})
    with pytest.raises(InvalidSpec, match=r"is not a folder|has no file Dockerfile"):
        DockerSandbox(place / "workspace", place / "artifacts", spec).start()
    assert [call.argv[0] for call in stub.calls] == ["version"]
    assert not (place / "workspace").exists()


@pytest.mark.parametrize("given", [float("nan"), float("inf"), -1, 0, True, "60"])
def test_how_long_commands_take_is_a_time(given: object, tmp_path: Path) -> None:
    """Refused before the engine is asked, and before anything is made."""
    sandbox = DockerSandbox(tmp_path / "w", tmp_path / "a", SandboxSpec(), life_seconds=given)
    with pytest.raises(InvalidSpec, match=r"^life_seconds: .+ must be a number above 0$"):
        sandbox.start()
    assert list(tmp_path.iterdir()) == []
