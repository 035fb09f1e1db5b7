"""What one run leaves for a later one: files, shells, and modules that Python would import by itself.

The slots of one zygote share the jail's files, so these attacks are made with Landlock
and with seccomp off as well: read-only mounts alone must hold them. The control leaves
those mounts writable.
"""

import os
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest

from isorun.backends.namespace.stand_ins import SYNTHETIC
from tests.escapes.probing import inside

pytestmark = pytest.mark.usefixtures("unharmed")

LAYERS = [
    pytest.param((), id="all-walls"),
    pytest.param(("landlock",), id="no-landlock"),
    pytest.param(("seccomp",), id="no-seccomp"),
    pytest.param(("landlock", "seccomp"), id="mounts-alone"),
]

PLANT = """
places = ["/", "/dev", "/run", "/var", "/var/tmp", "/etc", "/usr", "/usr/bin", "/usr/local/bin", "/workspace"]
def plant(place):
    with open(os.path.join(place, "planted"), "w") as file:
        file.write("left")
answer = {place: attempt(lambda: plant(place)) for place in places}
"""
LOOK = """
places = ["/", "/dev", "/dev/shm", "/tmp", "/run", "/var", "/var/tmp", "/etc", "/usr", "/usr/bin",
          "/usr/local/bin", "/workspace", "/workspace/work", "/workspace/out"]
answer = [place for place in places if os.path.lexists(os.path.join(place, "planted"))]
"""


@pytest.mark.embedded
@pytest.mark.parametrize("off", LAYERS)
def test_nothing_can_be_left_in_a_shared_place(without, off) -> None:
    """No file is made in /, /dev, /run, /var/tmp, /etc, /usr or the workspace's root, by any layer of
    walls."""
    runtime = without(*off)
    assert set(inside(runtime, PLANT).values()) == {"EROFS"}
    assert inside(runtime, LOOK) == []


def test_shared_places_are_poisoned_where_they_are_writable(without) -> None:
    """The control: with the jail's root writable and Landlock off, a later run finds what an earlier one
    left."""
    runtime = without("read_only", "landlock")
    done = inside(runtime, PLANT)
    assert (done["/"], done["/dev"], done["/run"], done["/var/tmp"]) == ("ok", "ok", "ok", "ok")
    assert done["/usr/bin"] == "EROFS"  # bound read-only by its own mount, in every case
    assert {"/", "/dev", "/run", "/var/tmp"} <= set(inside(runtime, LOOK))


def test_private_places_are_new_for_every_run(sealed) -> None:
    """What is left in /tmp, /dev/shm and the workspace is gone: each run has its own tmpfs there."""
    places = ["/tmp", "/dev/shm", "/workspace/work", "/workspace/out"]
    code = f"""
for place in {places}:
    open(os.path.join(place, "planted"), "w").close()
answer = [os.path.exists(os.path.join(place, "planted")) for place in {places}]
"""
    assert inside(sealed, code) == [True] * 4  # the control: the run itself sees what it wrote
    assert inside(sealed, LOOK) == []


SHELL = """
def rename(one, two):
    return attempt(lambda: os.rename(one, two))
def replace(path):
    os.unlink(path)
    os.symlink("/workspace/work/false", path)
answer = [rename("/bin", "/b"), rename("/usr/bin", "/usr/b"), rename("/usr/bin/env", "/usr/bin/e"),
          attempt(lambda: replace("/bin")), attempt(lambda: replace("/usr/bin/sh")),
          attempt(lambda: os.mkdir("/bin2")), attempt(lambda: os.link("/usr/bin/env", "/usr/bin/env2"))]
"""


@pytest.mark.parametrize("off", LAYERS)
def test_the_next_runs_shell_cannot_be_replaced(without, kernel, off) -> None:
    """/bin and what is in it cannot be renamed, removed, linked or replaced, and the next shell is the real
    one."""
    runtime = without(*off)
    answers = inside(runtime, SHELL)
    if kernel == "gvisor" and not off:  # which asks for rights to the folder before it looks at the mount
        assert set(answers) == {"EROFS", "EACCES"}, answers
    else:  # /usr itself is a mount of its own; /bin -> usr/bin is an entry of the jail's root
        assert set(answers) == {"EROFS"} or (answers[1] == "EBUSY" and set(answers) == {"EROFS", "EBUSY"}), answers
    said = inside(runtime, "import subprocess\nanswer = subprocess.getoutput('echo a real shell')")
    assert said == "a real shell"


