"""SPEC B3, B6: what is copied from a dead run's out/, what is refused, and that the host is untouched."""

import ctypes
import hashlib
import os
import resource
import signal
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Ids, Require

from isorun.core.errors import InvalidRequest
from isorun.store.collect import Collected, collect, diff, fingerprints
from tests.unit.forked import in_child

pytestmark = pytest.mark.uid

SECRET = "the host's own\n"
PROMISED = "turn_1/files/report.md"


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "out"
    folder.mkdir()
    yield folder
    # Python's own rmtree recurses, so a tree as deep as these tests make would stop pytest's cleaning up.
    subprocess.run(["rm", "-rf", folder, tmp_path / "taken"], check=True)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Path]:
    """A file of the host's beside out/, which must be what it was when the test ends."""
    file = tmp_path / "secret"
    file.write_text(SECRET)
    file.chmod(0o640)
    yield file
    assert file.read_text() == SECRET
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def taken(
    out: Path,
    *,
    max_bytes: int = 1 << 20,
    max_entries: int = 1000,
    reserved: Callable[[str], bool] = lambda path: False,
) -> Collected:
    destination = out.parent / "taken"
    destination.mkdir()
    before = len(os.listdir("/proc/self/fd"))
    fd = os.open(out, os.O_RDONLY)
    try:
        return collect(fd, destination, reserved=reserved, max_bytes=max_bytes, max_entries=max_entries)
    finally:
        os.close(fd)
        assert len(os.listdir("/proc/self/fd")) == before


def refusals(collected: Collected) -> list[tuple[str, str, str]]:
    return [(refusal.path, refusal.code, refusal.reason) for refusal in collected.refused]


def copied(out: Path) -> dict[str, bytes]:
    root = out.parent / "taken"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if not path.is_dir()}


def put(out: Path, path: str, data: bytes = b"x") -> Path:
    file = out / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def test_a_regular_file_is_copied_and_recorded(out: Path) -> None:
    """The record holds path, size, sha256 of what was copied, and the type the suffix promises."""
    put(out, PROMISED, b"# Report\n")
    (record,) = taken(out).files.values()
    assert (record.path, record.bytes, record.mime) == (PROMISED, 9, "text/markdown")
    assert record.sha256 == hashlib.sha256(b"# Report\n").hexdigest()
    assert copied(out) == {PROMISED: b"# Report\n"}


def test_empty_folders_are_not_copied(out: Path) -> None:
    """A folder without files leaves nothing on the host."""
    (out / "a/b/c").mkdir(parents=True)
    assert taken(out) == Collected(files={}, refused=())
    assert list((out.parent / "taken").iterdir()) == []


@pytest.mark.parametrize("target", ["{host}", "../secret", "nowhere", "report.md", "/proc/self/fd"])
def test_a_symlink_is_refused_wherever_it_leads(out: Path, host: Path, target: str) -> None:
    """Absolute, relative, dangling, looping: a link is neither followed nor copied."""
    (out / "report.md").symlink_to(target.format(host=host))
    collected = taken(out)
    assert refusals(collected) == [("report.md", "artifact_symlink_blocked", "is a symbolic link")]
    assert (collected.files, copied(out)) == ({}, {})


def test_a_directory_replaced_by_a_link_is_not_entered(out: Path, host: Path) -> None:
    """A link in the place of a promised file's folder is refused itself; nothing behind it is read."""
    (out / "turn_1").mkdir()
    (out / "turn_1/files").symlink_to(host.parent)
    collected = taken(out)
    assert refusals(collected) == [("turn_1/files", "artifact_symlink_blocked", "is a symbolic link")]
    assert copied(out) == {}


def test_a_fifo_under_a_promised_name_does_not_block(out: Path) -> None:
    """A FIFO without a writer would hang a reader that opens it."""
    os.mkfifo(out / "report.md")
    assert refusals(taken(out)) == [("report.md", "artifact_not_regular_file", "is a FIFO")]


