"""Does useful work at first, and never comes to an end."""
# ruff: noqa: T201 - a program prints

import math

for digits in (5, 10, 20):
    print(f"{digits} digits: {math.isqrt(2 * 10 ** (2 * digits))}", flush=True)
n = 0
while True:
    n += 1
