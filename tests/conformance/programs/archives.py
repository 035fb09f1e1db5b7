"""zipfile, tarfile, gzip, bz2, lzma, zlib and shutil's archives, made and read back."""

import bz2
import gzip
import hashlib
import io
import lzma
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path

text = "".join(f"{n} {n * n} ß\n" for n in range(3000)).encode()
for name, pack, unpack in (
    ("gzip", lambda data: gzip.compress(data, mtime=0), gzip.decompress),
    ("bz2", bz2.compress, bz2.decompress),
    ("lzma", lzma.compress, lzma.decompress),
    ("zlib", zlib.compress, zlib.decompress),
):
    packed = pack(text)
    print(name, len(packed), hashlib.sha256(packed).hexdigest()[:16], unpack(packed) == text)

out = Path(os.environ["OUTPUT_DIR"])
with zipfile.ZipFile(out / "made.zip", "w", zipfile.ZIP_DEFLATED) as archive:
    for name in ("a.txt", "ordner/grüße.txt"):
        archive.writestr(zipfile.ZipInfo(name, (2024, 1, 2, 3, 4, 6)), text)
with zipfile.ZipFile(out / "made.zip") as archive:
    print("zip", archive.testzip(), [(i.filename, i.file_size, i.CRC) for i in archive.infolist()])
with tarfile.open(out / "made.tar.xz", "w:xz") as tar:
    info = tarfile.TarInfo("ordner/grüße.txt")
    info.size, info.mtime = len(text), 1_700_000_000
    tar.addfile(info, io.BytesIO(text))
with tempfile.TemporaryDirectory() as folder:
    with tarfile.open(out / "made.tar.xz") as tar:
        tar.extractall(folder, filter="data")
    with zipfile.ZipFile(out / "made.zip") as archive:
        archive.extractall(folder)
    print("extracted", sorted((p.name, p.stat().st_size) for p in Path(folder).rglob("*.txt")))
    made = shutil.make_archive(os.path.join(folder, "whole"), "gztar", folder, "ordner")
    with tarfile.open(made) as tar:
        print("make_archive", sorted(tar.getnames()))
