"""The `sandbox-runner` command: what was typed becomes a spec, what happened becomes an exit code.

What a sandbox is, and whether it stands, the library decides. Exit codes: the command's
own; 128 + n for signal n; 124 if its time was over; 125 if it was not the command that
failed; 2 if what was typed cannot be used. One line on stderr then says why.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict

from sandbox_runner import __version__
from sandbox_runner.cli import run as cli_run
from sandbox_runner.cli.doctor import doctor
from sandbox_runner.cli.terminal import Interrupted, Terminal, described, interruptible, show, show_json, table, tell
from sandbox_runner.cli.words import complaint
from sandbox_runner.docker.command import DockerCli
from sandbox_runner.docker.line import LABEL, NONCE
from sandbox_runner.errors import BackendUnavailable, InvalidSpec, SandboxError, SandboxTimeout
from sandbox_runner.leftovers import Listed, cleanup, listed, remove
from sandbox_runner.quantity import bytes_of, seconds_of
from sandbox_runner.spec import WALLS, SandboxSpec
from sandbox_runner.start import attach
from sandbox_runner.state import StateFolder

MAX_OUTPUT = "64m"
_ANSWER_S = 20.0


def main(argv: Sequence[str] | None = None) -> int:
    """Do what *argv* (None: `sys.argv`) says; gives the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    # Not left to argparse, which would take options of the command for its own.
    end = words.index("--") if "--" in words else len(words)
    parser = _parser()
    arguments, unknown = parser.parse_known_args(words[:end])
    if unknown:
        # What `parse_args` says, and what is most often meant.
        takes = end == len(words) and arguments.do in (cli_run.run, _exec)
        hint = "; the command comes after `--`" if takes else ""
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
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
        tell(complaint(error, name=getattr(arguments, "name", None)))
        return code
    except KeyboardInterrupt:
        # Outside of what `interruptible` guards there is nothing to take down.
        tell(str(Interrupted(signal.SIGINT)))
        return 128 + signal.SIGINT


def _exec(arguments: argparse.Namespace) -> int:
    """In a sandbox that is somebody else's: it stays as it is, and theirs."""
    if not arguments.command:
        raise InvalidSpec("COMMAND", cli_run.NO_COMMAND)
    cli_run.check_typing(arguments)
    terminal = Terminal(is_shown=not arguments.json)
    with interruptible() as settle, attach(arguments.name, adopt=False) as sandbox:
        terminal.limit(arguments.timeout)
        result = cli_run.executed(sandbox, arguments.command, arguments, terminal.take)
        settle()
    code = cli_run.exit_code(result)
    if arguments.json:
        printed = {name: getattr(result, name).decode("utf-8", "replace") for name in ("stdout", "stderr")}
        about = {"container_name": arguments.name, "argv": arguments.command, "duration_s": round(result.duration_s, 3)}
        show_json({**about, **cli_run.endings(result), **printed, "status": code})
    cli_run.tell_result(result, arguments)
    return code


def _ps(arguments: argparse.Namespace) -> int:
    silence = _silence()
    _show_list(listed(), "sandboxes", arguments, silence)
    return 0


def _cleanup(arguments: argparse.Namespace) -> int:
    silence = _silence()
    # What is known of a container whose engine does not answer is in these, and must last until it does.
    unsure = {state.name for state in StateFolder.all() if state.read(NONCE) is not None} if silence else set()
    if arguments.names:
        found = [one for one in listed() if one.name in arguments.names]
        if missing := set(arguments.names) - {one.name for one in found}:
            raise InvalidSpec("NAME", f"there is no sandbox named {', '.join(sorted(missing))}: see sandbox-runner ps")
        unsure &= set(arguments.names)
        found = [one for one in found if one.name not in unsure]
        if not arguments.dry_run:
            remove(found)
    else:
        found = cleanup(dry_run=arguments.dry_run)
    _show_list(found, "would_remove" if arguments.dry_run else "removed", arguments, silence)
    if unsure:
        tell(f"left, because their containers may still run: {', '.join(sorted(unsure))}")
    return cli_run.FAILED if unsure else 0


def _silence() -> str | None:
    """Why the engine was not asked, so that its containers are not in a list; None if it answers."""
    try:
        answer = DockerCli(_ANSWER_S).run("ps", "--quiet", "--filter", f"label={LABEL}")
        why = answer.said if answer.code else ""
    except (BackendUnavailable, SandboxTimeout) as error:
        why = str(error)
    why = why.strip().partition("\n")[0]
    if why:
        tell(f"the engine was not asked: {why}")
    return why or None