def test_a_shell_is_replaced_where_the_root_is_writable(without) -> None:
    """The control: /bin is renamed and a planted /bin/sh answers the next run's subprocess(shell=True)."""
    runtime = without("read_only", "landlock", "uts")  # a runtime of its own: its shell is spoilt for good
    code = """
os.rename("/bin", "/bin-old")
os.mkdir("/bin")
with open("/bin/sh", "w") as file:
    file.write("#!/bin-old/sh\\necho PWNED\\n")
os.chmod("/bin/sh", 0o755)
answer = "done"
"""
    assert inside(runtime, code) == "done"
    assert inside(runtime, "import subprocess\nanswer = subprocess.getoutput('echo a real shell')") == "PWNED"


PYTHON = """
import site, subprocess, sysconfig
packages = sysconfig.get_path("purelib")
stdlib = os.path.dirname(os.__file__)
ours = os.path.dirname(sys.modules["isorun"].__file__) if "isorun" in sys.modules else stdlib
def write(path):
    with open(path + ".new", "w") as file:
        file.write("import os; os.environ['POISONED'] = '1'")
    os.replace(path + ".new", path)
targets = {
    ".pth": os.path.join(packages, "poison.pth"),
    "sitecustomize": os.path.join(stdlib, "sitecustomize.py"),
    "sitecustomize of packages": os.path.join(packages, "sitecustomize.py"),
    "usercustomize": os.path.join(site.getusersitepackages(), "usercustomize.py"),
    "pyc": os.path.join(stdlib, "__pycache__", "poison.cpython-311.pyc"),
    "module": os.path.join(stdlib, "json", "__init__.py"),
    "the executor's own": os.path.join(ours, "executor", "loader.py"),
    "ld.so.preload": "/etc/ld.so.preload",
    "ld.so.cache": "/etc/ld.so.cache",
    "profile": "/etc/profile",
    "interpreter": os.path.realpath(sys.executable),
}
def planted(path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write(path)
answer = {name: attempt(lambda: planted(path)) for name, path in targets.items()}
"""
PYTHON_LOOK = """
import importlib, subprocess
code = "import os; print(os.environ.get('POISONED'))"
clean = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
import json as module
variables = ("POISONED", "LD_PRELOAD", "PYTHONPATH", "PYTHONSTARTUP")
answer = [*map(os.environ.get, variables), clean.strip(), "usercustomize" in sys.modules,
          hasattr(module, "poisoned")]
"""
UNTOUCHED = [None, None, None, None, "None", False, False]


@pytest.mark.parametrize("off", LAYERS)
def test_no_module_is_planted_for_a_later_run(without, kernel, off) -> None:
    """.pth, sitecustomize, pyc, a module, the executor, ld.so's files: all refused; the user site is the
    run's own."""
    runtime = without(*off)
    answers = inside(runtime, PYTHON)
    assert answers.pop("usercustomize") == "ok"  # below HOME, which is the slot's /tmp
    wanted = {"EROFS", "EACCES"} if kernel == "gvisor" and not off else {"EROFS"}  # as above
    assert set(answers.values()) == wanted, answers
    assert inside(runtime, PYTHON_LOOK) == UNTOUCHED


def test_a_planted_module_reaches_the_same_run_only(sealed) -> None:
    """The control: planted where a run may write, and asked for, a sitecustomize is imported by its child."""
    code = """
import subprocess
os.mkdir("/tmp/evil")
with open("/tmp/evil/sitecustomize.py", "w") as file:
    file.write("import os; os.environ['POISONED'] = '1'")
argv = [sys.executable, "-c", "import os; print(os.environ.get('POISONED'))"]
environment = {**os.environ, "PYTHONPATH": "/tmp/evil"}
answer = subprocess.run(argv, env=environment, capture_output=True, text=True).stdout
"""
    assert inside(sealed, code) == "1\n"
    assert inside(sealed, PYTHON_LOOK) == UNTOUCHED


def test_variables_and_patched_modules_end_with_their_run(sealed) -> None:
    """LD_PRELOAD, PYTHONPATH and a patched module live in one process; the zygote never sees them."""
    code = """
import json
os.environ.update(LD_PRELOAD="/tmp/evil.so", PYTHONPATH="/tmp/evil", PYTHONSTARTUP="/tmp/evil.py")
os.environ["POISONED"] = "1"
json.poisoned = True
sys.path.insert(0, "/tmp/evil")
sys.modules["usercustomize"] = json
answer = [os.environ["PYTHONPATH"], hasattr(json, "poisoned")]
"""
    assert inside(sealed, code) == ["/tmp/evil", True]
    assert inside(sealed, PYTHON_LOOK) == UNTOUCHED


