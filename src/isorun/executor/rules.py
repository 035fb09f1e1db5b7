"""The fixed facts of the inside of every slot: ids, paths, names."""

UID = 1001
GID = 1000
HOSTNAME = "isorun"
WORKSPACE = "/workspace"
WORK = "/workspace/work"
OUT = "/workspace/out"
MODELS_OUT = "/mnt/data"  # the same: a name for it that models have learnt elsewhere
HANDOVER = "/run/isorun"  # in a container: where init finds the host, once, to hand it the workspace
HANDOVER_SOCKET = "workspace.sock"
LOADER = "main.py"
PROGRAM = "user_code.py"
#: The text of `LOADER`.
MAIN = b'''"""The loader: runs user_code.py, the program, as __main__. Written by isorun; not part of the program."""

from isorun.executor.loader import execute

execute()
'''
STDIN_FILE = ".isorun-stdin"  # in work/: what the caller gave as stdin
LAST_TRACE = ".isorun-last-trace"  # in work/: where faulthandler writes what ran at a crash, and at SIGTERM
VALUE = ".isorun-value"  # in work/, with an ending for each form: the value of the last expression
LEFT = ".isorun-left"  # in work/: the names of files in /tmp that the program may have meant to keep
FIGURES = ".isorun-figures"  # in work/: the names in out/ of figures that nobody had saved
STDIN, STDOUT, STDERR, TOOLS, CONTROL, TRACE = 0, 1, 2, 3, 4, 6
#: Tools that every program finds; where it was not granted them, they are there to be denied with a reason.
EXEC_TOOLS = ("execute_code_python", "execute_code_python_side_effect")
ZERO = "/dev/zero"
#: Files of /tmp and of /dev/shm at most, each. Without a cgroup nothing counts their some 1000 bytes of kernel memory.
SCRATCH_INODES = 16_384
#: Of /proc/PID/net: what is there, which IPv4 addresses, and which ways lead where.
NETWORK_FILES = ("dev", "fib_trie", "route", "ipv6_route")
DEVICES = ("/dev/null", ZERO, "/dev/full", "/dev/random", "/dev/urandom")


def scratch_inodes(size: int) -> int:
    """How many files a tmpfs of *size* bytes may hold. A file needs a block, so a small one is full before that."""
    return min(max(size // 4096, 64), SCRATCH_INODES)
