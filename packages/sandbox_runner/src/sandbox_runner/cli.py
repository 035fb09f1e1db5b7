"""The `sandbox-runner` command: what was typed becomes a spec, what happened becomes an exit code.

What a sandbox is, and whether it stands, the library decides. Exit codes: the command's
own; 128 + n for signal n; 124 if its time was over; 125 if it was not the command that
failed; 2 if what was typed cannot be used. One line on stderr then says why.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict

from sandbox_runner import __version__, cli_run
from sandbox_runner.cli_doctor import doctor
from sandbox_runner.cli_terminal import Interrupted, Terminal, described, interruptible, show, show_json, table, tell
from sandbox_runner.errors import InvalidSpec, SandboxError
from sandbox_runner.leftovers import Listed, cleanup, listed, remove
from sandbox_runner.spec import WALLS, SandboxSpec, bytes_of
from sandbox_runner.start import attach

MAX_OUTPUT = "64m"


def main(argv: Sequence[str] | None = None) -> int:
    """Do what *argv* (None: `sys.argv`) says; gives the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    # Not left to argparse, which would take options of the command for its own.
    end = words.index("--") if "--" in words else len(words)
    arguments = _parser().parse_args(words[:end])
    arguments.command = words[end + 1 :]
    try:
        do: Callable[[argparse.Namespace], int] = arguments.do
        if do not in (cli_run.run, _exec) and end < len(words):
            raise InvalidSpec("--", f"{arguments.verb} takes no command")
        return do(arguments)
    except (SandboxError, OSError, Interrupted) as error:
        code = cli_run.exit_code_of(error)
        if arguments.json:
            show_json({"error": described(error), "status": code})
        tell(cli_run.complaint(error))
        return code


def _exec(arguments: argparse.Namespace) -> int:
    """In a sandbox that is somebody else's: it stays as it is, and theirs."""
    if not arguments.command:
        raise InvalidSpec("COMMAND", "put `--` and then the command at the end")
    stdin = cli_run.read_stdin() if arguments.stdin else None
    terminal = Terminal(is_shown=not arguments.json)
    with interruptible() as settle, attach(arguments.name, adopt=False) as sandbox:
        terminal.limit(arguments.timeout)
        result = sandbox.exec(
            arguments.command,
            timeout_s=arguments.timeout,
            cwd=arguments.cwd,
            stdin=stdin,
            on_output=terminal.take,
            max_output_bytes=arguments.max_output,
        )
        settle()
    code = cli_run.exit_code(result)
    if arguments.json:
        printed = {name: getattr(result, name).decode("utf-8", "replace") for name in ("stdout", "stderr")}
        about = {"container_name": arguments.name, "argv": arguments.command, "duration_s": round(result.duration_s, 3)}
        show_json({**about, **cli_run.endings(result), **printed, "status": code})
    cli_run.tell_result(result, arguments)
    return code


def _ps(arguments: argparse.Namespace) -> int:
    _show_list(listed(), "sandboxes", arguments)
    return 0


def _cleanup(arguments: argparse.Namespace) -> int:
    if arguments.names:
        found = [one for one in listed() if one.name in arguments.names]
        if missing := set(arguments.names) - {one.name for one in found}:
            raise InvalidSpec("NAME", f"there is no sandbox named {', '.join(sorted(missing))}: see sandbox-runner ps")
        if not arguments.dry_run:
            remove(found)
    else:
        found = cleanup(dry_run=arguments.dry_run)
    _show_list(found, "would_remove" if arguments.dry_run else "removed", arguments)
    return 0


def _show_list(found: list[Listed], what: str, arguments: argparse.Namespace) -> None:
    if arguments.json:
        show_json({what: [asdict(one) for one in found]})
    elif found:
        rows = [(one.name, one.kind, one.state, one.why or "-") for one in found]
        show(table([("NAME", "KIND", "STATE", "LEFT BECAUSE"), *rows]))
        if what != "sandboxes":
            tell(f"{what.replace('_', ' ')}: {len(found)}")
    else:
        tell("there is no sandbox" if what == "sandboxes" else "there is nothing to remove")


