"""One module per Linux facility. No policy: what to do is decided elsewhere, this does it.

Standard library only, so that it runs inside the executor with any Python. A
call that the kernel refuses raises `OSError` with the call named in its text.
"""