def _show_list(found: list[Listed], what: str, arguments: argparse.Namespace, silence: str | None) -> None:
    if arguments.json:
        show_json({what: [asdict(one) for one in found], "engine": silence})
    elif found:
        rows = [(one.name, one.kind, one.state, one.why or "-") for one in found]
        show(table([("NAME", "KIND", "STATE", "LEFT BECAUSE"), *rows]))
        if what != "sandboxes":
            tell(f"{what.replace('_', ' ')}: {len(found)}")
    else:
        tell(
            ("there is no sandbox" if what == "sandboxes" else "there is nothing to remove")
            + (", as far as can be seen without the engine" if silence else "")
        )


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
    clean = verb("cleanup", _cleanup, "remove each sandbox whose owner is gone", "[NAME…]")
    clean.add_argument("names", metavar="NAME", nargs="*", help="remove these sandboxes, even if their owner is alive")
    clean.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    verb("doctor", doctor, "what works on this machine, and what to do about the rest; exit code 1 if nothing does")
    return parser


def _add_sandbox(one: argparse.ArgumentParser) -> None:
    add = one.add_argument
    add("--exec-backend", choices=("docker", "namespace"), default="docker", help="default: docker")
    add("--workspace", metavar="DIR", help=f"mounted at /workspace; default: a new one below ./{cli_run.RUNS}")
    add(
        "--artifacts",
        metavar="DIR",
        help=f"mounted at /artifacts, and for records; default: a new one below ./{cli_run.RUNS}, or, if that is in "
        f"the workspace, below ~/.local/state/{cli_run.STATE}",
    )
    add("--network", choices=("none", "open"), default="none", help="default: none")
    add("--cache", metavar="DIR", help="mounted at /cache and kept; default: an empty one")
    add("--env", metavar="NAME", action="append", default=[], help="a variable of yours that goes in; may be repeated")
    add("--env-file", metavar="FILE", help="lines NAME=VALUE that go in")
    add("--mount", metavar="SRC:DST[:ro]", action="append", default=[], help="a folder or file of yours; repeatable")
    add("--memory", metavar="SIZE", help="bytes, or as 512m, 1.5g; default: 2g")
    add("--cpus", type=float, metavar="N", help="default: no ceiling")
    add("--pids", type=int, metavar="N", help="processes and threads; default: 512")
    add("--loosen", metavar="WALL", action="append", default=[], help=f"do without one of: {', '.join(WALLS)}")
    add("--runtime", metavar="NAME", help="the engine's OCI runtime, for example runsc (gVisor)")
    add("--keep", action="store_true", help="leave the sandbox standing, for exec")
    ttl = SandboxSpec().ttl_seconds
    add(
        "--ttl",
        type=_seconds,
        metavar="TIME",
        default=ttl,
        help=f"seconds, or as 12h; cleanup ends it then; default: {ttl:g}",
    )
    add("--name", help="of the sandbox; default: a new name")


def _add_image(one: argparse.ArgumentParser) -> None:
    add = one.add_argument
    image = one.add_mutually_exclusive_group()
    image.add_argument("--image", metavar="REF", help="an image as it is; default: build one")
    image.add_argument("--context", metavar="DIR", help="the folder to build from; default: the built-in sandbox_cli")
    add("--dockerfile", metavar="FILE", help="in the context; default: Dockerfile")
    add("--base-image", metavar="REF", help="the build argument BASE_IMAGE; default: SANDBOX_RUNNER_BASE_IMAGE")
    add("--pull", choices=("missing", "always", "never"), default="missing", help="of --image; default: missing")
    add("--rebuild", action="store_true", help="build even if the image is there")


def _add_command(one: argparse.ArgumentParser) -> None:
    add = one.add_argument
    add(
        "--timeout", type=_seconds, metavar="TIME", help="seconds, or as 10m; ends the command then, with exit code 124"
    )
    add("--cwd", metavar="DIR", help="where the command runs, inside; default: /workspace")
    add("--stdin", action="store_true", help="give standard input to the command, as it comes")
    add("-t", "--tty", action="store_true", help="give the command a terminal, which ours types in and shows")
    add(
        "--max-output", type=_size, metavar="SIZE", default=_size(MAX_OUTPUT), help=f"per stream; default: {MAX_OUTPUT}"
    )


def _seconds(text: str) -> float:
    try:
        value = seconds_of(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} must be a number above 0, or a time such as 90s or 10m")
    return value


def _size(text: str) -> int:
    try:
        return bytes_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
