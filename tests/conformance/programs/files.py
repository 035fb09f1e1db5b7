"""tempfile, shutil between work and out, links, walks, glob, locks, mmap, modes and unicode names."""

import fcntl
import glob
import hashlib
import mmap
import os
import shutil
import stat
import tempfile
from pathlib import Path

work, out = Path(__file__).parent, Path(os.environ["OUTPUT_DIR"])

with tempfile.NamedTemporaryFile("w+", suffix=".txt", encoding="utf-8") as named:
    named.write("naïve\n")
    named.flush()
    print(
        "named",
        Path(named.name).read_text(encoding="utf-8").strip(),
        stat.S_IMODE(os.stat(named.name).st_mode),
    )
print("gone", Path(named.name).exists())
with tempfile.TemporaryFile() as nameless, tempfile.SpooledTemporaryFile(max_size=10) as spooled:
    nameless.write(b"x" * 100_000)
    spooled.write(b"y" * 1000)
    print("nameless", nameless.tell(), "spooled", spooled.tell())
descriptor, made = tempfile.mkstemp()
os.close(descriptor)
os.unlink(made)

tree = work / "tree"
for name in ("a.txt", "sub/b.txt", "sub/deep/ü 日本 😀.txt", "sub/deep/with space & 'quotes'.txt"):
    (tree / name).parent.mkdir(parents=True, exist_ok=True)
    (tree / name).write_text(name, encoding="utf-8")
(tree / "link").symlink_to("a.txt")
os.link(tree / "a.txt", tree / "hard")
os.utime(tree / "a.txt", (1_000_000_000, 1_000_000_000))
os.chmod(tree / "sub/b.txt", 0o640)

shutil.copytree(tree, work / "copied", symlinks=True)
shutil.copytree(tree, out / "tree", symlinks=False)
shutil.move(work / "copied", out / "moved")
shutil.move(out / "moved" / "sub", work / "back")
shutil.copytree(out, work / "all of out", dirs_exist_ok=True)
shutil.rmtree(work / "back")
print("left in work", sorted(p.name for p in work.iterdir() if not p.name.startswith(".") and p.suffix != ".py"))
for path in sorted(out.rglob("*"), key=os.fsencode):
    info = path.lstat()
    print(path.relative_to(out), stat.filemode(info.st_mode), info.st_size if path.is_file() else "")
print("mtime kept", (out / "tree" / "a.txt").stat().st_mtime, "links", (tree / "a.txt").stat().st_nlink)
(out / "moved" / "link").unlink()
print("glob", sorted(os.path.relpath(p, out) for p in glob.glob(str(out / "**" / "*.txt"), recursive=True)))
print("walk", [(os.path.relpath(d, out), sorted(f)) for d, _, f in sorted(os.walk(out))])
print("scandir", sorted((e.name, e.is_dir(), e.is_symlink()) for e in os.scandir(tree)))

os.rename(out / "moved" / "a.txt", out / "renamed.txt")
os.replace(out / "renamed.txt", out / "replaced.txt")
with open(out / "sparse.bin", "wb+") as file:
    file.truncate(1 << 20)
    os.pwrite(file.fileno(), b"end", (1 << 20) - 3)
    with mmap.mmap(file.fileno(), 0) as mapped:
        mapped[:5] = b"start"
        print("mapped", mapped[-3:], hashlib.sha256(mapped).hexdigest()[:16])
    os.posix_fallocate(file.fileno(), 0, 2 << 20)
    print("allocated", os.fstat(file.fileno()).st_size)
    os.ftruncate(file.fileno(), 4096)
with open(out / "locked", "w") as one, open(out / "locked", "w") as two:
    fcntl.flock(one, fcntl.LOCK_EX)
    try:
        fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("locked")
    fcntl.lockf(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
with open(out / "sparse.bin", "rb") as source, open(out / "sent.bin", "wb") as target:
    print("sendfile", os.sendfile(target.fileno(), source.fileno(), 0, 4096))
os.mkfifo(tree / "fifo")
print("fifo", stat.S_ISFIFO((tree / "fifo").stat().st_mode))
directory = os.open(out, os.O_RDONLY)
with open(os.open("by-fd.txt", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=directory), "w") as file:
    file.write("relative to a directory")
os.fsync(directory)
os.chmod(out / "by-fd.txt", 0)
os.chmod(out / "by-fd.txt", 0o600)
print("access", os.access(out / "by-fd.txt", os.R_OK), os.umask(0o022))
print(
    "space",
    shutil.disk_usage(out).total > 1 << 20,
    os.path.realpath(out) == str(out),
    os.getcwd() == str(out),
)
