"""The bytes between the trusted side and the executor: frames, messages and who may say what.

`PROTOCOL.md` beside this file is the authority. Nothing here opens a socket, starts a process or imports
anything of ours but values of `core`; it is loaded in the executor too, so it stays cheap to import.
"""
