"""Tries to read files of the host, named in its arguments, and to change a program that all others use."""
# ruff: noqa: T201 - a program prints

import sys
from pathlib import Path

for path in map(Path, sys.argv[1:]):
    try:
        print(f"GOT {len(path.read_bytes())} bytes of {path}", flush=True)
    except OSError as error:
        print(f"{path}: {error.strerror}", flush=True)
Path(sys.executable).resolve().write_bytes(b"mine now")
