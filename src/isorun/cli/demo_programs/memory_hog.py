"""Takes memory until there is no more."""
# ruff: noqa: T201 - a program prints

held = []
while True:
    held.append(bytearray(b"x") * (64 << 20))
    print(f"{len(held) * 64} MiB", flush=True)
