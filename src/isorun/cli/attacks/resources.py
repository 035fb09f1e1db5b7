"""Taking more than a run may have, and not ending."""

from functools import partial

from isorun.cli.attacks.attack import Attack, ended_well

KIND = "Resources"
_attack = partial(Attack, KIND)

ATTACKS = (
    _attack(
        "touch more memory than the ceiling",
        "held = [bytearray(1 << 20) for _ in range(500)]\nwon = True",
        roomy=True,
    ),
    _attack(
        "hold it in children",
        """
children = []
for _ in range(10):
    child = os.fork()
    if child == 0:
        held = bytearray(60 << 20)
        time.sleep(0.5)
        os._exit(0)
    children.append(child)
won = all(os.waitpid(child, 0)[1] == 0 for child in children)
""",
        roomy=True,
    ),
    _attack("hold it in /dev/shm", "won = can(lambda: open('/dev/shm/x', 'wb').write(bytes(20 << 20)))", roomy=True),
    _attack(
        "hold it in shared memory that is unmapped",
        """
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
for _ in range(12):
    at = libc.mmap(None, ctypes.c_size_t(40 << 20), 3, 0x21, -1, ctypes.c_long(0))
    if at == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "refused")
    ctypes.memset(ctypes.c_void_p(at), 1, ctypes.c_size_t(40 << 20))
    libc.munmap(ctypes.c_void_p(at + 4096), ctypes.c_size_t((40 << 20) - 4096))
won = True
""",
        off=("seccomp",),
        roomy=True,
    ),
    _attack(
        "hold it in page tables",
        """
space = mmap.mmap(-1, 192 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, prot=mmap.PROT_READ)
for at in range(0, 192 << 30, 2 << 20):
    space[at]
won = int(status("VmPTE").split()[0]) > 300 << 10
""",
        off=("rlimits",),
        timeout_s=20,
        roomy=True,
    ),
    _attack(
        "fill the workspace with one file",
        """
for n in range(5):
    open(f"x{n}", "wb").write(bytes(7 << 20))
won = True
""",
        roomy=True,
    ),
    _attack(
        "fill it with a million names",
        "for n in range(2000):\n    open(f'x{n}', 'w').close()\nwon = True",
        roomy=True,
    ),
    _attack(
        "write one file above its ceiling",
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nwon = can(lambda: open('x', 'wb').write(bytes(9 << 20)))",
        roomy=True,
    ),
    _attack(
        "fork without end",
        """
for _ in range(100):
    if os.fork() == 0:
        time.sleep(5)
        os._exit(0)
won = True
""",
        roomy=True,
    ),
    _attack("open more files than the ceiling", "files = [os.dup(0) for _ in range(400)]\nwon = True", roomy=True),
    _attack(
        "print without end",
        "for _ in range(24):\n    sys.stdout.write('x' * (1 << 20))\nwon = True",
        judge=ended_well,
        roomy=True,
    ),
    _attack(
        "run past its time, deaf to SIGTERM",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)",
        judge=ended_well,
        honest="won = True",
        timeout_s=1,
    ),
    _attack(
        "stop itself, so that a signal cannot end it",
        "os.kill(os.getpid(), signal.SIGSTOP)",
        judge=ended_well,
        honest="won = True",
        timeout_s=1,
    ),
    _attack(
        "leave a daemon that ignores every signal",
        """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in range(1, 32):
            can(lambda: signal.signal(number, signal.SIG_IGN))
        os.execv("/bin/sleep", ["{token}", "600"])
    os._exit(0)
""",
        judge=lambda result: False,
        checks=("no process",),
        no_control="an option cannot leave out the end of a run",
    ),
    _attack(
        "give the kernel placement policies to keep (mbind)",
        """
page = os.sysconf("SC_PAGE_SIZE")
own = mmap.mmap(-1, page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
at = ctypes.addressof(ctypes.c_char.from_buffer(own))
won = call("mbind", at, page, 1, ctypes.byref(ctypes.c_ulong(1)), 64, 0) == 0
""",
        off=("seccomp",),
    ),
    _attack(
        "give the kernel socket filters to keep",
        """
instructions = struct.pack("HBBI", 6, 0, 0, 0xFFFFFFFF)
text = ctypes.create_string_buffer(instructions)
filter_ = struct.pack("HxxxxxxP", 1, ctypes.addressof(text))
won = can(lambda: socket.socketpair()[0].setsockopt(socket.SOL_SOCKET, 26, filter_))
""",
        off=("seccomp",),
    ),
    _attack(
        "take locks that show no owner (F_OFD_SETLK)",
        """
lock = struct.pack("hhqqixxxx", fcntl.F_WRLCK, 0, 0, 1, 0)
won = can(lambda: fcntl.fcntl(os.open("x", os.O_RDWR | os.O_CREAT), 37, lock))
""",
        off=("seccomp",),
    ),
    _attack(
        "take record locks without end",
        """
for n in range(20):
    place = os.open(f"x{n}", os.O_RDWR | os.O_CREAT)
    for at in range(0, 4000, 2):
        fcntl.lockf(place, fcntl.LOCK_EX, 1, at)
time.sleep(0.5)
won = True
""",
        timeout_s=20,
        no_control="the watcher that counts locks is part of every run",
        host_kernel="they are memory of that kernel, which the container's ceiling holds",
    ),
    _attack(
        "take the host's huge pages",
        "won = call('mmap', 0, 2 << 20, 3, 0x40022, -1, 0) not in (-errno.EPERM, -errno.EINVAL, -errno.ENOSYS)",
        off=("seccomp",),
    ),
    _attack(
        "hand its memory to the host's core handler",
        """
can(lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)))
won = resource.getrlimit(resource.RLIMIT_CORE) != (1, 1)
""",
        off=("rlimits", "seccomp"),
    ),
)
