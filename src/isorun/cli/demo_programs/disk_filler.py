"""Writes files until the disk is full."""
# ruff: noqa: T201, TID251 - a program prints, reads its environment, forks

import os
from pathlib import Path

number = 0
while True:
    number += 1
    Path(os.environ["OUTPUT_DIR"], f"junk-{number}").write_bytes(bytes(32 << 20))
    print(f"{number * 32} MiB", flush=True)
