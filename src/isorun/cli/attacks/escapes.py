"""Ways out of a run, and into another one."""

from functools import partial

from isorun.cli.attacks.attack import Attack

KIND = "Escape and neighbours"
_attack = partial(Attack, KIND)

_KERNEL = """
calls = {
    "io_uring_setup": (8, ctypes.create_string_buffer(120)), "userfaultfd": (1,), "memfd_secret": (0,),
    "bpf": (0, ctypes.create_string_buffer(128), 128),
    "perf_event_open": (ctypes.create_string_buffer(128), 0, -1, -1, 0),
    "keyctl": (0, -3, 1, 0, 0), "kcmp": (os.getpid(), os.getpid(), 1, 0, 0), "fanotify_init": (0x200, 0),
    "name_to_handle_at": (-100, b"/usr", struct.pack("Ii", 64, 0) + bytes(64), bytes(8), 0),
    "seccomp": (2, 0, (ctypes.c_uint32 * 1)(0x7fff0000)), "personality": (0xffffffff,), "syslog": (10, 0, 0),
}
won = any(call(name, *arguments) not in (-errno.EPERM, -errno.ENOSYS) for name, arguments in calls.items())
"""

ATTACKS = (
    _attack(
        "connect to a server on the host's loopback",
        "won = can(lambda: socket.create_connection(('127.0.0.1', {port}), 2))",
        off=("network", "seccomp", "landlock"),
    ),
    _attack(
        "make a socket of any family but AF_UNIX",
        "won = any(can(lambda f=f: socket.socket(f, socket.SOCK_DGRAM)) for f in (2, 10, 16, 17, 38, 40))",
        off=("seccomp",),
    ),
    _attack(
        "read the network's interfaces through a socket",
        """
tools = socket.socket(fileno=os.dup(3)) if can(lambda: os.stat("/proc/self/fd/3")) else socket.socketpair()[0]
names = ctypes.create_string_buffer(4096)
wanted = bytearray(struct.pack("iP", 4096, ctypes.addressof(names)))
won = can(lambda: fcntl.ioctl(tools.fileno(), 0x8912, wanted)) and struct.unpack("i", wanted[:4])[0] > 0
""",
        on_host=True,
    ),
    _attack(
        "hold a socket of the host's network",
        """
def cookie(s): return s.getsockopt(socket.SOL_SOCKET, 71, 8)
try:
    won = cookie(socket.socket(fileno=os.dup(3))) != cookie(socket.socketpair()[0])
except OSError:
    won = False
""",
        no_control="no option gives a slot a socket that was made outside of it",
    ),
    _attack(
        "read a file of the host that anybody may read",
        "won = can(lambda: open('{canary}').read())",
        on_host=True,
    ),
    _attack(
        "write outside of the run's own places",
        """
places = ("/", "/run", "/var/tmp", "/dev", "/workspace")
won = any(can(lambda p=p: open(p + "/planted", "w")) for p in places)
""",
        off=("read_only", "landlock"),
    ),
    _attack(
        "find what an earlier run left",
        """
places = ("/", "/tmp", "/dev/shm", "/run", "/var/tmp", "/dev", "/workspace", "/workspace/work", "/workspace/out")
won = any(os.path.exists(place + "/left-by-an-attack") for place in places)
""",
        before="""
for place in ("/", "/tmp", "/dev/shm", "/run", "/var/tmp", "/dev", "/workspace", "/workspace/work", "/workspace/out"):
    can(lambda: open(place + "/left-by-an-attack", "w").write("x"))
won = True
""",
        no_control="a slot is used once: no option gives it to a second program",
    ),
    _attack(
        "mount a file system",
        "won = call('mount', b'none', b'/tmp', b'tmpfs', 0, 0) == 0",
        off=("seccomp", "landlock", "capabilities"),
    ),
    _attack("make a user namespace", "won = call('unshare', 0x10000000) == 0", off=("seccomp", "rlimits")),
    _attack(
        "make network, pid, mount and IPC namespaces",
        "won = any(call('unshare', flag) == 0 for flag in (0x40000000, 0x20000000, 0x20000, 0x08000000))",
        off=("seccomp", "rlimits", "capabilities"),
    ),
    _attack(
        "make a child that is not the run's (CLONE_PARENT)",
        """
made = call("clone", 0x8000 | 17, 0, 0, 0, 0)
if made == 0:
    os._exit(0)
won = made > 0
""",
        off=("seccomp",),
    ),
    _attack(
        "see init in /proc",
        "won = can(lambda: open('/proc/1/status'))",
        off=("proc",),
        embedded="a container's first process is seen by all of it; what it holds stays shut, see the next",
    ),
    _attack(
        "read the memory of init, or trace it",
        """
reads = can(lambda: open("/proc/1/mem", "rb").read(1))
won = reads or call("ptrace", 16, 1, 0, 0) == 0 or call("process_vm_readv", 1, 0, 0, 0, 0, 0) >= 0
""",
        no_control="init is non-dumpable: the kernel refuses with every other wall left out",
    ),
    _attack(
        "trace another process",
        """
child = os.fork()
if child == 0:
    time.sleep(5)
    os._exit(0)
won = call("ptrace", 16, child, 0, 0) == 0
os.kill(child, 9)
""",
        off=("seccomp",),
    ),
    _attack(
        "read a limit of init's",
        "won = call('prlimit64', 1, 0, 0, ctypes.create_string_buffer(16)) == 0",
        off=("seccomp",),
    ),
    _attack(
        "reach a process of the host by its number",
        "won = can(lambda: os.kill({pid}, 0)) or os.path.exists('/proc/{pid}')",
        on_host=True,
    ),
    _attack("use a part of the kernel that programs do not need", _KERNEL, off=("seccomp",)),
    _attack(
        "take a lease on a file",
        "won = can(lambda: fcntl.fcntl(os.open('mine', os.O_RDWR | os.O_CREAT), 1024, fcntl.F_WRLCK))",
        off=("seccomp",),
    ),
    _attack("make System V shared memory", "won = call('shmget', 0x1501, 4096, 0o1600) >= 0", off=("seccomp",)),
    _attack(
        "hold a descriptor that is not the program's",
        """
known = {0, 1, 2, 3, 6}
won = any(can(lambda n=n: os.fstat(n)) for n in range(64) if n not in known)
""",
        off=("descriptors",),
    ),
    _attack(
        "have a capability",
        "won = any(int(status(name), 16) for name in ('CapEff', 'CapPrm', 'CapInh', 'CapBnd', 'CapAmb'))",
        off=("capabilities",),
    ),
    _attack("learn the host's name", "won = os.uname().nodename != 'isorun'", on_host=True),
    _attack(
        "find a secret of the host's environment",
        """
own = os.environ.values()
others = [open(f"/proc/{pid}/environ").read() for pid in os.listdir("/proc")
          if pid.isdigit() and can(lambda: open(f"/proc/{pid}/environ").read())]
won = any('{secret}' in text for text in (*own, *others))
""",
        on_host=True,
    ),
    _attack(
        "make a device",
        "won = can(lambda: os.mknod('zero', 0o20666, os.makedev(1, 5)))",
        no_control="the kernel refuses it in every user namespace but the machine's own",
    ),
)
