"""Tools that the scenarios lean against: a secret, one that nobody is granted, one that takes too long."""

import asyncio
import hashlib

import isorun

SECRET = "AWS_SESSION_TOKEN"  # noqa: S105 - the name of a variable; the scenarios plant a canary in it


@isorun.tool
def secret_digest(ctx: isorun.ToolContext) -> str:
    """Return the SHA-256 of the secret that this process holds: enough to know it when it is met."""
    return hashlib.sha256(ctx.env[SECRET].encode()).hexdigest()


@isorun.tool
def read_secret(ctx: isorun.ToolContext) -> str:
    """Return the secret itself. No scenario grants it to its program."""
    return ctx.env[SECRET]


@isorun.tool(timeout_s=0.5)
async def slow_answer(seconds: float) -> str:
    """Answer after a while, though a call may take half a second.

    Args:
        seconds: How long that is.
    """
    await asyncio.sleep(seconds)
    return "at last"
