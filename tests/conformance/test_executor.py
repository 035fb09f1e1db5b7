"""SPEC A1, on real backends.

Clauses: no network · a read-only root · writable are work/, out/, /tmp and /dev/shm ·
/tmp and /dev/shm are private · they are sized · they are gone at the end · uid 1001 and
gid 1000 · a passwd entry · HOME · minimal environment · UTF-8 mode · TZ=UTC · no AWS_*
or other credentials · files that come back belong to the caller.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import isorun

pytestmark = pytest.mark.usefixtures("sealed")


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET"])
def test_there_is_no_network(run, family) -> None:
    """No socket but a Unix one can be made, so there is nothing to connect with."""
    result = run(f"""
        import errno, socket
        try:
            socket.socket(socket.{family}, socket.SOCK_DGRAM)
        except OSError as error:
            print(errno.errorcode[error.errno])
    """)
    assert result.stdout == "EAFNOSUPPORT\n"


def test_there_is_no_interface_to_name(run) -> None:
    """Even asking for the interfaces takes a socket that cannot be made."""
    result = run("""
        import socket
        try:
            socket.if_nameindex()
        except OSError as error:
            print(error)
    """)
    assert result.stdout == "[Errno 97] Address family not supported by protocol\n"


@pytest.mark.parametrize(
    ("folder", "errno"),
    [
        ("/", 30), ("/etc", 30), ("/usr", 30), ("/usr/bin", 30), ("/dev", 30), ("/workspace", 30),
        ("/var/tmp", 30),         ("/run", 30), ("/proc", 2),
    ],
)  # fmt: skip
def test_the_root_is_read_only(run, kind, folder, errno) -> None:
    """No file can be made outside the four writable folders: EROFS (in /proc nothing can ever be made).

    An engine's /dev is a tmpfs of root's, and the root of its /workspace is the host's: both refuse the executor's
    uid. gVisor asks for that first everywhere.
    """
    if (folder in ("/dev", "/workspace") and kind == "docker") or (kind == "gvisor" and folder != "/var/tmp"):
        errno = 13
    result = run(f"""
        try:
            open(os.path.join({folder!r}, "x"), "w")
        except OSError as error:
            print(error.errno)
    """)
    assert result.stdout == f"{errno}\n"


def test_the_interpreter_is_read_only(run) -> None:
    """The packages that every run shares cannot be changed by one of them."""
    result = run("""
        import json as module, os
        for path in (module.__file__, os.path.dirname(module.__file__)):
            print(os.access(path, os.W_OK))
        try:
            open(module.__file__, "ab")
        except OSError as error:
            print(error.errno)
    """)
    assert result.stdout.split() in (["False", "False", "30"], ["False", "False", "13"])


@pytest.mark.parametrize("folder", ["/workspace/work", "/workspace/out", "/tmp", "/dev/shm"])
def test_writable(run, folder) -> None:
    """Each of the four folders takes a file and gives it back."""
    result = run(f"""
        path = Path({folder!r}) / "mine.txt"
        path.write_text("kept")
        print(path.read_text())
    """)
    assert result.stdout == "kept\n"


def test_tmp_and_shm_are_private_and_gone_at_the_end(run) -> None:
    """What one run leaves in /tmp and /dev/shm no later run sees, and the host never does."""
    name = "conformance-a1-private"
    run(f"for d in ('/tmp', '/dev/shm'): (Path(d) / {name!r}).write_text('x')")
    later = run(f"print([(Path(d) / {name!r}).exists() for d in ('/tmp', '/dev/shm')])")
    assert later.stdout == "[False, False]\n"
    assert not os.path.exists(f"/tmp/{name}")
    assert not os.path.exists(f"/dev/shm/{name}")


@pytest.mark.parametrize(("folder", "limit"), [("/tmp", "tmp_bytes"), ("/dev/shm", "shm_bytes")])
def test_tmp_and_shm_are_sized(run, rt, folder, limit) -> None:
    """Writing more than the limit ends with ENOSPC."""
    result = run(f"""
        import errno
        block, written = bytes(1 << 20), 0
        try:
            while True:  # one file alone would meet the limit of a file
                with open({folder!r} + f"/{{written}}", "wb", buffering=0) as file:
                    for _ in range(32):
                        written += file.write(block)
        except OSError as error:
            print(errno.errorcode[error.errno], written)
    """)
    code, written = result.stdout.split()
    assert (code, int(written)) == ("ENOSPC", getattr(rt.limits, limit))


@pytest.mark.parametrize("folder", ["tempfile.gettempdir()", "'/dev/shm'"])
def test_temporary_files_of_libraries_have_room(run, folder) -> None:
    """An array of 76 MiB is put into a temporary file and shared with workers, as joblib does, under default limits."""
    result = run(f"""
        import mmap, multiprocessing, tempfile
        size = 10_000_000 * 8
        with tempfile.NamedTemporaryFile(dir={folder}) as file:
            for _ in range(8):
                file.write(bytes(size // 8))
            file.flush()
            def last(number):
                with open(file.name, "rb") as shared:
                    return mmap.mmap(shared.fileno(), size, prot=mmap.PROT_READ)[-1] + number
            with multiprocessing.Pool(2) as pool:
                print(pool.map(last, range(2)))
    """)
    assert (result.stdout, result.error) == ("[0, 1]\n", None)


@pytest.mark.parametrize(("memory", "sizes"), [("256M", [64, 32, 32]), ("128m", [32, 16, 16])])
def test_the_writable_folders_follow_the_memory(own, memory, sizes) -> None:
    """Less memory alone may be asked for: /workspace, /tmp and /dev/shm shrink with it."""
    with own(limits=isorun.Limits(memory_bytes=memory)) as rt:
        result = rt.execute(
            "for path in ('/workspace/out', '/tmp', '/dev/shm'):\n"
            "    print(os.statvfs(path).f_blocks * os.statvfs(path).f_frsize >> 20)\n"
        )
    assert [int(size) for size in result.stdout.split()] == sizes


def test_uid_gid_passwd_and_home(run) -> None:
    """Whoever runs isorun, the program is uid 1001 and gid 1000 with a name and a home it can use."""
    result = run("""
        import grp, pwd
        entry = pwd.getpwuid(os.getuid())
        print(json.dumps([os.getuid(), os.geteuid(), os.getgid(), os.getegid(), entry.pw_name, entry.pw_gid,
            grp.getgrgid(1000).gr_name, entry.pw_dir == os.environ["HOME"] == os.path.expanduser("~"),
            os.access(os.environ["HOME"], os.W_OK), os.getgroups()]))
    """)
    *facts, groups = json.loads(result.stdout)
    assert facts == [1001, 1001, 1000, 1000, "isorun", 1000, "isorun", True, True]
    assert set(groups) <= {1000, 65534}


ACCOUNTS = {
    "numbers": ("pwd.getpwuid(0).pw_name, pwd.getpwuid(65534).pw_name, grp.getgrgid(0).gr_name", "root nobody root"),
    "names": (
        "pwd.getpwnam('root').pw_gid, pwd.getpwnam('nobody').pw_uid, grp.getgrnam('nogroup').gr_gid",
        "0 65534 65534",
    ),
    "homes": ("os.path.expanduser('~root'), Path('~nobody/x').expanduser()", "/root /nonexistent/x"),
    "id": ("subprocess.run(['id', '-un', 'root'], capture_output=True, text=True).stdout.strip()", "root"),
    "owner": ("Path('/usr').owner() in ('root', 'nobody'), Path('/usr').group() in ('root', 'nogroup')", "True True"),
    "archive": (
        "tarfile.open(shutil.make_archive('/tmp/a', 'tar', '.', owner='root', group='root')).getmembers()[0].uname",
        "root",
    ),
    "chown": ("shutil.chown('.', 'isorun', 'isorun'), Path('.').owner()", "None isorun"),
}


@pytest.mark.parametrize("name", ACCOUNTS)
def test_root_and_nobody_have_names(run, sealed, name: str) -> None:
    """The accounts that own what a program is shown are found by name and by number."""
    expression, printed = ACCOUNTS[name]
    result = run(f"import grp, pwd, shutil, subprocess, tarfile\nprint({expression})")
    assert (result.stdout, result.stderr) == (f"{printed}\n", "")


STAND_INS = {
    "os-release": (
        "platform.freedesktop_os_release()",
        {"NAME": "Linux", "ID": "linux", "PRETTY_NAME": "Linux in an isorun sandbox"},
    ),
    "machine-id": ("Path('/etc/machine-id').read_text()", "69736f72756e00000000000000000000\n"),
}


@pytest.mark.parametrize("name", STAND_INS)
def test_a_file_of_etc_that_libraries_read_is_made_up(run, embedded, name: str) -> None:
    """What libraries read of the machine is there, and the same on every machine."""
    expression, value = STAND_INS[name]
    assert json.loads(run(f"import platform\nprint(json.dumps({expression}))").stdout) == value


def test_the_interpreter_has_no_options(run, sealed) -> None:
    """`sys.flags` is what the environment asks for and no more, so children obey their PYTHON variables."""
    result = run("""
        import subprocess
        flags = sys.flags
        print(flags.isolated, flags.ignore_environment, flags.no_user_site, flags.safe_path, sys._xoptions)
        look = [sys.executable, "-c", "import mine; print(mine.VALUE, __import__('sys').flags.isolated)"]
        Path("/tmp/mine.py").write_text("VALUE = 7")
        print(subprocess.run(look, env={**os.environ, "PYTHONPATH": "/tmp"}, capture_output=True, text=True).stdout)
    """)
    assert result.stdout == "0 0 0 False {}\n7 0\n\n", result.stderr


OPENED = {
    "stdout": ("with open('/dev/stdout', 'w') as file: file.write('here')", "here", ""),
    "stderr": ("Path('/dev/stderr').write_text('here')", "", "here"),
    "fd": ("open('/dev/fd/1', 'a').write('here')", "here", ""),
    "shell": ("import subprocess; subprocess.run('echo here > /dev/stdout', shell=True)", "here\n", ""),
    "tee": ("import subprocess; subprocess.run(['tee', '/dev/stderr'], input=b'here')", "here", "here"),
    "stdin": ("print(open('/dev/stdin').read(), end='')", "given", ""),
}


@pytest.mark.parametrize("name", OPENED)
def test_the_streams_can_be_opened_by_name(run, name: str) -> None:
    """/dev/stdin, /dev/stdout and /dev/stderr are the program's own streams, for it and for its children."""
    code, stdout, stderr = OPENED[name]
    result = run(code, stdin="given")
    assert (result.stdout, result.stderr) == (stdout, stderr)


MISSING = {
    "memory": ("open('/proc/meminfo')", "the sandbox does not show that file of the machine"),
    "a child's processors": ("Path('/proc/cpuinfo').read_text()", "the sandbox does not show that file of the machine"),
    "sys": ("os.listdir('/sys/class/net')", "the sandbox does not show that file of the machine"),
    "openpty": ("os.openpty()", "a program has no terminal and can make none"),
    "pty": ("import pty; pty.spawn(['true'])", "a program has no terminal and can make none"),
}


@pytest.mark.parametrize("name", MISSING)
def test_what_a_slot_has_not_of_a_machine_has_a_hint(run, embedded, name: str) -> None:
    """A program that asks for the machine or for a terminal is told that they are missing, and what to use."""
    code, hint = MISSING[name]
    result = run(code)
    assert result.status == "failed"
    assert result.error.hint.startswith(hint), result.error


CPUS = """
import multiprocessing, concurrent.futures
print(os.cpu_count(), multiprocessing.cpu_count(), getattr(os, "process_cpu_count", os.cpu_count)())
print(concurrent.futures.ProcessPoolExecutor()._max_workers, len(multiprocessing.Pool()._pool))
"""


@pytest.mark.parametrize(("cpus", "told"), [(1.0, 1), (2.0, 2), (1.5, 2)])
def test_the_number_of_processors_is_the_runs(own, cpus: float, told: int) -> None:
    """What pools ask for is the limit, rounded up, and at most what the machine lets a program have."""
    with own(limits=isorun.Limits(cpus=cpus)) as rt:
        result = rt.execute(CPUS + "print(len(os.sched_getaffinity(0)))", timeout_s=10)
    *said, has = map(int, result.stdout.split())
    assert said == [min(told, has)] * 5, result.stderr


def test_the_environment_is_minimal(run) -> None:
    """The program's variables are these names and no others."""
    names = json.loads(run("print(json.dumps(sorted(os.environ)))").stdout)
    offline = {
        "CONDA_OFFLINE", "HF_HUB_OFFLINE", "PIP_DISABLE_PIP_VERSION_CHECK", "PIP_NO_INDEX", "PIP_NO_INPUT",
        "PIP_RETRIES", "TRANSFORMERS_OFFLINE", "UV_OFFLINE",
    }  # fmt: skip
    assert set(names) - {"PYTHON_CPU_COUNT"} == offline | {  # that one from Python 3.13 on
        "HOME", "LANG", "LC_ALL", "LOGNAME", "MPLBACKEND", "MPLCONFIGDIR", "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS", "OUTPUT_DIR", "PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUTF8",
        "TMPDIR", "TZ", "USER",
    }  # fmt: skip


def test_utf8_mode_and_utc(run) -> None:
    """Text is UTF-8 and times are UTC, here and in a child."""
    result = run("""
        import subprocess
        zone = os.environ["TZ"], time.tzname[0], time.timezone
        print(sys.flags.utf8_mode, sys.getfilesystemencoding(), *zone)
        child = "import sys, time; print(sys.flags.utf8_mode, sys.stdout.encoding, time.tzname[0])"
        print(subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stdout)
    """)
    assert result.stdout.split("\n")[:2] == ["1 utf-8 UTC UTC 0", "1 utf-8 UTC"]


def test_no_credentials_in_files_or_processes(run) -> None:
    """The host's secrets are not in any environment, command line or home that the program can read."""
    result = run("""
        import glob, pathlib
        seen = []
        for path in glob.glob("/proc/*/environ") + glob.glob("/proc/*/cmdline"):
            try:
                seen.append(open(path, errors="replace").read())
            except OSError:
                pass
        print("AKIAEXAMPLE" in "".join(seen), "hush-" in "".join(seen), len(seen) > 0)
        homes = ["/root", *glob.glob("/home/*"), str(Path.home())]
        names = (".aws", ".ssh", ".netrc", ".config", ".bashrc", ".profile", ".bash_history")
        print([f"{home}/{name}" for home in homes for name in names if os.path.lexists(f"{home}/{name}")])
    """)
    assert result.stdout.splitlines() == ["False False True", "[]"]


def test_files_that_come_back_belong_to_the_caller(run) -> None:
    """Every file and folder of the run is owned by whoever called, and readable by them."""
    result = run("""
        os.makedirs("deep/er"); Path("deep/er/a").write_text("a"); os.chmod("deep/er/a", 0o000)
        os.chmod("deep", 0o500); Path("b").write_text("b")
    """)
    assert sorted(result.workspace_diff["created"]) == ["b", "deep/er/a"]
    for folder, _, files in os.walk(result.out_dir):
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            facts = os.stat(path)
            assert (facts.st_uid, facts.st_gid) == (os.geteuid(), os.getegid())
            assert os.access(path, os.R_OK)


def test_a_preload_is_found_below_tmp(own, embedded: str) -> None:
    """The zygote has a /tmp of its own, and shows there what the interpreter needs."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", name], check=True)
        (packages,) = Path(name).glob("lib/python*/site-packages")
        (packages / "beside.py").write_text("x = 1")
        with own({"python": f"{name}/bin/python", "preloads": ("beside",)}) as rt:
            result = rt.execute("import sys; print('beside' in sys.modules)", timeout_s=10)
    assert (result.stdout, result.notices) == ("True\n", ())
