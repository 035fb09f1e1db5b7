"""What a program can learn of the host, gathered from inside by many means, is what docs/security.md says of it."""

import json
import os
import re
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.escapes.probing import inside

pytestmark = [pytest.mark.usefixtures("unharmed"), pytest.mark.embedded]

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
CANARY = "ISORUN_TEST_CANARY"
#: Facts as any program can gather them, each by every means that came to mind.
FACTS = """
import array, ctypes, fcntl, platform, struct, subprocess, time
def text(path):
    try:
        return open(path, errors="replace").read()
    except OSError:
        return ""
def asked(number, size, *values):
    room = bytearray(size)
    room[:len(b"".join(values))] = b"".join(values)
    try:
        with open("/usr/bin/env", "rb") as file:
            fcntl.ioctl(file, number, room, True)
        return bytes(room).hex()
    except OSError:
        return ""
def auxv():
    words = array.array("L", open("/proc/self/auxv", "rb").read())
    return {str(words[n]): words[n + 1] for n in range(0, len(words), 2)}
def memory():
    room = ctypes.create_string_buffer(256)
    ctypes.CDLL(None).sysinfo(room)
    return struct.unpack_from("8L", room)
def links(folder):
    return {name: os.readlink(folder + name) for name in os.listdir(folder) if os.path.lexists(folder + name)}
def said(argv):
    try:
        return subprocess.run(argv, capture_output=True, text=True).stdout
    except OSError:
        return ""
ownfiles = ["mountinfo", "mounts", "mountstats", "cgroup", "cpuset", "environ", "cmdline", "maps", "status", "uid_map",
            "limits", "stat", "sched", "net/dev", "net/route", "net/arp", "net/fib_trie", "net/unix", "net/if_inet6",
            "net/tcp", "loginuid", "sessionid", "autogroup"]
hostfiles = ["/proc/version", "/proc/cpuinfo", "/proc/meminfo", "/proc/cmdline", "/proc/sys/kernel/hostname",
             "/proc/sys/kernel/random/boot_id", "/etc/machine-id", "/sys/class/dmi/id/product_uuid", "/proc/net/dev",
             "/proc/partitions", "/proc/diskstats", "/proc/loadavg", "/proc/uptime", "/proc/1/cgroup",
             "/etc/resolv.conf", "/proc/keys", "/proc/locks", "/proc/modules", "/etc/passwd", "/etc/hosts",
             "/etc/hostname", "/etc/shadow"]
answer = {
    "uname": list(os.uname()),
    "own": {name: text("/proc/self/" + name) for name in ownfiles},
    "host": {name: text(name) for name in hostfiles},
    "environment": dict(os.environ),
    "processes": sorted(name for name in os.listdir("/proc") if name.isdigit()),
    "auxv": auxv(),
    "cpus": sorted(os.sched_getaffinity(0)),
    "sysinfo": memory(),
    "load": os.getloadavg(),
    "now": [time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)],
    "hash": hash("isorun"),
    "namespaces": links("/proc/self/ns/"),
    "inodes": [os.fstat(1).st_ino, os.fstat(os.pidfd_open(os.getpid())).st_ino],
    "space": [os.statvfs("/usr").f_blocks, os.statvfs("/usr").f_files],
    "uuid": asked(0x80111500, 17),
    "extents": asked(0xC020660B, 4096, struct.pack("QQIIII", 0, 1 << 40, 0, 0, 10, 0)),
    "times": os.stat(os.__file__).st_mtime_ns,
    "programs": len(os.listdir("/usr/bin")),
    "interfaces": said(["ip", "address"]) + said(["hostname", "-I"]),
    "path": sys.path,
}
"""


_ACCOUNTS = ("root", "isorun", "nobody")  # of every slot: of the host's accounts they tell nothing


def _documented() -> tuple[set[str], set[str]]:
    """The rows of the page's table: what is learned, and what is not."""
    section = PAGE.read_text().split("**What a program can learn.**")[1].split("\n\n**")[0]
    rows = re.findall(r"^\| `([a-z-]+)` \| (yes|no)\b", section, re.MULTILINE)
    return {name for name, word in rows if word == "yes"}, {name for name, word in rows if word == "no"}


