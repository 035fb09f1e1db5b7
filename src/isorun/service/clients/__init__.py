"""What clients of others speak: each module is one protocol over `Runs`, with that protocol's errors.

A client here is a program, so it is let in by a key alone, never by a browser's cookie: no page can make a browser ask.
The description of our own interface leaves these routes out: what they take and answer is others' to say.
"""

from fastapi import FastAPI

from isorun.service.clients import chat_completions, jupyter, sandbox_fusion
from isorun.service.clients.kernels import Kernels
from isorun.service.clients.librechat import files, programmatic
from isorun.service.clients.librechat.waiting import WaitingRuns

#: Bytes of a larger body than others may have, by its path.
UPLOADS = {"/run_code": sandbox_fusion.MOST_BODY, **files.UPLOADS}


def install(app: FastAPI) -> None:
    """Add the routes to *app*, and what they keep between two requests."""
    app.state.kernels = Kernels()
    app.state.waiting_runs = WaitingRuns()
    app.state.turns_at_once = chat_completions.TurnsAtOnce()
    clients = (sandbox_fusion, jupyter, files, programmatic, chat_completions)
    for one in clients:
        app.include_router(one.router)
