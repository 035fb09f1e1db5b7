"""What a run's program is told of its run: one value from the runtime to the loader."""

from __future__ import annotations

from isorun.core.sent.record import Record


class RunContext(Record):
    """What a program is told beside its arguments and environment. For an empty contract it sees None."""

    exec_id: str
    turn: str
    contract: list[dict[str, str]]  # `filename` and `description` of each promised file
    directories: list[str]  # below out/, made for the promised files
    log_mode: str
    traceback_remap: bool
    keep_value: bool  # of the last expression
    save_figures: bool
    frame_bytes: int  # most of one frame on the tool stream
    frame_values: int  # and of the values in it
    cpus: int  # that its time is worth, rounded up
    stdin: bool  # whether a file is there to be read as it
    given: list[str]  # names in out/ that work/ shows, too: the inputs
    tools: dict[str, list[str]]  # names by alias
    about: dict[str, list[str]]  # signature and description by tool id; not of every tool
