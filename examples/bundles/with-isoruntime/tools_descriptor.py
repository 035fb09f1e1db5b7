"""The tools of this bundle: each entry is a file of functions marked with `@isorun.tool`, and its alias."""

TOOLS = [
    {"ref": "tools/local_tools.py", "alias": "local_tools"},
    {"ref": "tools/probe_tools.py", "alias": "probe_tools"},
    {"ref": "tools/reference_tools.py", "alias": "reference_tools"},
]
