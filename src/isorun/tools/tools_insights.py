"""Where each tool runs by default. To move a tool, edit one line here; a bundle and an operator need not.

A bundle's `TOOL_RUNTIME` beats what is said here, and `ISORUN_TOOL_RUNTIME` beats both; see
docs/exec/README-runtime-modes-builtin-tools.md. Every Runtime with a bundle reads this module, so it is light.
"""

from isorun.core.ids import BUILT_IN_ALIAS

#: They read what strangers wrote, with parsers in C and Rust that may crash, or never come back.
_SEARCH = frozenset({"web_search"})
_FETCH = frozenset({"fetch_url_contents", "web_fetch"})
_WRITE = frozenset({"write_pdf", "write_pptx", "write_docx", "write_html", "write_png", "write_xlsx", "write_file"})
#: Ids of other tools that are to run in a process of their own, such as "my_tools.my_heavy_tool".
CUSTOM_ISOLATED: set[str] = set()


def tool_isolation(tool_id: str) -> str:
    """The mode of the tool `alias.name`: `none`, `local` or `docker`."""
    if should_isolate_in_docker(tool_id):
        return "docker"
    return "local" if should_isolate_tool_execution(tool_id) else "none"


def should_isolate_tool_execution(tool_id: str) -> bool:
    """Whether it runs in another process than the supervisor's."""
    return (
        should_isolate_in_docker(tool_id)
        or is_write_tool(tool_id)
        or is_search_tool(tool_id)
        or is_fetch_uri_content_tool(tool_id)
        or tool_id in CUSTOM_ISOLATED
    )


def should_isolate_in_docker(tool_id: str) -> bool:
    """Whether it runs in a container alone, so that a machine without one refuses its bundle: no tool does."""
    return False


def is_write_tool(tool_id: str) -> bool:
    """Whether it is one of the built-in tools that write a document."""
    return _is_built_in(tool_id, _WRITE)


def is_search_tool(tool_id: str) -> bool:
    """Whether it is the built-in web search."""
    return _is_built_in(tool_id, _SEARCH)


def is_fetch_uri_content_tool(tool_id: str) -> bool:
    """Whether it is one of the built-in tools that fetch a page."""
    return _is_built_in(tool_id, _FETCH)


def _is_built_in(tool_id: str, names: frozenset[str]) -> bool:
    alias, _, name = tool_id.partition(".")
    return alias == BUILT_IN_ALIAS and name in names
