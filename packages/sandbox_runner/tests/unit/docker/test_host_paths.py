"""Paths of the engine's host: where they come from, which folder counts, what the errors say, and the canary."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_runner.docker.command import DockerCli
from sandbox_runner.docker.host_paths import HostPaths, Surroundings, prove
from sandbox_runner.errors import InvalidSpec, SandboxStartFailed
from sandbox_runner.spec import MountSpec

ID = "3f" * 32
OTHER = "a0" * 32
HOST = Surroundings(marked=False, hostname="desk", cgroup="0::/user.slice\n", mountinfo="")
UPPER = "/var/lib/docker/overlay2/11/diff"
OVERLAY = f"279 345 0:53 / / rw - overlay overlay rw,lowerdir=/l,upperdir={UPPER},workdir=/w"
HOSTNAME_OF = "297 279 254:0 /var/lib/docker/containers/{}/hostname /etc/hostname rw - ext4 /dev/vda rw"
WORKSPACE_MOUNT = "300 279 254:0 /srv/ws /workspace rw - ext4 /dev/vda rw"
IN_CONTAINER = Surroundings(
    marked=True,
    hostname="box",
    cgroup="0::/\n",
    mountinfo="\n".join([OVERLAY, HOSTNAME_OF.format(ID), WORKSPACE_MOUNT]),
)
REMEDY = (
    "If this process runs in a container, start that with `-v /host/folder:{0}`, where /host/folder is the folder of "
    "the engine's host; if it has one there already, say which: "
    "`-e SANDBOX_FOLDER={0} -e HOST_SANDBOX_FOLDER=/host/folder`"
)


class Engine(DockerCli):
    """A daemon that knows *containers*, and remembers what it was asked."""

    def __init__(self, *containers: dict[str, Any]) -> None:
        self.containers, self.asked = containers, []

    def inspect(self, kind: str, name: str) -> dict[str, Any] | None:
        assert kind == "container"
        self.asked.append(name)
        return next((one for one in self.containers if one["Id"].startswith(name)), None)


def container(
    *mounts: dict[str, str], name: str = ID, upper: str = UPPER, tmpfs: tuple[str, ...] = ()
) -> dict[str, Any]:
    return {
        "Id": name,
        "GraphDriver": {"Data": {"UpperDir": upper}},
        "Mounts": list(mounts),
        "HostConfig": {"Tmpfs": dict.fromkeys(tmpfs, "")},
    }


def bind(source: str, destination: str, kind: str = "bind") -> dict[str, str]:
    return {"Type": kind, "Source": source, "Destination": destination}


WS = bind("/srv/ws", "/workspace")


# Where they come from


def test_outside_a_container_a_path_is_the_same_and_the_engine_is_not_asked() -> None:
    """An ordinary machine: identity, without a call of the CLI."""
    engine = Engine()
    paths = HostPaths.discover(None, engine, {"HOME": "/root"}, surroundings=HOST)
    assert (paths, paths.translate("/srv/x"), engine.asked) == (HostPaths(), "/srv/x", [])
    assert paths.describe() == "the engine sees our paths"


def test_the_explicit_map_wins_over_the_environment_and_the_mounts() -> None:
    """The first source that says anything is the only one, and for the explicit map the engine is not asked."""
    engine, environ = Engine(container(WS)), {"W": "/workspace", "HOST_W": "/srv/env"}
    paths = HostPaths.discover({"/workspace": "/srv/given"}, engine, environ, surroundings=IN_CONTAINER)
    assert (paths.translate("/workspace/a"), engine.asked) == ("/srv/given/a", [])
    assert paths.describe() == "host paths, from the given host_paths: /workspace -> /srv/given"


@pytest.mark.parametrize("pair", [("work", "/srv"), ("/work", "srv")])
def test_an_explicit_map_must_have_absolute_paths(pair: tuple[str, str]) -> None:
    """A relative path would mean another folder to the daemon."""
    with pytest.raises(InvalidSpec, match=rf"^host_paths: '{pair[0]}': '{pair[1]}' must both be absolute paths$"):
        HostPaths.discover(dict([pair]), Engine(), {}, surroundings=HOST)


def test_the_environment_wins_over_the_mounts() -> None:
    """HOST_NAME beside NAME is what whoever started our container said."""
    environ = {"WORKSPACE_ROOT": "/workspace", "HOST_WORKSPACE_ROOT": "/srv/env"}
    paths = HostPaths.discover(None, Engine(container(WS)), environ, surroundings=IN_CONTAINER)
    assert paths.translate("/workspace/a") == "/srv/env/a"
    assert paths.describe() == "host paths, from HOST_WORKSPACE_ROOT: /workspace -> /srv/env"


@pytest.mark.parametrize(
    "environ",
    [
        {"HOST_W": "/srv/env"},
        {"W": "/workspace"},
        {"W": "workspace", "HOST_W": "/srv/env"},
        {"W": "/workspace", "HOST_W": "tcp"},
        {"W": "/workspace", "HOST_W": ""},
        {"PATH": "/usr/bin:/bin", "HOST_PATH": "/usr/local/bin"},
        {"PATH": "/usr/bin", "HOST_PATH": "/usr/local/bin:/bin"},
    ],
)
def test_half_a_pair_or_a_list_of_paths_is_no_pair(environ: dict[str, str]) -> None:
    """Other programs have variables that begin with HOST_, too."""
    assert HostPaths.discover(None, Engine(), environ, surroundings=HOST) == HostPaths()


def test_outside_a_container_a_path_that_no_pair_names_stays() -> None:
    """A HOST_ pair that means something else must not stop a machine on which no path needs translation."""
    paths = HostPaths.discover(None, Engine(), {"W": "/work", "HOST_W": "/srv"}, surroundings=HOST)
    assert (paths.translate("/work/a"), paths.translate("/other")) == ("/srv/a", "/other")


@pytest.mark.parametrize(
    ("around", "asked"),
    [
        (Surroundings(False, "3f" * 6, "", OVERLAY), ["3f" * 6]),
        (Surroundings(False, "box", f"9:pids:/docker/{ID}\n8:cpu:/docker/{ID}\n", OVERLAY), [ID]),
        (Surroundings(False, "box", f"0::/system.slice/docker-{ID}.scope\n", OVERLAY), [ID]),
        (Surroundings(False, "box", f"9:pids:/docker/{OTHER}/docker/{ID}\n", OVERLAY), [ID]),
        (Surroundings(True, "box", "0::/\n", f"{OVERLAY}\n{HOSTNAME_OF.format(ID)}"), [ID]),
    ],
    ids=["hostname", "cgroup-v1", "systemd", "nested", "mountinfo"],
)
def test_our_own_container_is_found_by(around: Surroundings, asked: list[str]) -> None:
    """By its id in the hostname, the cgroup or the files in /etc; binds and volumes have a path of the host."""
    engine = Engine(container(WS, bind("/var/lib/docker/volumes/v/_data", "/vol", "volume")))
    paths = HostPaths.discover(None, engine, {}, surroundings=around)
    assert (paths.translate("/workspace/a"), paths.translate("/vol")) == (
        "/srv/ws/a",
        "/var/lib/docker/volumes/v/_data",
    )
    assert engine.asked == asked


def test_a_container_the_daemon_does_not_know_has_the_daemon_in_it() -> None:
    """A daemon that runs in our container sees our paths; if it runs elsewhere, the canary says so."""
    assert HostPaths.discover(None, Engine(), {}, surroundings=IN_CONTAINER) == HostPaths()


def test_a_container_whose_network_we_share_is_not_ours() -> None:
    """`--network container:X` gives us the files of X in /etc; its root is another, so its mounts say nothing."""
    engine = Engine(container(WS, upper="/var/lib/docker/overlay2/22/diff"))
    assert HostPaths.discover(None, engine, {}, surroundings=IN_CONTAINER) == HostPaths()
    assert engine.asked == [ID]


@pytest.mark.parametrize(("mount", "is_ours"), [(WS, True), (bind("/srv/ws", "/not-here"), False)])
def test_without_overlay2_the_mounts_must_be_there(mount: dict[str, str], is_ours: bool) -> None:
    """An engine that does not name its upper folder: all mounts of our container are mounts here."""
    found = HostPaths.discover(None, Engine({**container(mount), "GraphDriver": None}), {}, surroundings=IN_CONTAINER)
    assert (found == HostPaths()) is not is_ours


def test_a_container_called_like_our_hostname_is_not_ours() -> None:
    """An engine finds a container by its name too, and a name may look like an id."""

    class ByName(Engine):
        def inspect(self, kind: str, name: str) -> dict[str, Any] | None:
            return container(WS, name=OTHER)

    assert HostPaths.discover(None, ByName(), {}, surroundings=Surroundings(True, "3f" * 6, "", OVERLAY)) == HostPaths()


# Which folder counts


def mapped(**folders: str) -> HostPaths:
    return HostPaths.discover({f"/{ours}": theirs for ours, theirs in folders.items()}, Engine(), {}, surroundings=HOST)


def test_a_folder_holds_whole_names_only() -> None:
    """/bundles2 is not below /bundles."""
    paths = mapped(bundles="/srv/b")
    assert (paths.translate("/bundles"), paths.translate("/bundles/2")) == ("/srv/b", "/srv/b/2")
    with pytest.raises(SandboxStartFailed, match=r"^/bundles2: "):
        paths.translate("/bundles2")


def test_the_longest_folder_counts_whatever_the_order() -> None:
    """A mount within a mount hides what is below it."""
    for order in ({"/w": "/1", "/w/x": "/2"}, {"/w/x": "/2", "/w": "/1"}):
        paths = HostPaths.discover(order, Engine(), {}, surroundings=HOST)
        assert [paths.translate(path) for path in ("/w/x/y", "/w/xy", "/w")] == ["/2/y", "/1/xy", "/1"]


def test_the_root_may_be_mapped() -> None:
    """A machine seen through another one's mount point."""
    assert HostPaths.discover({"/": "/mnt/vm"}, Engine(), {}, surroundings=HOST).translate("/a") == "/mnt/vm/a"
    assert mapped(w="/").translate("/w/a") == "/a"


