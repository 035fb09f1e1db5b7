"""The spawner: the process that forks workers, and a monitor process for each of them.

Theory of operation. A supervisor starts one spawner with exec, so that nothing of the supervisor's memory, environment
or descriptors is in it. The spawner imports the modules of isorun that a worker needs, and nothing of a bundle, and
waits for requests. A request carries two sockets, the worker's and the monitor's. The spawner forks, because to start
Python takes twenty times as long. The child is the monitor: it makes the namespaces and starts the worker in them
(see `kernel.processes.tree`). It reports to the supervisor by lines: `started PID` or `refused REASON`, at last how the
worker ended. A byte on the monitor's socket, or its end, has the worker and all that it started killed. So has the
supervisor's death, which ends the spawner and with it every monitor. What a worker that was killed in the middle of a
call left in its temporary folder, the monitor removes; what a killed monitor leaves, `isorun cleanup` removes.
"""

import gc
import os
import shutil
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from isorun.kernel import caps, fds, rlimits, seccomp
from isorun.kernel.libc import prctl
from isorun.kernel.processes.owner import Owner
from isorun.kernel.processes.tree import ProcessTree
from isorun.supervisor.worker import socket_filter
from isorun.supervisor.worker.modes import NO_SOCKETS, SUPERVISOR_NETWORK
from isorun.supervisor.worker.process import serve

_PR_SET_PDEATHSIG = 1
_MIB = 1 << 20
TEMPORARY = "isorun-worker-"  # how the name of a worker's temporary folder begins; its monitor's `Owner` is next
DATA_BYTES = 1024 * _MIB
_CPU_S = 3600  # of one worker
_PROCESSES = 256  # only in a user namespace, where the worker's processes alone are counted
_RLIMITS = (
    ("RLIMIT_DATA", DATA_BYTES, DATA_BYTES),  # a tool that asks for more gets a MemoryError
    ("RLIMIT_CPU", _CPU_S, _CPU_S),  # for a worker that outlives its deadline
    # Exactly 1: at 0 a core_pattern that begins with a pipe gets the dump, see `rlimits`.
    ("RLIMIT_CORE", 1, 1),
)
#: The capabilities that root's tools need to write for the run's owner. Not among them: SYS_ADMIN and SYS_PTRACE, with
#: which a worker would join the supervisor's network or read its memory; NET_ADMIN, SYS_MODULE and the rest.
_CHOWN, _DAC_OVERRIDE, _DAC_READ_SEARCH, _FOWNER, _FSETID, _KILL, _SETGID, _SETUID = _CAPABILITIES = tuple(range(8))


def main() -> NoReturn:
    """Serve requests for workers. Argument 1 is the descriptor of a socket, argument 2 the supervisor's pid."""
    code = 70
    try:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == int(sys.argv[2]):
            code = _serve(socket.socket(fileno=int(sys.argv[1])))
    except BaseException:  # noqa: BLE001 - it is shown, and the process ends
        traceback.print_exc()
    finally:
        os._exit(code)


def _serve(channel: socket.socket) -> int:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps monitors that have ended
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # isorun's code may have come over stdin
    gc.freeze()
    while True:
        network, descriptors, _ = fds.receive(channel, 64)
        if not network:
            return 0
        worker, monitor = descriptors
        try:
            if not os.fork():
                channel.close()
                _monitor(worker, monitor, network.decode())
        except OSError as error:
            _report(monitor, f"refused {error.strerror}")
        os.close(worker)
        os.close(monitor)


def _monitor(worker: int, monitor: int, network: str) -> NoReturn:
    code = 70
    try:
        try:
            tree = _process_tree(network)
            no_sockets = socket_filter.build() if network == NO_SOCKETS else b""
        except OSError as error:
            _report(monitor, f"refused {error.strerror}")
        else:
            with _temporary_folder():
                pid = tree.start(lambda: _work(worker, no_sockets, limit_processes=tree.has_user_namespace))
                os.close(worker)
                _report(monitor, f"started {pid}")
                how = tree.wait(monitor)
            _report(monitor, how)
        code = 0
    except BaseException:  # noqa: BLE001 - it is shown, and the process ends, and with it the worker
        traceback.print_exc()
    finally:
        os._exit(code)


def _process_tree(network: str) -> ProcessTree:
    try:
        return ProcessTree(network=network == SUPERVISOR_NETWORK)
    except OSError:
        if network != NO_SOCKETS:
            raise
        # In a container without rights: a worker that can make no socket needs no network namespace.
        return ProcessTree(network=True)


@contextmanager
def _temporary_folder() -> Iterator[None]:
    """Where `tempfile` makes what it makes, from here on and in the worker; gone in the end, with all that is in it."""
    before = tempfile.gettempdir()
    try:
        folder = tempfile.mkdtemp(prefix=f"{TEMPORARY}{Owner.of_this_process()}-")
    except OSError:  # read-only or full, say: then a tool that needs one is told so
        yield
        return
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    try:
        yield
    finally:
        os.environ["TMPDIR"] = tempfile.tempdir = before
        shutil.rmtree(folder, ignore_errors=True)  # all that wrote in it is dead


def _report(monitor: int, line: str) -> None:
    with suppress(OSError):  # the supervisor is dead, or has closed its end
        os.write(monitor, f"{line}\n".encode())


def _work(worker: int, seccomp_filter: bytes, *, limit_processes: bool) -> int:
    """In the worker: drop what it must not have, then serve."""
    fds.keep_only({0: 0, 1: 1, 2: 2, 3: worker})
    processes = (("RLIMIT_NPROC", _PROCESSES, _PROCESSES),) if limit_processes else ()
    rlimits.apply((*_RLIMITS, *processes))
    caps.no_new_privileges()
    caps.keep_only(() if limit_processes else _CAPABILITIES)
    if seccomp_filter:
        seccomp.load(seccomp_filter)
    os.setsid()
    return serve(3)