def _hosts() -> dict[str, Any]:
    words = Path("/proc/self/auxv").read_bytes()
    pairs = [int.from_bytes(words[n : n + 8], sys.byteorder) for n in range(0, len(words), 8)]
    meminfo = Path("/proc/meminfo").read_text()
    return {
        "auxv": {str(pairs[n]): pairs[n + 1] for n in range(0, len(pairs), 2)},
        "memory": int(meminfo.split("MemTotal:")[1].split()[0]) * 1024,
        "source": next(line.split()[0] for line in _mounts() if line.split()[1] == _mount_of("/usr")),
    }


def _mounts() -> list[str]:
    return Path("/proc/mounts").read_text().splitlines()


def _mount_of(path: str) -> str:
    points = [line.split()[1] for line in _mounts()]
    return max((point for point in points if f"{path}/".startswith(point.rstrip("/") + "/")), key=len)


def _addresses() -> list[str]:
    """The host's own addresses and interfaces, other than those that every host has."""
    names = [name for _, name in socket.if_nameindex() if name != "lo"]
    table = Path("/proc/net/fib_trie").read_text()
    locals_ = {line.split()[1] for line in re.findall(r"\|-- [0-9.]+(?=\n\s+/32 host LOCAL)", table)}
    return [*names, *(address for address in locals_ if not address.startswith("127."))]


def _learned(first: dict[str, Any], second: dict[str, Any], root: Path) -> dict[str, bool]:
    """What the facts of two runs in turn tell, by the names of the page."""
    host, everything = _hosts(), json.dumps([first, second])
    uname = os.uname()
    return {
        "kernel": first["uname"][2] == uname.release,
        "cpu": first["auxv"].get("16") == host["auxv"].get("16") and len(first["cpus"]) <= (os.cpu_count() or 1),
        "load": abs(first["sysinfo"][4] - host["memory"]) < host["memory"] / 50 and any(first["load"]),
        "clock": abs(second["now"][0] - time.time()) < 60
        and abs(second["now"][1] - time.clock_gettime(time.CLOCK_BOOTTIME)) < 60,
        "paths": str(Path(sys.executable).parent.parent) in first["own"]["mountinfo"] or sys.prefix in everything,
        "disk": host["source"] in first["own"]["mountinfo"],
        "disk-space": first["space"] == [os.statvfs("/usr").f_blocks, os.statvfs("/usr").f_files],
        "versions": first["programs"] > 10,
        "file-times": first["times"] == os.stat(os.__file__).st_mtime_ns,
        "hash-secret": first["hash"] == second["hash"],
        "counters": second["inodes"][1] > first["inodes"][1] or second["inodes"][0] > first["inodes"][0],
        "hostname": uname.nodename in (first["uname"][1], first["host"]["/etc/hostname"].strip()),
        "users": not first["host"]["/etc/passwd"]
        or any(line.split(":")[0] not in _ACCOUNTS for line in first["host"]["/etc/passwd"].splitlines()),
        "addresses": any(f'"{found}' in everything or f" {found}" in everything for found in _addresses()),
        "processes": first["processes"] != ["2"],
        "environment": CANARY in everything,
        "workspace-root": str(root) in everything,
        "machine-id": first["host"]["/etc/machine-id"] != f"{b'isorun'.hex():0<32}\n"
        or any(first["host"][name] for name in ("/proc/sys/kernel/random/boot_id", "/proc/cmdline")),
        "other-runs": bool({"2"} ^ set(first["processes"]))
        or first["namespaces"]["pid"] == second["namespaces"]["pid"],
    }


def test_a_program_learns_what_the_page_says(sealed, monkeypatch) -> None:
    """Every row is tried: what is learned is on the list, and what is said not to be learned is not found."""
    monkeypatch.setenv(CANARY, "1")
    first, second = inside(sealed, FACTS), inside(sealed, FACTS)
    learned = _learned(first, second, sealed.root)
    yes, no = _documented()
    sometimes = {"cgroup-name", "extents"}  # where the hierarchy is v1; where the file system tells
    assert {name for name, found in learned.items() if found} == yes - sometimes
    assert {name for name, found in learned.items() if not found} == no


def test_what_depends_on_the_host_is_on_the_page(sealed) -> None:
    """The group's name with the host's number, and where on the disk a file lies, are found or not; both are listed."""
    found = inside(sealed, FACTS)
    yes, _ = _documented()
    assert {"cgroup-name", "extents"} <= yes
    if f"isorun-{os.getpid()}-" in found["own"]["cgroup"]:
        assert sealed.execute("pass").isolation["limits"] == "cgroup-v1"
