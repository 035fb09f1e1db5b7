"""The hash of a build context covers what is sent, and all of it. Nothing here starts anything."""

import io
import os
import re
import socket
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_runner.docker.context import Context, Framed
from sandbox_runner.docker.image import image_hash
from sandbox_runner.errors import InvalidSpec
from sandbox_runner.spec import SandboxSpec

pytestmark = pytest.mark.uid  # root sends and may read what a user does not

Tree = Mapping[str, str | None]  # path: content; None is a folder


@pytest.fixture(autouse=True)
def no_base_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SANDBOX_RUNNER_BASE_IMAGE", raising=False)


def lay(root: Path, tree: Tree) -> None:
    for name, content in tree.items():
        path = root / name
        if content is None:
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    lay(root, {"Dockerfile": "FROM scratch\n", "Other": "FROM scratch\n", "a": "1", "d/b": "2"})
    return root


def spec_of(root: Path) -> SandboxSpec:
    return SandboxSpec(image_context_path=root)


def sent(root: Path, dockerfile: str | None = None) -> dict[str, tarfile.TarInfo]:
    archive = io.BytesIO()
    Context.of(SandboxSpec(image_context_path=root, dockerfile=dockerfile)).read(Framed(), archive)
    archive.seek(0)
    with tarfile.open(fileobj=archive) as tar:
        return {info.name: info for info in tar}


CHANGES: Mapping[str, Callable[[Path], object]] = {
    "content": lambda root: (root / "a").write_text("2"),
    "a new file": lambda root: (root / "new").write_text(""),
    "a new folder": lambda root: (root / "new").mkdir(),
    "a name": lambda root: (root / "a").rename(root / "z"),
    "the folder of a file": lambda root: (root / "a").rename(root / "d" / "a"),
    "a file's mode": lambda root: (root / "a").chmod(0o755),
    "a file's setuid bit": lambda root: (root / "a").chmod(0o4644),
    "a folder's mode": lambda root: (root / "d").chmod(0o700),
    "a link's target": lambda root: _relink(root / "link", "d/b"),
    "a file in place of a link to it": lambda root: _file_for_link(root / "link"),
    "the Dockerfile": lambda root: (root / "Dockerfile").write_text("FROM scratch\n#\n"),
    "what .dockerignore leaves out": lambda root: (root / ".dockerignore").write_text("d\n"),
}


def _relink(link: Path, target: str) -> None:
    link.unlink()
    link.symlink_to(target)


def _file_for_link(link: Path) -> None:
    content = link.read_text()
    link.unlink()
    link.write_text(content)


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_of_what_is_sent_changes_the_hash(context: Path, change) -> None:
    """Path, kind, mode, content and target of every entry count, and what `.dockerignore` says."""
    (context / "link").symlink_to("a")
    before = image_hash(spec_of(context))
    CHANGES[change](context)
    assert image_hash(spec_of(context)) != before


OPTIONS: Mapping[str, Mapping[str, object]] = {
    "which Dockerfile": {"dockerfile": "Other"},  # of the same content
    "a build argument": {"build_args": {"A": "1"}},
    "its value": {"build_args": {"A": "2"}},
    "its name": {"build_args": {"B": "1"}},
    "two of them": {"build_args": {"A": "1", "B": "1"}},
    "the base image": {"base_image": "debian:bookworm-slim"},
    "target": {"build_target": "last"},
    "platform": {"platform": "linux/amd64"},
    "the platform's name as target": {"build_target": "linux/amd64"},
    "the build's network": {"build_network": "none"},
    "another network": {"build_network": "host"},
}


def test_each_option_of_a_build_changes_the_hash(context: Path) -> None:
    """No two of these specs have one hash, also where one option's value is another's."""
    specs = [replace(spec_of(context), **changed) for changed in ({}, *OPTIONS.values())]
    assert len({image_hash(spec) for spec in specs}) == len(specs)


def test_what_is_not_of_the_recipe_does_not_change_the_hash(context: Path, tmp_path: Path) -> None:
    """Times, where the folder is, the order of arguments, and what is said of the sandbox only, do not count."""
    spec = replace(spec_of(context), build_args={"A": "1", "B": "2"})
    before = image_hash(spec)
    os.utime(context / "a", (1, 1))
    moved = context.rename(tmp_path / "elsewhere")
    other = replace(spec, image_context_path=moved, build_args={"B": "2", "A": "1"}, network_mode="open")
    assert image_hash(replace(other, image_repo="other", rebuild_image=True)) == before


