"""`isorun run`: its options, and the jail that warms up while the rest is imported."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from isorun.cli.exits import UsageError
from isorun.cli.parsing import BACKEND, ENV_FILE, PRELOAD, REST, option, seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The options of `isorun run`, as given."""

    file: str = "-c"  # what a program without a file is called, as Python does
    code: str | None = None
    args: tuple[str, ...] = ()
    exec_id: str | None = None
    turn_id: str | None = None
    user_id: str = ""
    side_effects: bool = False
    contract: str | None = None
    timeout_s: float | None = None
    memory: str | None = None
    cpus: str | None = None
    limits: tuple[str, ...] = ()
    inputs: tuple[Path, ...] = ()
    env: tuple[str, ...] = ()
    start_from: Path | None = None
    save_to: Path | None = None
    session: str | None = None
    out: Path | None = None
    backend: str | None = None
    bundle: Path | None = None
    tools: tuple[str, ...] | None = None
    python: Path | None = None
    preload: tuple[str, ...] = ()
    env_file: Path | None = None
    stdin: bool = False
    network: str = "none"
    keep: bool = True
    json: bool = False


def tool_ids(text: str) -> tuple[str, ...]:
    """The ids in *text*, with commas between them; an empty text has no id."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def wanted_of(given: Mapping[str, object]) -> Wanted:
    """What was *given*, as the parser has it. Raises `UsageError` where the program is missing."""
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    if "code" in values and "file" in values:
        # The program is here already, so all words are its own.
        values["args"] = (values.pop("file"), *values.get("args", ()))  # type: ignore[misc]  # OPTIONS makes it a list
    elif "code" not in values and "file" not in values:
        raise UsageError("Missing argument FILE|- (isorun run --help shows what there is)")
    return Wanted(**values)  # type: ignore[arg-type]  # OPTIONS has its fields, and makes their types


def run(**given: object) -> int:
    """Run one program, sealed, and exit with its exit code. Takes the fields of `Wanted`."""
    gc.disable()  # what is imported stays, and looking through all of it again and again takes 7 ms
    from isorun.cli.run.early import early_start

    wanted = wanted_of(given)
    with early_start(wanted) as early:
        from isorun.cli.run.conducting import conduct  # the jail warms up meanwhile

        gc.freeze()
        gc.enable()
        return conduct(wanted, early)


OPTIONS = {
    "run": (
        option("file FILE|-", "The program, or - for stdin.", nargs="?"),
        option("-c CODE", "The program itself, in place of FILE.", dest="code"),
        option("args ARGS", "sys.argv[1:] of the program; put -- before them.", nargs=REST),
        option("--exec-id ID", "The run's id, which names its folder; no run may have it yet (default: a new one)."),
        option("--turn-id ID", "The turn whose folder the program writes to."),
        option("--user-id ID", "For whom the program runs: the tools are told, and the program is not."),
        option("--side-effects", "No contract: report what changed in out/ (the default)."),
        option("--contract JSON|@FILE", "The files the program promises: JSON, or @FILE."),
        option("--timeout TIME", "Wall time: seconds, or as 500ms, 90s, 10m.", dest="timeout_s", type=seconds),
        option("--memory SIZE", "Of the whole run, as 256M; at most ISORUN_MAX_MEMORY_BYTES."),
        option("--cpus N", "Processors, as 0.5; at most ISORUN_MAX_CPUS."),
        option(
            "--limit NAME=VALUE", "Any other limit, as processes=8; may be repeated.", dest="limits", action="append"
        ),
        option(
            "--input PATH",
            "A file or folder for the program, in its working directory; may be repeated.",
            dest="inputs",
            action="append",
            type=Path,
        ),
        option(
            "--env NAME[=VALUE]",
            "A variable for the program; without a value, ours. May be repeated.",
            action="append",
        ),
        option("--start-from DIR", "Let out/ start as a copy of this folder.", type=Path),
        option("--save-to DIR", "Copy what the run wrote to this folder; files there are replaced.", type=Path),
        option("--session NAME", "Start with the files of this session, and leave it what this run has in out/."),
        option("--out DIR", "Copy all of out/, with its logs, to this folder, new or empty.", type=Path),
        BACKEND,
        option("--bundle DIR", "The folder whose tools the program may call.", type=Path),
        option("--tools IDS", "Only these tools, ids with commas (default: all of the bundle).", type=tool_ids),
        option("--python FILE", "The Python that the program runs on.", type=Path),
        PRELOAD,
        ENV_FILE,
        option("--stdin", "Give our stdin to the program."),
        option(
            "--loopback",
            "Let the program start servers on 127.0.0.1, for itself alone.",
            dest="network",
            action="store_const",
            const="loopback",
        ),
        option(
            "--no-keep",
            "Remove the run's folder afterwards; --save-to is copied before.",
            dest="keep",
            action="store_false",
        ),
        option("--json", "Print the whole result as JSON, and nothing else."),
    )
}
END = (
    "The exit code is the program's own, 128 + n if signal n ended it, or: 2 for a mistake in the command line, "
    "3 contract_failed, 4 if no sandbox works here, 5 limit_exceeded, 6 protocol_violation, 70 and 71 if a sandbox "
    "could not be set up or removed, 124 timed_out, 130 cancelled, 137 out_of_memory."
)
