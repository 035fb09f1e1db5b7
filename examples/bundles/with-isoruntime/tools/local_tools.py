"""The bundle's own tool: notes beside a program's files."""

from datetime import UTC, datetime
from itertools import count

import isorun


@isorun.tool
def write_note(text: str, ctx: isorun.ToolContext) -> str:
    """Write a note to OUTPUT_DIR/notes/ and return its path there. No note is ever overwritten.

    Args:
        text: What the note says.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    for number in count():
        # Two runs of a user, or two calls at once, may meet the same microsecond.
        name = f"notes/{stamp}-{number}-note.txt" if number else f"notes/{stamp}-note.txt"
        try:
            with ctx.open_output(name, "x") as note:
                note.write(text)
        except FileExistsError:
            continue
        return str(ctx.output_dir / name)
    raise AssertionError("unreachable")