def test_the_order_in_which_a_folder_is_listed_does_not_count() -> None:
    """The same files made in another order are the same hash; in memory, the order of making is that of listing."""
    names = [f"{number}" for number in range(20)]
    hashes = set()
    for order in (names, names[::-1]):
        with tempfile.TemporaryDirectory(dir="/dev/shm") as scratch:
            lay(Path(scratch), {"Dockerfile": "FROM scratch\n", **dict.fromkeys(order, "")})
            hashes.add(image_hash(spec_of(Path(scratch))))
    assert len(hashes) == 1


def test_the_base_image_is_the_specs_then_the_build_arguments_then_the_environments(
    context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the three says BASE_IMAGE, in this order; two of the spec's own are refused."""
    given = image_hash(replace(spec_of(context), base_image="b:1"))
    monkeypatch.setenv("SANDBOX_RUNNER_BASE_IMAGE", "b:1")
    assert image_hash(spec_of(context)) == given
    monkeypatch.setenv("SANDBOX_RUNNER_BASE_IMAGE", "b:2")
    assert image_hash(spec_of(context)) != given
    assert image_hash(replace(spec_of(context), base_image="b:1")) == given
    assert image_hash(replace(spec_of(context), build_args={"BASE_IMAGE": "b:1"})) == given
    with pytest.raises(InvalidSpec, match=r"\Abuild_args: BASE_IMAGE is given as base_image too\Z"):
        image_hash(replace(spec_of(context), base_image="b:1", build_args={"BASE_IMAGE": "b:1"}))


@given(st.lists(st.binary(max_size=20), max_size=6), st.lists(st.binary(max_size=20), max_size=6))
def test_framed_fields_hash_alike_only_if_they_are_alike(one, other) -> None:
    """No byte can move from one field to the next, and no field can be empty or absent unseen."""
    digests = []
    for fields in (one, other, [b"".join(one)], [*one, b""]):
        framed = Framed()
        framed.add(*fields)
        digests.append(framed.hexdigest())
    assert (digests[0] == digests[1]) == (one == other)
    assert (digests[0] == digests[2]) == (one == [b"".join(one)])
    assert digests[0] != digests[3]


_names = st.text("ab\n :", min_size=1, max_size=3).filter(lambda name: name not in (".", ".."))
_trees = st.dictionaries(_names, st.one_of(st.text("ab0\n", max_size=4), st.none()), max_size=3)


@given(_trees, _trees, st.booleans())
def test_two_folders_hash_alike_only_if_they_are_alike(one, other, below) -> None:
    """Names and contents that look like each other's, and folders in place of files, are never taken for each other."""
    with tempfile.TemporaryDirectory() as scratch:
        hashes = []
        for number, tree in enumerate((one, other)):
            root = Path(scratch, str(number))
            lay(root, {"Dockerfile": "FROM scratch\n", "z": None})
            lay(root / "z" if below and number else root, tree)
            hashes.append(image_hash(spec_of(root)))
    assert (hashes[0] == hashes[1]) == (one == other and not (below and one))


def test_what_dockerignore_leaves_out_is_neither_sent_nor_hashed(context: Path) -> None:
    """A file that is left out may change, or be a socket, or not be readable at all."""
    lay(context, {".dockerignore": "d\n!d/keep\nrun.*\n", "d/keep": "", "d/e/f": "1"})
    before = image_hash(spec_of(context))
    lay(context, {"d/b": "3", "d/e/f": "2"})
    os.mkfifo(context / "run.fifo")
    assert image_hash(spec_of(context)) == before
    assert sorted(sent(context)) == [".dockerignore", "Dockerfile", "Other", "a", "d", "d/keep"]


def test_the_dockerfile_and_its_ignore_file_are_always_sent(context: Path) -> None:
    """A `.dockerignore` that leaves all out still sends what a build cannot be without."""
    lay(context, {".dockerignore": "**\n", "deep/down/Dockerfile": "FROM scratch\n"})
    assert sorted(sent(context, "deep/down/Dockerfile")) == [
        ".dockerignore",
        "deep",
        "deep/down",
        "deep/down/Dockerfile",
    ]


def test_a_dockerfiles_own_ignore_file_is_taken_first(context: Path) -> None:
    """`Other.dockerignore` is for Other, with either builder; the general one is then a file as any."""
    lay(context, {".dockerignore": "a\n", "Other.dockerignore": "d\n"})
    assert "a" not in sent(context)
    assert "d" in sent(context)
    assert "a" in sent(context, "Other")
    assert "d" not in sent(context, "Other")


def test_a_link_is_sent_as_a_link(context: Path, tmp_path: Path) -> None:
    """A link out of the context, to a file, a folder or nothing, sends its text and nothing of what it points to."""
    secret = tmp_path / "secret"
    lay(secret, {"key": "hidden"})
    for name, target in (("file", secret / "key"), ("folder", secret), ("nothing", "/no/such")):
        (context / name).symlink_to(target)
    before = image_hash(spec_of(context))
    (secret / "key").write_text("changed")
    assert image_hash(spec_of(context)) == before
    entries = sent(context)
    assert [entries[name].linkname for name in ("file", "folder", "nothing")] == [
        str(secret / "key"),
        str(secret),
        "/no/such",
    ]
    assert not [name for name in entries if "key" in name]


def test_all_that_is_sent_is_roots_and_of_no_time(context: Path) -> None:
    """The archive is the same bytes wherever and whenever it is made, and as long names and odd bytes have it."""
    odd = os.fsdecode(b"\xff\n")
    lay(context, {"n" * 200: "", odd: "", "d/" + "m" * 200: ""})
    (context / "link").symlink_to("t" * 300)
    if os.geteuid() == 0:
        os.chown(context / "a", 1234, 1234)
    (context / "a").chmod(0o751)
    archives = [io.BytesIO(), io.BytesIO()]
    for archive in archives:
        Context.of(spec_of(context)).read(Framed(), archive)
        os.utime(context / "a", (1, 1))
    assert archives[0].getvalue() == archives[1].getvalue()
    entries = sent(context)
    assert {(info.uid, info.gid, info.uname, info.gname, info.mtime) for info in entries.values()} == {
        (0, 0, "", "", 0)
    }
    assert entries["a"].mode == 0o751
    assert {"n" * 200, odd, "d/" + "m" * 200} < set(entries)
    assert entries["link"].linkname == "t" * 300


def _socket(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(f"/proc/self/fd/{folder}/{path.name}")  # a short name for a path that may be too long
    os.close(folder)


def _device(path: Path) -> None:
    os.mknod(path, 0o020644, os.makedev(1, 3))


@pytest.mark.parametrize("make", [_socket, os.mkfifo, _device])
def test_what_cannot_be_sent_is_refused_by_name(context: Path, make: Callable[[Path], None], require) -> None:
    """A socket, a FIFO and a device are refused at once: nothing waits for somebody to write into it."""
    if make is _device and os.geteuid():
        require("root", "only root makes devices")
    make(context / "d" / "odd")
    with pytest.raises(InvalidSpec) as caught:
        image_hash(spec_of(context))
    assert str(caught.value) == (
        f"image_context_path: {context}/d/odd: a socket, a device or a FIFO cannot be sent:"
        " leave it out in .dockerignore"
    )


@pytest.fixture
def stranger() -> Iterator[Path]:
    """A context with a file that may not be read. Root may read all, so it is nobody until the test ends."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        lay(root, {"Dockerfile": "FROM scratch\n", "d/b": ""})
        (root / "d" / "b").chmod(0)
        root.chmod(0o755)
        was = os.geteuid()
        if was == 0:
            os.seteuid(65534)
        try:
            yield root
        finally:
            os.seteuid(was)


def test_a_file_that_cannot_be_read_is_named(stranger: Path) -> None:
    """A hash without the file would be another folder's."""
    with pytest.raises(InvalidSpec) as caught:
        image_hash(spec_of(stranger))
    assert str(caught.value) == f"image_context_path: {stranger}/d/b: Permission denied"


@pytest.mark.parametrize("name", ["../Dockerfile", "link", "out/Dockerfile"])
def test_a_dockerfile_outside_of_the_context_is_refused(context: Path, tmp_path: Path, name: str) -> None:
    """Neither dots nor a link bring in a Dockerfile that is not in the folder."""
    lay(tmp_path, {"Dockerfile": "FROM scratch\n"})
    (context / "link").symlink_to("../Dockerfile")
    (context / "out").symlink_to(tmp_path)
    with pytest.raises(InvalidSpec, match=rf"\Adockerfile: {re.escape(name)} must be a file in {context}\Z"):
        image_hash(replace(spec_of(context), dockerfile=name))


def test_a_link_to_a_dockerfile_in_the_context_is_that_dockerfile(context: Path) -> None:
    """As with `docker build`; the builder is given the file's own name."""
    (context / "link").symlink_to("Other")
    spec = replace(spec_of(context), dockerfile="link")
    assert Context.of(spec).dockerfile == "Other"


def test_a_bad_line_of_dockerignore_is_the_specs_error(context: Path) -> None:
    """It is refused with its file, line and reason, before anything is sent."""
    lay(context, {".dockerignore": "a\n[\n"})
    with pytest.raises(InvalidSpec) as caught:
        image_hash(spec_of(context))
    assert str(caught.value) == (
        f"image_context_path: {context}/.dockerignore: line 2: it ends within brackets, or after a backslash"
    )


@pytest.mark.parametrize("target", ["secret", "nowhere", "context/a", "."])
def test_a_dockerignore_that_is_a_link_is_refused(context: Path, tmp_path: Path, target: str) -> None:
    """It could be any file of this machine, and an error's text tell of that."""
    (tmp_path / "secret").write_text("hunter2[\n")
    (context / ".dockerignore").symlink_to(tmp_path / target)
    with pytest.raises(InvalidSpec) as caught:
        image_hash(spec_of(context))
    said = f"{context}/.dockerignore is a link, or is reached by a link: put a file there"
    assert str(caught.value) == f"image_context_path: {said}"


def test_a_dockerfiles_own_ignore_file_is_in_the_context(context: Path, tmp_path: Path) -> None:
    """Not beside a link that leads out, and back in."""
    lay(tmp_path, {"out/Other.dockerignore": "d\n"})
    (tmp_path / "out" / "Other").symlink_to(context / "Other")
    (context / "way").symlink_to(tmp_path / "out")
    with pytest.raises(InvalidSpec, match=r"/way/Other\.dockerignore is a link, or is reached by a link"):
        sent(context, "way/Other")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_a_dockerignore_that_is_no_file_is_refused(context: Path, make: Callable[[Path], None]) -> None:
    """At once: nobody waits for who writes into a pipe."""
    make(context / ".dockerignore")
    with pytest.raises(InvalidSpec, match=r"/\.dockerignore(: Is a directory| is not a file)\Z"):
        image_hash(spec_of(context))


def test_folders_may_be_nested_deeper_than_a_stack(context: Path) -> None:
    """Nor is a descriptor held for each; an entry after all of them is still sent, and counts."""
    folder = os.open(context, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("x", dir_fd=folder)
        below = os.open("x", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.close(folder)
    lay(context, {"y": "1"})
    before = image_hash(spec_of(context))
    deepest = "/".join(["x"] * 1200) + "/leaf"
    names = list(sent(context))
    assert names.index(deepest) < names.index("y")
    lay(context, {"y": "2"})
    assert image_hash(spec_of(context)) != before
    subprocess.run(["rm", "-r", context], check=True)  # pytest would fail to, in a later session


def test_a_folder_that_is_moved_while_it_is_read_is_no_hash(
    context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From there the way back would lead into somebody else's folder."""
    lay(context, {"d/e/f": "1"})
    real = os.listdir

    def moved(descriptor: int) -> list[str]:
        found = real(descriptor)
        if found == ["f"]:
            (context / "d" / "e").rename(tmp_path / "e")
        return found

    monkeypatch.setattr(os, "listdir", moved)
    with pytest.raises(InvalidSpec, match="/d/e: was moved while it was read"):
        image_hash(spec_of(context))


def test_a_file_that_shrinks_while_it_is_read_is_no_hash(context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A size that was promised and not kept is an error, with and without an archive."""
    real = os.fstat

    def grown(descriptor: int) -> os.stat_result:
        found = list(real(descriptor))
        found[6] += 1
        return os.stat_result(found)

    monkeypatch.setattr(os, "fstat", grown)
    with pytest.raises(InvalidSpec, match="Dockerfile: became shorter while it was read"):
        image_hash(spec_of(context))
    with pytest.raises(InvalidSpec, match="Dockerfile: unexpected end of data"):
        Context.of(spec_of(context)).read(Framed(), io.BytesIO())