def test_a_socket_is_refused(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket file is not connected to and not copied."""
    monkeypatch.chdir(out)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("report.md")
        assert refusals(taken(out)) == [("report.md", "artifact_not_regular_file", "is a socket")]


@pytest.mark.root
def test_a_device_is_refused(out: Path, require: Require) -> None:
    """A device is never opened: opening one can already have an effect."""
    try:
        os.mknod(out / "report.md", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        require("root", "root here may not make devices")
    assert refusals(taken(out)) == [("report.md", "artifact_not_regular_file", "is a character device")]


@pytest.mark.root
def test_another_file_system_is_not_entered(out: Path, require: Require) -> None:
    """A mount beneath out/ is somebody else's tree, so it counts as an escape."""
    (out / "mounted").mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(out / "mounted"), b"tmpfs", 0, b"size=64k"):
        require("root", "root here may not mount")
    try:
        put(out, "mounted/file")
        expected = ("mounted", "artifact_path_escape_blocked", "lies on another file system")
        assert refusals(taken(out)) == [expected]
    finally:
        libc.umount2(os.fsencode(out / "mounted"), 0)


def test_hard_links_within_out_are_plain_files(out: Path) -> None:
    """Two names of one file become two files; neither is linked on the host."""
    put(out, "a", b"same")
    os.link(out / "a", out / "b")
    assert set(taken(out).files) == {"a", "b"}
    assert (out.parent / "taken/a").stat().st_nlink == 1