# What can be typed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sandbox-runner", description="Run any command in a Docker container or in namespaces.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"sandbox_runner {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="run|exec|ps|cleanup|doctor")

    def verb(name: str, do: Callable[[argparse.Namespace], int], text: str, usage: str = "") -> argparse.ArgumentParser:
        one = verbs.add_parser(
            name,
            help=text,
            description=text,
            usage=f"sandbox-runner {name} [options] {usage}".rstrip(),
            allow_abbrev=False,
        )
        one.set_defaults(do=do)
        one.add_argument("--json", action="store_true", help="one JSON document on stdout, and nothing else there")
        return one

    run = verb("run", cli_run.run, "one command in a new sandbox, and its records in a folder", "-- COMMAND…")
    _add_sandbox(run)
    _add_image(run)
    _add_command(run)
    exec_ = verb("exec", _exec, "one more command in a sandbox that stands", "NAME -- COMMAND…")
    exec_.add_argument("name", metavar="NAME", help="as ps lists it")
    _add_command(exec_)
    verb("ps", _ps, "the sandboxes of this machine, and what is left of others")
    clean = verb("cleanup", _cleanup, "remove what nobody owns any more", "[NAME…]")
    clean.add_argument("names", metavar="NAME", nargs="*", help="remove these sandboxes, whoever's they are")
    clean.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    verb("doctor", doctor, "what works on this machine, and what to do about the rest; exit code 1 if nothing does")
    return parser


def _add_sandbox(one: argparse.ArgumentParser) -> None:
    add = one.add_argument
    add("--exec-backend", choices=("docker", "namespace"), default="docker", help="default: docker")
    add("--workspace", metavar="DIR", help=f"mounted at /workspace; default: a new one below ./{cli_run.RUNS}")
    add("--artifacts", metavar="DIR", help=f"mounted at /artifacts, and for records; default: below ./{cli_run.RUNS}")
    add("--network", choices=("none", "open"), default="none", help="default: none")
    add("--cache", metavar="DIR", help="mounted at /cache and kept; default: an empty one")
    add("--env", metavar="NAME", action="append", default=[], help="a variable of yours that goes in; may be repeated")
    add("--env-file", metavar="FILE", help="lines NAME=VALUE that go in")
    add("--mount", metavar="SRC:DST[:ro]", action="append", default=[], help="a folder or file of yours; repeatable")
    add("--memory", metavar="SIZE", help="bytes, or a number with k, m or g; default: 2g")
    add("--cpus", type=float, metavar="N", help="default: no ceiling")
    add("--pids", type=int, metavar="N", help="processes and threads; default: 512")
    add("--loosen", metavar="WALL", action="append", default=[], help=f"do without one of: {', '.join(WALLS)}")
    add("--runtime", metavar="NAME", help="the engine's OCI runtime, for example runsc (gVisor)")
    add("--keep", action="store_true", help="leave the sandbox standing, for exec")
    add("--ttl", type=_seconds, metavar="SECONDS", default=SandboxSpec().ttl_seconds, help="cleanup ends it after that")
    add("--name", help="of the sandbox; default: one that no other has")


def _add_image(one: argparse.ArgumentParser) -> None:
    add = one.add_argument
    image = one.add_mutually_exclusive_group()
    image.add_argument("--image", metavar="REF", help="an image as it is; default: one that is built")
    image.add_argument("--context", metavar="DIR", help="the folder to build from; default: the built-in sandbox_cli")
    add("--dockerfile", metavar="FILE", help="in the context; default: Dockerfile")
    add("--base-image", metavar="REF", help="the build argument BASE_IMAGE; default: SANDBOX_RUNNER_BASE_IMAGE")
    add("--pull", choices=("missing", "always", "never"), default="missing", help="of --image; default: missing")
    add("--rebuild", action="store_true", help="build although the image is there")


def _add_command(one: argparse.ArgumentParser) -> None:
    add = one.add_argument
    add("--timeout", type=_seconds, metavar="SECONDS", help="end the command after that, with exit code 124")
    add("--cwd", metavar="DIR", help="where the command runs, inside; default: /workspace")
    add("--stdin", action="store_true", help="read all of standard input first, and give it to the command")
    add(
        "--max-output", type=_size, metavar="SIZE", default=_size(MAX_OUTPUT), help=f"per stream; default: {MAX_OUTPUT}"
    )


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} must be a number above 0")
    return value


def _size(text: str) -> int:
    try:
        return bytes_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
