"""What trusted code uses to run programs: exec tools, a user's folders, a bundle's tools.

`exec_tools` runs programs, `agent_io_tools` calls a tool as a program would,
`subsystem` holds a bundle and the Runtime that its tools answer in, `workspace` keeps
a user's files between runs. Nothing here decides how a run ended.
"""