def test_links_and_dots_are_resolved_in_our_view(tmp_path: Path) -> None:
    """A link out of the mount must not be handed to the daemon as a path within it, nor one into it be missed."""
    inner, outer = tmp_path / "mounted", tmp_path / "outer"
    inner.mkdir()
    outer.mkdir()
    (inner / "out").symlink_to(outer)
    (outer / "in").symlink_to(inner)
    paths = HostPaths.discover({str(inner): "/srv"}, Engine(), {}, surroundings=HOST)
    assert paths.translate(outer / "in" / "x") == "/srv/x"
    assert paths.translate(inner / "out" / ".." / "mounted" / "y") == "/srv/y"  # not /srv/mounted/y
    with pytest.raises(SandboxStartFailed) as failed:
        paths.translate(inner / "out")
    assert str(failed.value).startswith(f"{inner}/out ({outer}): the engine's host has no path for it")


def test_a_folder_may_be_named_by_a_link(tmp_path: Path) -> None:
    """Paths are resolved before they are compared, so the map must be too."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    paths = HostPaths.discover({str(tmp_path / "link"): "/srv"}, Engine(), {}, surroundings=HOST)
    assert paths.translate(tmp_path / "link" / "a") == "/srv/a"


names = st.text(st.sampled_from("ab2"), min_size=1, max_size=3)


@given(folders=st.lists(st.lists(names, min_size=1, max_size=3), min_size=1, unique_by=tuple), below=st.lists(names))
def test_what_is_below_a_folder_is_below_its_host_folder(folders: list[list[str]], below: list[str]) -> None:
    """For any set of folders: the rest of the path is kept, behind the longest folder that is a prefix by names."""
    there = {f"/nowhere/{'/'.join(folder)}": f"/host/{number}" for number, folder in enumerate(folders)}
    path = [*folders[0], *below]
    prefixes = [folder for folder in folders if path[: len(folder)] == folder]
    longest = max(prefixes, key=len)
    paths = HostPaths.discover(there, Engine(), {}, surroundings=HOST)
    wanted = "/".join([f"/host/{folders.index(longest)}", *path[len(longest) :]])
    assert paths.translate("/nowhere/" + "/".join(path)) == wanted


# What the errors say


def test_a_path_of_no_mount_is_an_error_that_says_what_to_mount() -> None:
    """The path, the mounts there are, where that is known from, and the options to type."""
    paths = HostPaths.discover(None, Engine(container(WS)), {}, surroundings=IN_CONTAINER)
    with pytest.raises(SandboxStartFailed) as failed:
        paths.translate("/data/set")
    assert str(failed.value) == (
        "/data/set: the engine's host has no path for it, because no mount of this container holds it. The mounts "
        f"are /workspace -> /srv/ws (from the mounts of our own container 3f3f3f3f3f3f). {REMEDY.format('/data/set')}"
    )


def test_without_any_mount_every_path_is_an_error() -> None:
    """A container that shares no folder cannot have one mounted: identity would mount another folder of the host."""
    paths = HostPaths.discover(None, Engine(container()), {}, surroundings=IN_CONTAINER)
    with pytest.raises(SandboxStartFailed, match=r"The mounts are none \(from"):
        paths.translate("/data")


@pytest.mark.parametrize("how", ["Tmpfs", "Mounts"])
def test_memory_within_a_mount_is_an_error(how: str) -> None:
    """A tmpfs below a mounted folder hides what the host has there."""
    memory = {"Type": "tmpfs", "Source": "", "Destination": "/workspace/tmp"}
    ours = container(WS, tmpfs=("/workspace/tmp",)) if how == "Tmpfs" else container(WS, memory)
    paths = HostPaths.discover(None, Engine(ours), {}, surroundings=IN_CONTAINER)
    assert paths.translate("/workspace/tmpx") == "/srv/ws/tmpx"
    with pytest.raises(SandboxStartFailed, match=r"because /workspace/tmp is in this container's memory\."):
        paths.translate("/workspace/tmp/x")


def test_a_folder_mounted_within_memory_is_the_hosts() -> None:
    """The nearest mount counts, whichever kind it is."""
    ours = container(bind("/srv/ws", "/workspace/sub"), tmpfs=("/workspace",))
    around = Surroundings(True, "box", f"0::/docker/{ID}\n", OVERLAY)
    paths = HostPaths.discover(None, Engine(ours), {}, surroundings=around)
    assert paths.translate("/workspace/sub/x") == "/srv/ws/x"
    with pytest.raises(SandboxStartFailed, match=r"because /workspace is in this container's memory\."):
        paths.translate("/workspace/x")


def test_for_a_file_the_remedy_mounts_its_folder(tmp_path: Path) -> None:
    """A mounted file stays the old one when it is replaced; its folder does not."""
    (tmp_path / "file").touch()
    with pytest.raises(SandboxStartFailed) as failed:
        mapped(w="/srv").translate(tmp_path / "file")
    assert str(failed.value).endswith(REMEDY.format(tmp_path))


# The canary

Reader = Callable[[str], bytes | None]


def sandbox(**mounts: Path) -> Reader:
    """What a sandbox reads that has these folders at these names."""

    def read_inside(path: str) -> bytes | None:
        _, name, file = path.split("/")
        found = mounts[name] / file
        return found.read_bytes() if found.exists() else None

    return read_inside


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    made = [tmp_path / "one", tmp_path / "two"]
    for folder in made:
        folder.mkdir()
    return made


def test_the_right_folders_are_proved_and_left_as_they_were(folders: list[Path]) -> None:
    """Each is looked at, whether the line break comes back or not; nothing remains."""
    one, two = folders
    mounts = [MountSpec(one, "/a"), MountSpec(two, "/b")]
    assert prove(mounts, HostPaths(), sandbox(a=one, b=two)) == []
    assert prove(mounts, HostPaths(), lambda path: (sandbox(a=one, b=two)(path) or b"").rstrip(b"\n")) == []
    assert [list(folder.iterdir()) for folder in folders] == [[], []]


def test_a_mount_that_is_another_folder_is_named_with_all_its_paths(folders: list[Path]) -> None:
    """Ours, the host's and the sandbox's, where the translation is from, and what to do."""
    one, two = folders
    paths = HostPaths.discover({str(one.parent): "/srv"}, Engine(), {}, surroundings=HOST)
    with pytest.raises(SandboxStartFailed) as failed:
        prove([MountSpec(one, "/a"), MountSpec(two, "/b")], paths, sandbox(a=one, b=one))
    assert str(failed.value) == (
        f"/b in the sandbox is not {two}: it has no file where we have one. The engine's host mounted its "
        f"/srv/two (host paths, from the given host_paths: {one.parent} -> /srv), or the sandbox's user may not read "
        f"there. {REMEDY.format(two)}"
    )
    assert [list(folder.iterdir()) for folder in folders] == [[], []]


def test_a_file_of_that_name_with_other_content_proves_nothing(folders: list[Path]) -> None:
    """The content is random too, so a folder that invents every file is not taken for ours."""
    with pytest.raises(SandboxStartFailed, match=r"^/a in the sandbox is not .*/one: it has not the file that we have"):
        prove([MountSpec(folders[0], "/a")], HostPaths(), lambda path: b"")


def test_the_canary_is_removed_when_the_reader_fails(folders: list[Path]) -> None:
    """Whatever happens, also when the engine breaks off in the middle."""

    def breaks(path: str) -> bytes | None:
        assert list(folders[0].iterdir()) == [folders[0] / Path(path).name]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prove([MountSpec(folders[0], "/a")], HostPaths(), breaks)
    assert list(folders[0].iterdir()) == []


def test_a_canary_the_sandbox_removed_is_no_error(folders: list[Path]) -> None:
    """It may write there, and was seen before."""

    def steals(path: str) -> bytes | None:
        read = sandbox(a=folders[0])(path)
        (folders[0] / Path(path).name).unlink()
        return read

    assert prove([MountSpec(folders[0], "/a")], HostPaths(), steals) == []


def test_every_user_may_read_the_canary_whatever_our_umask(folders: list[Path]) -> None:
    """The sandbox's user may be another, and two canaries never have one name."""
    seen = []

    def looks(path: str) -> bytes | None:
        seen.append(path)
        assert stat.S_IMODE((folders[0] / Path(path).name).stat().st_mode) == 0o444
        return sandbox(a=folders[0])(path)

    before = os.umask(0o077)
    try:
        for _ in range(2):
            prove([MountSpec(folders[0], "/a")], HostPaths(), looks)
    finally:
        os.umask(before)
    assert len(set(seen)) == 2


def test_files_and_folders_we_may_not_write_to_are_told_as_unproved(tmp_path: Path) -> None:
    """Nothing can be said about them, and a read-only folder is no reason not to start."""
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")  # opening it would wait for a writer
    mounts = [MountSpec(path, "/a") for path in (tmp_path / "file", tmp_path / "fifo", "/proc/sys", tmp_path / "none")]
    unproved = prove(mounts, HostPaths(), lambda path: b"")
    assert unproved == [str(mount.host_path) for mount in mounts]
