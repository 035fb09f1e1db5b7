"""The bubblewrap command lines, as lists: what is on them is the policy, so a change of one is a change of it."""

from pathlib import Path

from sandbox_runner.namespace.bubblewrap import (
    ETC,
    ETC_TLS,
    Jail,
    View,
    bubblewrap_argv,
    identity_files,
    last_arguments,
    view_arguments,
)
from sandbox_runner.namespace.sandbox import Jail as SameJail
from sandbox_runner.namespace.sandbox import bubblewrap_argv as same_argv


def test_the_line_of_a_jail_is_what_it_was() -> None:
    """isorun builds its slots in it; the names it has imported for long are still there."""
    assert (SameJail, same_argv) == (Jail, bubblewrap_argv)
    jail = Jail(
        binds=[("/a", "/b")], symlinks=[("usr/bin", "/bin")], directories=["/tmp"], files=[(7, "/etc/hosts")],
        devices=["/dev/null"],
    )  # fmt: skip
    assert bubblewrap_argv("bwrap", jail, ["cmd", "-x"]) == [
        "bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net",
        "--unshare-cgroup-try", "--die-with-parent", "--new-session", "--uid", "1001", "--gid", "1000",
        "--hostname", "sandbox", "--proc", "/proc", "--tmpfs", "/dev", "--symlink", "usr/bin", "/bin",
        "--dev-bind", "/dev/null", "/dev/null", "--symlink", "/proc/self/fd", "/dev/fd", "--symlink", "fd/0",
        "/dev/stdin", "--symlink", "fd/1", "/dev/stdout", "--symlink", "fd/2", "/dev/stderr", "--ro-bind", "/a",
        "/b", "--perms", "0444", "--ro-bind-data", "7", "/etc/hosts", "--dir", "/tmp", "--remount-ro", "/dev",
        "--remount-ro", "/", "--", "cmd", "-x",
    ]  # fmt: skip


def machine(root: Path) -> Path:
    """A machine with a merged /usr, some of /etc, and secrets beside it."""
    for folder in ("usr/bin", "usr/lib", "etc/ssl/certs", "etc/ssl/private", "proc/sys", "home/user", "var/lib"):
        (root / folder).mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    (root / "lib").symlink_to("usr/lib")
    for file in ("etc/shadow", "etc/ld.so.cache", "etc/resolv.conf", "proc/kcore"):
        (root / file).write_text("")
    return root


def test_the_view_of_a_sandbox(tmp_path: Path) -> None:
    """All namespaces, no capability, and of the machine what is there of /usr, a list of /etc, and nothing else."""
    assert view_arguments(View(), machine(tmp_path)) == [
        "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
        "--unshare-net", "--die-with-parent", "--new-session", "--hostname", "sandbox", "--cap-drop", "ALL",
        "--dir", "/etc", "--dir", "/var", "--proc", "/proc", "--dev", "/dev",
        "--perms", "1777", "--size", "67108864", "--tmpfs", "/dev/shm",
        "--perms", "0700", "--size", "16777216", "--tmpfs", "/run",
        "--perms", "0700", "--size", "16777216", "--tmpfs", "/var/tmp",
        "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib",
        "--ro-bind", "/etc/ld.so.cache", "/etc/ld.so.cache", "--ro-bind", "/etc/ssl/certs", "/etc/ssl/certs",
        "--ro-bind", "/proc/sys", "/proc/sys", "--ro-bind", "/dev/null", "/proc/kcore",
    ]  # fmt: skip
    assert last_arguments() == ["--remount-ro", "/dev", "--remount-ro", "/"]


def test_what_a_loosened_view_adds(tmp_path: Path) -> None:
    """Capabilities instead of none; the host's network instead of an own one, and with it the names it knows."""
    root = machine(tmp_path)
    strict, capable, opened = (
        view_arguments(view, root) for view in (View(), View(keep_capabilities=True), View(True))
    )
    assert ["--cap-add" if word == "--cap-drop" else word for word in strict] == capable
    assert opened == [
        *(word for word in strict if word != "--unshare-net"), "--ro-bind-try", "/etc/resolv.conf", "/etc/resolv.conf",
    ]  # fmt: skip


def test_a_folder_of_the_kernels_is_shown_empty(tmp_path: Path) -> None:
    """/dev/null can hide a file alone. Machines without dynamic debugging have no such folder."""
    root = machine(tmp_path)
    before = view_arguments(View(), root)
    (root / "proc/dynamic_debug").mkdir()
    hidden = ["--tmpfs", "/proc/dynamic_debug", "--remount-ro", "/proc/dynamic_debug"]
    assert view_arguments(View(), root) == [*before, *hidden]


def test_nothing_of_etc_is_shown_whole() -> None:
    """Folders that hold secrets beside what libraries read are not on the list; nor is the machine's list of users."""
    assert {"/etc", "/etc/ssl", "/etc/pki", "/etc/pki/tls", "/etc/passwd", "/etc/shadow"}.isdisjoint({*ETC, *ETC_TLS})


def test_a_sandbox_names_its_own_user_only() -> None:
    """root keeps its name where the sandbox's user is root: programs ask for it."""
    files = identity_files(1000, 100)
    assert files["/etc/passwd"] == (
        "sandbox:x:1000:100::/tmp:/bin/sh\nnobody:x:65534:65534::/tmp:/bin/sh\nroot:x:0:0::/tmp:/bin/sh\n"
    )
    assert files["/etc/group"] == "sandbox:x:100:\nnogroup:x:65534:\nroot:x:0:\n"
    assert identity_files(0, 0)["/etc/passwd"].startswith("root:x:0:0:")