def test_no_interpreter_of_the_host_imports_what_a_run_left(sealed, tmp_path) -> None:
    """Modules in a run's results are data: no path of the host's own Python leads to the workspace root."""
    result = sealed.execute("for name in ('sitecustomize.py', 'x.pth'): open(name, 'w').write('import this')")
    assert [artifact.path for artifact in result.artifacts] == ["sitecustomize.py", "x.pth"]
    assert not any(Path(entry).is_relative_to(result.out_dir.parent) for entry in sys.path if entry)
    assert not result.out_dir.is_relative_to(sysconfig.get_path("purelib"))


@pytest.mark.embedded
def test_devices_cannot_be_changed(sealed, without) -> None:
    """The five devices are the host's own nodes: modes, owners, attributes and names stay as they are."""
    before = {name: os.stat(f"/dev/{name}") for name in ("null", "zero", "full", "random", "urandom")}
    code = """
def tried(path):
    return [attempt(lambda: os.chmod(path, 0o777)), attempt(lambda: os.chown(path, 1001, 1000)),
            attempt(lambda: os.setxattr(path, "user.x", b"1")), attempt(lambda: os.unlink(path)),
            attempt(lambda: os.utime(path))]
answer = {name: tried("/dev/" + name) for name in ("null", "zero", "full", "random", "urandom")}
"""
    for answers in inside(sealed, code).values():
        assert answers == ["EROFS"] * 5
    # The control: the time of the host's node is anybody's to set where its mount is writable.
    assert {answers[4] for answers in inside(without("read_only"), code).values()} == {"ok"}
    for name, status in before.items():
        after = os.stat(f"/dev/{name}")
        assert (after.st_mode, after.st_uid, after.st_gid) == (status.st_mode, status.st_uid, status.st_gid)


MADE_UP = """
def changed(path):
    def replaced():
        with open(path + ".new", "w") as file:
            file.write("root::0:0::/:/bin/sh")
        os.replace(path + ".new", path)
    return [attempt(lambda: open(path, "a").close()), attempt(lambda: os.truncate(path, 0)), attempt(replaced)]
open("own", "w").close()
places = ["/etc/passwd", "/etc/group", "/etc/os-release", "/etc/machine-id", "own"]
answer = [changed(path) for path in places] + [[open(path).read() for path in places[:4]]]
"""


@pytest.mark.embedded
@pytest.mark.parametrize("off", [(), ("read_only", "landlock")])
def test_the_made_up_files_of_etc_cannot_be_changed(without, off) -> None:
    """No run writes, empties or replaces an account or the machine's id, which every slot of the jail shows. A file
    that a run owns shows that it can."""
    *shown, own, texts = inside(without(*off), MADE_UP)
    assert {said for answers in shown for said in answers} <= {"EROFS", "EACCES", "EBUSY"}
    assert own == ["ok"] * 3
    assert texts == [SYNTHETIC[path] for path in ("/etc/passwd", "/etc/group", "/etc/os-release", "/etc/machine-id")]


def test_attributes_of_shared_files_cannot_be_set(sealed, kernel) -> None:
    """No mode, owner, time or xattr of a shared file carries a message. Files that a run owns show that it
    can."""
    code = """
open("own", "w").close()
def tried(path):
    return [attempt(lambda: os.chmod(path, 0o755)), attempt(lambda: os.utime(path)),
            attempt(lambda: os.setxattr(path, "user.x", b"1"))]
answer = [tried("/etc/passwd"), tried("/usr/bin/env"), tried(os.__file__), tried("own")]
"""
    *shared, own = inside(sealed, code)
    assert shared == [{"linux": ["EROFS"] * 3, "gvisor": ["EPERM", "EACCES", "EACCES"]}[kernel]] * 3
    assert own[:2] == ["ok", "ok"]


ENTRY_POINTS = """
from importlib import metadata
def planted(path):
    with open(path, "w") as file:
        file.write("[pytest11]\\nevil = evil")
paths = [str(metadata.distribution(name).locate_file(f"{name}-{metadata.version(name)}.dist-info/entry_points.txt"))
         for name in ("isorun", "sandbox_runner")]
answer = [[attempt(lambda: planted(path)), attempt(lambda: os.unlink(path)), open(path).read()] for path in paths]
"""


@pytest.mark.embedded
@pytest.mark.parametrize("off", [(), ("landlock",), ("read_only", "landlock")])
def test_no_plug_in_is_announced_for_a_later_run(without, off) -> None:
    """The empty lists of entry points in the place of isorun's own are neither written nor taken away."""
    answers = inside(without(*off), ENTRY_POINTS)
    assert {said for *attempts, _ in answers for said in attempts} <= {"EROFS", "EACCES", "EBUSY"}
    assert [text for *_, text in answers] == ["", ""]
    # The control: outside each list has something in it, which could be loaded.
    assert all(metadata.distribution(name).entry_points for name in ("isorun", "sandbox_runner"))
