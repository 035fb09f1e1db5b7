"""The README's table of public names: made from the code, each with a test that proves it. For contributors.

    python scripts/api_table.py            # print it
    python scripts/api_table.py --write    # put it into README.md

A name without an entry in `TESTS` is an error, so a new name comes with its test.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import sandbox_runner

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "## Public names\n", "\n## The command line\n"  # the headings that it stands between
#: Name -> the test that shows what it promises.
TESTS = {
    "__version__": "unit/cli/test_cli.py::test_the_entry_point_is_this_function",
    "BackendUnavailable": "namespace/test_life.py::test_without_bubblewrap_the_remedy_is_named",
    "DockerSandbox": "engine/test_readme.py::test_an_example_runs_as_printed",
    "DockerUnavailable": "unit/cli/test_cli.py::test_without_an_engine_the_records_say_why",
    "ExecResult": "conformance/test_commands.py::test_the_signal_is_the_one_that_ended_it",
    "ImageBuildFailed": "engine/test_image.py::test_a_failed_build_says_why_and_leaves_no_container",
    "InvalidSpec": "unit/cli/test_cli.py::test_what_cannot_be_used_is_named_as_it_was_typed",
    "MountSpec": "engine/test_cli.py::test_options_reach_the_sandbox",
    "NamespaceSandbox": "namespace/test_attacks.py::test_only_what_was_meant_is_shown",
    "ResourceSpec": "conformance/test_ending.py::test_memory_that_is_full_is_said",
    "SandboxError": "unit/cli/test_cli.py::test_an_error_has_its_exit_code",
    "SandboxGone": "conformance/test_ending.py::test_a_sandbox_that_is_closed_is_gone",
    "SandboxInstance": "conformance/test_ending.py::test_a_timeout_ends_everything",
    "SandboxSpec": "namespace/test_life.py::test_the_sandbox_describes_itself",
    "SandboxStartFailed": "namespace/test_life.py::test_a_failed_start_says_so_in_its_records",
    "SandboxTimeout": "engine/test_image.py::test_a_build_that_takes_too_long_leaves_no_container",
    "attach": "engine/test_cli.py::test_exec_leaves_a_sandbox_to_its_owner",
    "cleanup": "namespace/test_life.py::test_a_killed_owner_leaves_what_cleanup_finds",
    "start_sandbox": "engine/test_cli.py::test_exec_leaves_a_sandbox_to_its_owner",
}


def table() -> str:
    """The table, a line a name."""
    rows = ["| name | what it is | shown by |", "|---|---|---|"]
    for name in sandbox_runner.__all__:
        path, _, test = TESTS[name].partition("::")
        rows.append(f"| `{name}` | {line_of(name)} | [`{test}`](tests/{path}) |")
    return "\n".join(rows)


def line_of(name: str) -> str:
    """The first line of the docstring of what has that name."""
    if name == "__version__":
        return f"The version of the package, for example `{sandbox_runner.__version__}`."
    return (inspect.getdoc(getattr(sandbox_runner, name)) or "").partition("\n")[0].replace("|", "\\|")


def written(text: str) -> str:
    """*text* with the table in its section. Raises `ValueError` if a heading is missing."""
    begin, end = text.index(BEGIN), text.index(END)
    return f"{text[:begin]}{BEGIN}\nMade by `scripts/api_table.py --write` from the code.\n\n{table()}\n{text[end:]}"


def main() -> int:
    """Print the table, or write it."""
    if sys.argv[1:] == ["--write"]:
        README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
