"""Changing what the program sees: mounts by both interfaces, other roots, device nodes, masks taken away."""

import pytest

from tests.escapes.probing import inside

pytestmark = pytest.mark.usefixtures("unharmed")

#: What must be down before the kernel lets a program mount in its own namespace: three independent refusals.
BARE = ("seccomp", "landlock", "capabilities")
TWO_OF_THREE = [
    pytest.param(("seccomp",), id="no-seccomp"),
    pytest.param(("seccomp", "landlock"), id="no-seccomp-no-landlock"),
    pytest.param(("seccomp", "capabilities"), id="no-seccomp-no-capability-drop"),
    pytest.param(("landlock", "capabilities"), id="no-landlock-no-capability-drop"),
]

OLD = """
os.makedirs("/tmp/at", exist_ok=True)
answer = [said(call("mount", b"none", b"/tmp/at", b"tmpfs", 0, 0)),
          said(call("mount", b"/usr", b"/tmp/at", 0, 4096, 0)),
          said(call("mount", b"/workspace/out", b"/tmp/at", 0, 4096, 0))]
"""
NEW = """
os.makedirs("/tmp/at", exist_ok=True)
context = call("fsopen", b"tmpfs", 1)
created = call("fsconfig", context, 6, 0, 0, 0)
mounted = call("fsmount", context, 1, 0)
answer = [said(context), said(created), said(mounted),
          said(call("move_mount", mounted, b"", AT_FDCWD, b"/tmp/at", 4)),
          said(call("open_tree", AT_FDCWD, b"/usr", 1)),
          said(call("mount_setattr", AT_FDCWD, b"/tmp", 0, (ctypes.c_uint64 * 4)(1), 32))]
"""


def test_the_old_interface_mounts_nothing(sealed, without) -> None:
    """mount(2) of a tmpfs and of binds is refused; with three walls down it is not."""
    assert inside(sealed, OLD) == ["EPERM"] * 3
    assert inside(without(*BARE), OLD) == ["ok"] * 3


def test_the_new_interface_mounts_nothing(sealed, without) -> None:
    """fsopen, fsconfig, fsmount, move_mount, open_tree and mount_setattr are refused; with three walls down
    not."""
    assert inside(sealed, NEW) == ["EPERM"] * 6
    assert inside(without(*BARE), NEW) == ["ok"] * 6


@pytest.mark.embedded
@pytest.mark.parametrize("off", TWO_OF_THREE)
def test_each_wall_alone_holds_mounts(without, off) -> None:
    """Any one of filter, Landlock and missing capabilities refuses both interfaces by itself."""
    assert inside(without(*off), OLD) == ["EPERM"] * 3
    assert "ok" not in inside(without(*off), NEW)[3:4]


MASKS = """
def tried(path):
    return [said(call("umount2", path, 2)), said(call("mount", 0, path, 0, 32 | 4096, 0))]
paths = (b"/proc", b"/dev", b"/usr", b"/etc/passwd", b"/dev/null", b"/workspace")
answer = {path.decode(): tried(path) for path in paths}
"""


def test_masks_are_neither_unmounted_nor_made_writable(sealed) -> None:
    """umount and remount of what hides or protects the host's files are refused."""
    for path, answers in inside(sealed, MASKS).items():
        assert answers == ["EPERM", "EPERM"], path


@pytest.mark.embedded
def test_what_the_jail_mounted_holds_without_three_walls(without) -> None:
    """Mounts that came from the jail are locked together by the kernel, as another user namespace made them.

    The control is the slot's own mounts, which in that state do come off: /proc, /workspace.
    """
    answers = inside(without(*BARE), MASKS)
    for path in ("/dev", "/usr", "/etc/passwd"):
        unmounted, remounted = answers[path]
        assert (unmounted, remounted) == ("EINVAL", "EPERM"), path
    assert answers["/workspace"][0] == "ok"


ROOTS = """
os.makedirs("/tmp/root/old", exist_ok=True)
def escape():
    outer = os.open("/", os.O_RDONLY)
    first = call("chroot", b"/tmp/root")
    if first < 0:
        return said(first)
    os.fchdir(outer)
    for _ in range(64):
        os.chdir("..")
    return said(call("chroot", b"."))
answer = [said(call("pivot_root", b"/tmp/root", b"/tmp/root/old")), escape(), sorted(os.listdir("/"))]
"""


@pytest.mark.embedded
def test_the_root_stays(sealed, without) -> None:
    """pivot_root and chroot are refused; the classic second chroot ends, at best, in the jail's root
    again."""
    pivoted, changed, seen = inside(sealed, ROOTS)
    assert (pivoted, changed) == ("EPERM", "EPERM")
    assert not {"boot", "sys", "srv", "media"} & set(seen)  # of the host's root; /root may hold the interpreter
    pivoted, changed, again = inside(without("seccomp", "capabilities"), ROOTS)
    assert changed == "ok"
    assert again == seen  # twice through the root, and still in the jail: its mount tree has nothing above


NODES = """
import stat
kinds = {"character": stat.S_IFCHR, "block": stat.S_IFBLK, "socket": stat.S_IFSOCK, "fifo": stat.S_IFIFO}
answer = {kind: said(call("mknodat", AT_FDCWD, f"/tmp/{kind}".encode(), bits | 0o600, os.makedev(1, 1)))
          for kind, bits in kinds.items()}
"""


def test_no_device_is_made(sealed, without) -> None:
    """mknod makes FIFOs only; without the filter the kernel still wants a capability of the host for a
    device."""
    assert inside(sealed, NODES) == {"character": "EPERM", "block": "EPERM", "socket": "EPERM", "fifo": "ok"}
    bare = inside(without(*BARE), NODES)
    assert bare == {"character": "EPERM", "block": "EPERM", "socket": "ok", "fifo": "ok"}


@pytest.mark.embedded
def test_what_is_mounted_never_honours_setuid_or_devices(sealed) -> None:
    """Every mount is nosuid, and nodev but for the five nodes bound one by one. No control: mounts are
    fixed."""
    code = """
answer = [line.split()[4:6] for line in open("/proc/self/mountinfo")]
"""
    devices = {f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom")}
    for target, options in inside(sealed, code):
        assert "nosuid" in options.split(","), target
        assert target in devices or "nodev" in options.split(","), target
