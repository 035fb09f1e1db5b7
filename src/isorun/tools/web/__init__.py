"""Search and fetch: what the built-in web tools do.

`fetch` reads pages through a guard that connects to public addresses only, `search` asks the operator's
provider, `tools` has both in the form of tools. What a page holds is hostile: bytes, redirects and time
are bounded here, but a parser may still run long or crash. So the caller must be a process that can be
killed at the call's deadline. This package imports its libraries only when a function runs.
"""
