"""The tools that the benchmark calls."""

TOOLS = [{"ref": "echo.py", "alias": "echo"}]
TOOL_RUNTIME = {"echo.apart": "local"}
