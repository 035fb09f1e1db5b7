"""An MCP server: a model's client lists the tool `run_python`, calls it, and gets files and pictures back.

`server` speaks the protocol over any `Backend`; `local` is one over a Runtime of this process, and `stdio` serves
that. It needs the extra `mcp` alone: nothing here may import what serves HTTP.
"""
