"""The trusted side of tool calls: bundles, their tools, and who may call which.

`session` answers one program's calls and runs wherever it is put; `process` is the
separate process that loads a bundle and holds its credentials, `client` the host's
end of that process.
"""
