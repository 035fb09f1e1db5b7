"""What runs inside the outer jail: zygote, init, slot, loader, and the program's side of tool calls.

Imports the standard library, `wire` and `kernel` only, so that any image with a
Python can hold it. The code is ours; the place is not trusted, and nobody outside
believes what it says once a program has started.
"""
