"""executor.interior: what a slot shows and refuses by its mounts, in namespaces of a child's own."""

import errno
import os
from collections.abc import Callable

import pytest

from isorun.executor import interior, rules
from isorun.kernel import caps, landlock, mounts, namespaces
from tests.conftest import Require
from tests.unit.forked import after, errno_of, in_child
from tests.unit.records import SEALING

pytestmark = pytest.mark.uid

NEW = namespaces.NEWUSER | namespaces.NEWNS


@pytest.fixture
def devices(require: Require, monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """The errno of reading and writing /dev/zero, of changing its mode and removing it, and what is in /dev/shm."""
    uid, gid = os.getuid(), os.getgid()
    if in_child(lambda: errno_of(lambda: namespaces.unshare(NEW))):
        require("user", "this user may make no user namespaces")

    def seen(*, cgroup: bool, abi: int) -> list[object]:
        monkeypatch.setattr(landlock, "abi", lambda: abi)
        made = after(
            lambda: namespaces.unshare(NEW),
            lambda: namespaces.map_identity(uid, gid),
            mounts.make_private,
            lambda: mounts.tmpfs("/dev/shm", size=1 << 20, inodes=64, mode=0o1777),
            *(lambda path=path: mounts.bind(path, path) for path in rules.DEVICES),
            lambda: interior._devices(SEALING.changed(cgroup=cgroup)),
            caps.drop_all,
        )
        return made(
            lambda: [
                *(errno_of(lambda how=how: os.close(os.open(rules.ZERO, how))) for how in (os.O_RDONLY, os.O_WRONLY)),
                errno_of(lambda: os.chmod(rules.ZERO, 0o666)),
                errno_of(lambda: os.unlink(rules.ZERO)) in (errno.EACCES, errno.EBUSY, errno.EPERM),
                os.listdir("/dev/shm"),
            ]
        )

    return seen


def test_where_neither_a_cgroup_nor_landlock_is_zero_cannot_be_opened(devices) -> None:
    """Who may write to it has shared memory that nothing counts; the file in its place stays as it is."""
    assert devices(cgroup=False, abi=0) == [errno.EACCES, errno.EACCES, errno.EROFS, True, []]
    # Control: where one of them holds that line, the node itself is there, with its times and mode out of reach.
    for held in ({"cgroup": True, "abi": 0}, {"cgroup": False, "abi": 1}):
        assert devices(**held) == [0, 0, errno.EROFS, True, []]
