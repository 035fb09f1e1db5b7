"""A program process, from the zygote's fork to the program's first instruction.

The steps run in the order written; each gives up something for good, and seccomp is
last because the steps before it need calls that it refuses. Until `Go` this process
runs our code alone; the control socket is closed before the program's first
instruction, so nothing that a program does can reach the host through it.
"""

import os
import random
import signal
import socket
import struct
import sys
from collections.abc import Callable

from isorun.executor import init, interior, loader, rules
from isorun.executor.packets import Stream
from isorun.executor.steps import StepFailed, enter
from isorun.kernel import caps, fds, landlock, namespaces, rlimits, seccomp
from isorun.wire.messages import (
    Attached,
    ForkProgram,
    Go,
    Joined,
    Message,
    Put,
    Ready,
    SetupError,
    Started,
    StoreError,
)
from isorun.wire.session import Session, Side, State


def run(message: ForkProgram, descriptors: list[int], kept: list[str], program: loader.Loader) -> int:
    """Become the slot of *message*, wait for the program and run it. Returns its exit code.

    *descriptors*: init's pidfd, control, stdout, stderr. *kept*: see `interior.steps`.
    *program* was made by the zygote. Long because the order of these steps is the security argument.
    """
    pidfd, control_fd, stdout, stderr = descriptors
    # The pid namespace was entered by the fork itself.
    namespaces.join(pidfd, init.flags(message.sealing.without) & ~namespaces.NEWPID)
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    wanted = {
        rules.STDIN: null,
        rules.STDOUT: stdout,
        rules.STDERR: stderr,
        rules.TOOLS: null,  # its place: the stream is made once the namespaces are ours
        rules.CONTROL: control_fd,
    }
    if "descriptors" in message.sealing.without:
        wanted[_LEFT_OPEN] = null
    fds.keep_only(wanted)
    control = Stream(socket.socket(fileno=rules.CONTROL), Session(Side.SLOT, Side.HOST, State.NEW))
    try:
        caps.set_dumpable(True)  # joining cleared it, and with it the right to write our own id maps
        enter(interior.steps(message.sealing, kept))
        opened = interior.open_for_host()
        control.send(Joined(), [*opened, tool_stream()])
        if not isinstance(control.receive(), Attached):
            return 70
        abi = seal(message)
    except StepFailed as failure:
        control.send(SetupError(step=failure.step, reason=failure.reason))
        return 70
    program.enter()
    program.rehearse(rehearsed(rules.WORKSPACE))
    # Everything else is read by the host, from outside.
    control.send(Ready(isolation={"landlock_abi": abi, "hostname": os.uname().nodename, "sockets": socket_answers()}))
    go = store_until_go(control, rules.WORKSPACE)
    if go is None:
        return 70
    control.send(Started())
    control.close()
    return program.run(go)


def tool_stream() -> int:
    """The host's end of a tool stream whose other end is ours.

    Made here: a socket belongs for ever to the network namespace that made it, and tells its holder about that network.
    """
    ours, theirs = socket.socketpair()
    with ours:
        os.dup2(ours.fileno(), rules.TOOLS, inheritable=False)
    return theirs.detach()


def seal(message: ForkProgram, *, give_up_capabilities: Callable[[], None] = caps.drop_all) -> int:
    """Every one-way step after the namespaces. Returns the Landlock ABI (0: this kernel has none)."""
    sealing = message.sealing
    table = rlimits.table(
        processes=sealing.nproc,
        data_bytes=sealing.data_bytes,
        file_bytes=sealing.file_bytes,
        open_files=sealing.open_files,
    )
    abi = 0

    def restrict() -> None:
        nonlocal abi
        abi = landlock.restrict(
            ("/",),
            (rules.WORK, rules.OUT, "/tmp", "/dev/shm"),
            devices=[path for path in rules.DEVICES if sealing.cgroup or path != rules.ZERO],
            tcp=sealing.loopback,
        )

    enter(
        tuple(
            step
            for step in (
                ("session", os.setsid),
                ("cpu", lambda: _pin(message.cpu)),
                ("rlimits", lambda: rlimits.apply(table, may_lack=sealing.may_lack)),
                ("random state", reseed),
                ("working directory", lambda: os.chdir(rules.OUT)),
                ("capabilities", give_up_capabilities),
                ("no_new_privs", caps.no_new_privileges),
                ("landlock", restrict),
                ("seccomp", lambda: seccomp.load(message.filter)),
            )
            if step[0] not in sealing.without
        )
    )
    return abi


#: By which a filter is told from another: what it answers to `socket` of each.
_TRIED = {
    "inet": (socket.AF_INET, socket.SOCK_STREAM, 0),
    "inet6": (socket.AF_INET6, socket.SOCK_DGRAM, 0),
    "raw": (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "netlink": (socket.AF_NETLINK, socket.SOCK_RAW, 0),
    "packet": (socket.AF_PACKET, socket.SOCK_RAW, 0),
}


def socket_answers() -> dict[str, int]:
    """The errno of making a socket of each kind here, 0 where it is made. No file tells which filter stands."""
    return {name: _answer(*kind) for name, kind in _TRIED.items()}


def _answer(family: int, kind: int, protocol: int) -> int:
    try:
        socket.socket(family, kind, protocol).close()
    except OSError as error:
        return error.errno or 0
    return 0


_LEFT_OPEN = 9  # what a slot made without that wall still holds


def reseed() -> None:
    """Random state was copied by the fork; no two runs may share it."""
    random.seed()
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        # Given a seed, numpy does not build a SeedSequence, which would take a millisecond.
        numpy.seed(list(struct.unpack("8I", os.urandom(32))))


def store_until_go(control: Stream, workspace: str) -> Go | None:
    """Write what the host sends into *workspace*, and return its `Go`; None once the host is gone."""
    while True:
        message: Message | None = control.receive()
        match message:
            case Put():
                try:
                    _store(workspace, message)
                except OSError as error:
                    reason = error.strerror or str(error)
                    control.send(StoreError(path=message.path, reason=reason, errno=error.errno))
                    return None
            case Go():
                signal.signal(signal.SIGINT, signal.default_int_handler)
                return message
            case _:
                return None


def rehearsed(workspace: str) -> Go:
    """Take a `Go`, and a file before it, that we send ourselves: see `loader.Loader.rehearse`."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(loader.REHEARSAL)
        control = Stream(ours, Session(Side.SLOT, Side.HOST, State.READY))
        go = store_until_go(control, workspace)
        assert go is not None
        control.send(Started())
        control.close()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return go


def _store(workspace: str, message: Put) -> None:
    path = os.path.join(workspace, message.path)
    folder, is_folder = os.path.dirname(path), message.path.endswith("/")
    if is_folder or os.path.dirname(folder) != workspace:  # work/ and out/ are there
        os.makedirs(folder, exist_ok=True)
    if is_folder:
        return
    how = os.O_APPEND if message.append else os.O_CREAT | os.O_EXCL
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | how, message.mode)
    try:
        view = memoryview(message.data)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)


def _pin(cpu: int | None) -> None:
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