def nested(out: Path, depth: int) -> None:
    fd = os.open(out, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


def test_1000_nested_folders_exhaust_neither_descriptors_nor_the_stack(out: Path) -> None:
    """The walk stops where a path is over 1,024 bytes; 20 descriptors are enough for it."""
    nested(out, 1000)

    def few() -> list[tuple[str, str, str]]:
        most = 7 + max(map(int, os.listdir("/proc/self/fd")))  # what the session has open was inherited
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        return refusals(taken(out))

    reason = "is 1025 bytes long; the limits are 255 a part and 1024 in all"
    assert in_child(few) == [["/".join("d" * 513), "artifact_name_refused", reason]]


def test_500_nested_folders_are_copied(out: Path) -> None:
    """A deep path within the limit comes back whole, with few descriptors on either side."""
    nested(out, 500)

    def few() -> list[str]:
        most = 7 + max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        return list(taken(out).files)

    assert in_child(few) == ["/".join([*"d" * 500, "file"])]
    assert (out.parent / "taken" / "/".join("d" * 500) / "file").is_file()


def test_more_entries_than_the_limit_are_left_out_in_one_refusal(out: Path) -> None:
    """What lies beyond max_entries is neither looked at nor listed one by one."""
    for number in range(50):
        put(out, f"many/{number:02}")
    collected = taken(out, max_entries=11)
    assert len(collected.files) == 10
    reason = "out/ holds more than 11 entries; the others were left out"
    assert refusals(collected) == [(".", "artifact_too_large", reason)]


def test_exactly_as_many_entries_as_the_limit_are_taken(out: Path) -> None:
    """The limit itself is allowed."""
    put(out, "many/a")
    assert taken(out, max_entries=2).refused == ()


@pytest.mark.parametrize(
    ("name", "path", "reason"),
    [
        (b"\xff\xfe.md", r"\xff\xfe.md", "the name is not UTF-8"),
        (b"a\nok: b", r"a\nok: b", "the name holds a control character"),
        (b"\xff\n", r"\xff\n", "the name is not UTF-8"),
        (b"\x1b[2J", r"\x1b[2J", "the name holds a control character"),
        ("a\u2028b".encode(), r"a\u2028b", "the name holds a control character"),
        (b"a\\nb\n", r"a\\nb\n", "the name holds a control character"),
    ],
)
def test_a_name_that_breaks_a_log_is_refused_and_shown_escaped(out: Path, name: bytes, path: str, reason: str) -> None:
    """Files and folders alike; a folder's refusal stands for what is in it."""
    os.mkdir(os.path.join(os.fsencode(out), name))
    os.close(os.open(os.path.join(os.fsencode(out), name, b"f"), os.O_CREAT | os.O_WRONLY))
    assert refusals(taken(out)) == [(path, "artifact_name_refused", reason)]


@pytest.mark.parametrize("name", ["\u202egpj.exe", "n" * 255, "é" * 127, "e\u0301.md", " ", "-rf", "..."])
def test_a_strange_but_valid_name_is_kept(out: Path, name: str) -> None:
    """RTL marks, 255 bytes and unnormalised letters come back byte for byte."""
    put(out, name)
    assert list(taken(out).files) == [name]
    assert copied(out) == {name: b"x"}


def test_names_that_differ_only_in_case_or_normal_form_are_two_files(out: Path) -> None:
    """Neither overwrites the other."""
    names = {"A": b"1", "a": b"2", "\u00e9": b"3", "e\u0301": b"4"}
    for name, data in names.items():
        put(out, name, data)
    assert set(taken(out).files) == set(names)
    assert copied(out) == names


def test_a_reserved_name_is_refused_whatever_it_is(out: Path, host: Path) -> None:
    """A forged result.json, or a whole logs/ made by the program, never reaches the host."""
    put(out, "result.json", b"{}")
    put(out, "logs/user.log", b"forged")
    (out / "tool_calls_index.json").symlink_to(host)
    collected = taken(out, reserved=lambda path: path in {"result.json", "logs", "tool_calls_index.json"})
    reason = "the runtime writes this name itself"
    assert refusals(collected) == [
        (path, "artifact_reserved_name", reason) for path in ("logs", "result.json", "tool_calls_index.json")
    ]
    assert copied(out) == {}


def test_what_the_destination_already_holds_is_never_written(out: Path, host: Path) -> None:
    """A file or a link that stands in the destination is not overwritten and not written through."""
    put(out, "a", b"forged")
    put(out, "b/c", b"forged")
    put(out, "d", b"fine")
    put(out, "e", b"forged")
    destination = out.parent / "taken"
    destination.mkdir()
    (destination / "e").write_bytes(b"ours")
    (destination / "a").symlink_to(host)
    (destination / "b").symlink_to(host.parent)
    fd = os.open(out, os.O_RDONLY)
    collected = collect(fd, destination, reserved=lambda path: False, max_bytes=99, max_entries=99)
    os.close(fd)
    assert [(path, code) for path, code, _ in refusals(collected)] == [
        ("a", "artifact_reserved_name"),
        ("e", "artifact_reserved_name"),
        ("b/c", "artifact_reserved_name"),
    ]
    assert list(collected.files) == ["d"]
    assert (destination / "e").read_bytes() == b"ours"
    assert not (host.parent / "c").exists()


def test_a_sparse_tebibyte_does_not_fill_the_hosts_disk(out: Path) -> None:
    """The apparent size decides, and the files that fit are still copied."""
    with (out / "huge").open("wb") as file:
        file.truncate(1 << 40)
    put(out, "small")
    collected = taken(out, max_bytes=100)
    reason = "has 1099511627776 bytes, 100 of 100 for all files are left"
    assert refusals(collected) == [("huge", "artifact_too_large", reason)]
    assert copied(out) == {"small": b"x"}


def test_max_bytes_is_the_sum_of_all_files(out: Path) -> None:
    """Many files that each fit cannot pass the limit together; the limit itself is allowed."""
    put(out, "a", b"x" * 60)
    put(out, "b", b"x" * 60)
    put(out, "c", b"x" * 40)
    collected = taken(out, max_bytes=100)
    assert list(collected.files) == ["a", "c"]
    reason = "has 60 bytes, 40 of 100 for all files are left"
    assert refusals(collected) == [("b", "artifact_too_large", reason)]


def test_a_file_of_several_chunks_is_whole(out: Path) -> None:
    """More than one mebibyte is copied in pieces and hashed over all of them."""
    data = os.urandom((2 << 20) + 7)
    put(out, "big.bin", data)
    collected = taken(out, max_bytes=1 << 30)
    assert collected.files["big.bin"].sha256 == hashlib.sha256(data).hexdigest()
    assert copied(out) == {"big.bin": data}


@pytest.mark.user
def test_mode_000_is_read_by_the_ordinary_user_who_owns_it(out: Path, ordinary_user: Ids | None) -> None:
    """A program cannot hide a file, a folder, or out/ itself by its mode."""
    put(out, "shut/file", b"hidden")
    put(out, "unlisted/file", b"hidden")
    put(out, "file", b"hidden")

    def close_and_take() -> list[str]:
        for path, mode in (("shut", 0), ("unlisted", 0o400), ("file", 0), ("", 0)):
            os.chmod(out / path, mode)
        destination = out.parent / "taken"
        destination.mkdir()
        collected = collect(fd, destination, reserved=lambda path: False, max_bytes=99, max_entries=99)
        return [*collected.files, *map(str, collected.refused)]

    def as_ordinary() -> list[str]:
        if ordinary_user:
            for path in (out.parent, *out.parent.rglob("*")):
                os.chown(path, *ordinary_user)
            os.setgroups([])
            os.setresgid(*[ordinary_user.gid] * 3)
            os.setresuid(*[ordinary_user.uid] * 3)
        return close_and_take()

    # The parents of a test's folder may be root's alone, so the child is given a way in.
    fd = os.open(out, os.O_RDONLY)
    parent = os.open(out.parent, os.O_RDONLY)

    def from_within() -> list[str]:
        nonlocal out
        os.fchdir(parent)
        out = Path("out")
        return as_ordinary()

    assert in_child(from_within) == ["file", "shut/file", "unlisted/file"]


def test_setuid_and_modes_stay_behind(out: Path) -> None:
    """Files come back 0644 and folders 0755, whatever the program set."""
    put(out, "dir/tool").chmod(0o6777)
    (out / "dir").chmod(0o1777)
    previous = os.umask(0o022)
    try:
        taken(out)
    finally:
        os.umask(previous)
    root = out.parent / "taken"
    assert [stat.S_IMODE((root / p).stat().st_mode) for p in ("dir/tool", "dir")] == [0o644, 0o755]


def test_extended_attributes_stay_behind(out: Path, require: Require) -> None:
    """An attribute that the program set is not copied."""
    try:
        os.setxattr(put(out, "file"), "user.isorun", b"planted")
    except OSError as exc:
        require("root", f"the file system of the test folder takes no attributes: {exc.strerror}")
    taken(out)
    assert os.listxattr(out.parent / "taken/file") == []


def test_a_host_that_cannot_write_raises_and_names_the_destination(out: Path) -> None:
    """The host's trouble is no refusal, and half a file is removed."""
    put(out, "big", b"x" * 5000)

    def with_small_files() -> str:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(OSError, match="File too large") as caught:
            taken(out)
        return str(caught.value)

    assert in_child(with_small_files) == f"[Errno 27] File too large: '{out.parent}/taken/big'"
    assert copied(out) == {}


def test_diff_finds_a_same_size_rewrite_with_its_time_set_back(out: Path) -> None:
    """Content decides: equal size and mtime hide nothing, and an untouched file is not listed."""
    changed, same, gone = put(out, "changed", b"aaaa"), put(out, "same", b"s"), put(out, "d/gone", b"g")
    (out / "empty").mkdir()
    before = fingerprints(out)
    was = changed.stat()
    changed.write_bytes(b"bbbb")
    os.utime(changed, ns=(was.st_atime_ns, was.st_mtime_ns))
    os.utime(same, (1, 1))
    gone.unlink()
    put(out, "new")
    found = diff(before, taken(out).files)
    assert (found.created, found.modified, found.deleted) == (("new",), ("changed",), ("d/gone",))


def test_a_file_that_was_refused_is_not_called_deleted(out: Path) -> None:
    """Too large to be taken, or beneath a folder that became a link: not looked at is not gone."""
    put(out, "large", b"l")
    put(out, "d/file", b"f")
    before = fingerprints(out)
    put(out, "large", b"l" * 100)
    (out / "d/file").unlink()
    (out / "d").rmdir()
    (out / "d").symlink_to("/")
    collected = taken(out, max_bytes=10)
    assert diff(before, collected.files).deleted == ("d/file", "large")
    assert diff(before, collected.files, collected.refused).deleted == ()


def test_fingerprints_are_sha256_by_posix_path(out: Path) -> None:
    """Files in folders too; folders themselves have none."""
    put(out, "a/b", b"1")
    put(out, "c", b"")
    expected = {"a/b": hashlib.sha256(b"1").hexdigest(), "c": hashlib.sha256(b"").hexdigest()}
    assert fingerprints(out) == expected


def test_fingerprints_refuse_what_cannot_be_sent_in(out: Path, host: Path) -> None:
    """A link, a special file and a name that is no text are refused by path, and not read."""
    cases = [
        (lambda: (out / "a").symlink_to(host), "link_in_input", "out/a is a symbolic link"),
        (lambda: os.mkfifo(out / "a"), "input_not_regular_file", "out/a is a FIFO"),
    ]
    for make, code, text in cases:
        make()
        with pytest.raises(InvalidRequest) as caught:
            fingerprints(out)
        assert (caught.value.code, str(caught.value)) == (code, f"{text}; only files can be sent in")
        (out / "a").unlink()
    os.mkdir(os.fsencode(out) + b"/\xff")
    os.close(os.open(os.fsencode(out) + b"/\xff/f", os.O_CREAT | os.O_WRONLY))
    with pytest.raises(InvalidRequest) as caught:
        fingerprints(out)
    assert (caught.value.code, str(caught.value)) == (
        "invalid_filename",
        r"out/\xff: the name is not UTF-8",
    )
