"""`.ci/engine`, with a stand-in for every program that it starts: what it makes, what it keeps, what it never ends."""

import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

pytestmark = pytest.mark.root

#: `log` holds what was started; `label` the key of the image that the engine has.
DOCKER = """#!/bin/sh
case "$*" in
*.Runtimes*) cat {here}/runtimes ;;
"image inspect"*) [ -e {here}/label ] && cat {here}/label ;;
import*) echo import >> {here}/log; echo "$3" | sed 's/.*=//' > {here}/label ;;
esac
"""
APT_GET = """#!/bin/sh
case "$*" in *indextargets*) ;; *) echo "apt-get $*" >> {here}/log; exit 0 ;; esac
echo "https://elsewhere.example/tools $(. /etc/os-release; echo $VERSION_CODENAME)-tools main"
echo "http://mirror.example/debian/ $(. /etc/os-release; echo $VERSION_CODENAME) main"
echo "http://mirror.example/debian/ $(. /etc/os-release; echo $VERSION_CODENAME) contrib"
"""
DEBOOTSTRAP = """#!/bin/sh
echo "debootstrap $*" >> {here}/log
[ ! -e {here}/broken ] || exit 1
for last; do folder=$mirror mirror=$last; done
mkdir -p "$folder/etc/ssl/certs" "$folder/var/cache/apt/archives" "$folder/var/lib/apt/lists"
"""
STANDINS = {"docker": DOCKER, "apt-get": APT_GET, "debootstrap": DEBOOTSTRAP, "runsc": "#!/bin/sh\n"}


class Machine:
    """A machine whose engine answers, and that has nothing else yet."""

    def __init__(self, here: Path) -> None:
        self.here, self.bundle = here, here / "bundle.crt"
        (here / "bin").mkdir()
        for name, text in STANDINS.items():
            (here / "bin" / name).write_text(text.format(here=here), encoding="utf-8")
            (here / "bin" / name).chmod(0o755)
        (here / "runtimes").write_text("runc runsc \n", encoding="utf-8")
        self.bundle.write_text("the authorities of this machine\n", encoding="utf-8")

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """`.ci/engine arguments…` on it."""
        environ = {
            "PATH": f"{self.here / 'bin'}:/usr/bin:/bin",
            "ISORUN_CI_CACHE": str(self.here / "cache"),
            "ISORUN_CI_STATE": str(self.here / "state"),
            "SSL_CERT_FILE": str(self.bundle),
        }
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [str(ROOT / ".ci/engine"), *arguments], env=environ, stdout=pipe, stderr=pipe, text=True
        )

    def engine(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """The same, to its end."""
        with self.start(*arguments) as started:
            out, err = started.communicate()
        return subprocess.CompletedProcess(arguments, started.returncode, out, err)

    def started(self) -> list[str]:
        """What was started since the last time this was asked."""
        log = self.here / "log"
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [line.split()[0] for line in lines]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_what_is_there_is_not_made_again(machine) -> None:
    """The image is made once; one that the engine lost comes from the cache; other authorities make another one."""
    first = machine.engine()
    assert first.returncode == 0, first.stderr
    assert machine.started() == ["debootstrap", "import"]
    assert machine.engine().stdout == first.stdout
    assert machine.started() == []
    (machine.here / "label").unlink()
    assert machine.engine().returncode == 0
    assert machine.started() == ["import"]
    machine.bundle.write_text("others\n", encoding="utf-8")
    assert machine.engine().returncode == 0
    assert machine.started() == ["debootstrap", "import"]
    assert len(list((machine.here / "cache").glob("base-*"))) == 1


def test_it_says_what_the_tests_need(machine) -> None:
    """Standard output is shell to evaluate, and nothing else: the base image, and that the engine was there before."""
    done = machine.engine()
    shown = subprocess.run(
        ["bash", "-c", f"{done.stdout}\necho $ci_engine; env | grep ^SANDBOX_RUNNER"], capture_output=True, text=True
    )
    assert re.fullmatch(r"found\nSANDBOX_RUNNER_BASE_IMAGE=sandbox-base:[a-z]+\n", shown.stdout)


def test_the_mirror_is_the_machine_s_own(machine) -> None:
    """debootstrap is given the apt source that has the machine's release, with all its components."""
    machine.engine()
    (line,) = [line for line in (machine.here / "log").read_text().splitlines() if line.startswith("debootstrap")]
    assert line.endswith("/root http://mirror.example/debian/")
    assert "--components=main,contrib" in line


def test_a_base_that_could_not_be_made_is_not_kept(machine) -> None:
    """A failure says so and leaves nothing in the cache that a later run would take for an image."""
    (machine.here / "broken").touch()
    done = machine.engine()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(".ci/engine: the base image could not be made\n")
    assert {path.name for path in (machine.here / "cache").iterdir()} == {"lock", "debootstrap.log"}
    (machine.here / "broken").unlink()
    assert machine.engine().returncode == 0


def test_an_engine_without_gvisor_is_refused(machine) -> None:
    """It is not ours to change, so the text says what to add to its configuration."""
    (machine.here / "runtimes").write_text("runc io.containerd.runc.v2 \n", encoding="utf-8")
    done = machine.engine()
    assert (done.returncode, done.stdout) == (1, "")
    assert "does not know gVisor: add runsc to the runtimes of its daemon.json" in done.stderr
    assert machine.started() == []


def test_stop_ends_no_process_that_is_not_our_daemon(machine) -> None:
    """A number in our pid file that is another process's by now is left alone; the one with our configuration ends."""
    state = machine.here / "state"
    state.mkdir()
    configuration = state / "daemon.json"
    configuration.touch()
    other, ours = subprocess.Popen(["sleep", "3600"]), subprocess.Popen(["tail", "-f", configuration])
    try:
        (state / "dockerd.pid").write_text(str(other.pid), encoding="utf-8")
        with machine.start("stop") as stopping:
            assert stopping.wait(timeout=30) == 0
        assert other.poll() is None
        (state / "dockerd.pid").write_text(str(ours.pid), encoding="utf-8")
        with machine.start("stop") as stopping:
            assert ours.wait(timeout=30) == -signal.SIGTERM  # it waits until the process is gone, so we must reap it
            assert stopping.wait(timeout=30) == 0
        assert other.poll() is None
    finally:
        for process in (other, ours):
            process.kill()
            process.wait()
