"""What a run wrote, copied to the folder that its caller named.

It must not look into the sandbox: it reads the run's own folder, whose files the host has written.
"""

from isorun.core.errors import SetupFailed
from isorun.runtime.request import AcceptedRun
from isorun.store.folder import RunFolder
from isorun.store.saving import save

_NAMED = 10


def save_files(request: AcceptedRun, folder: RunFolder) -> None:
    """Copy what `request.saving` asks for. Raises `SetupFailed`, which names each file that could not be saved."""
    saving = request.saving
    if saving is None:
        return
    whole = saving.whole
    try:
        faults = save(
            folder.out,
            saving.to,
            passed_over=(lambda _: False) if whole else folder.reserved,
            before={} if whole else request.sent,
        )
    except OSError as error:
        faults = [f"{saving.to}: {error.strerror or error}"]
    if faults:
        more = f"; and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        raise SetupFailed(
            saving.option,
            f"{'; '.join(faults[:_NAMED])}{more}: not saved in {saving.to}; the run's files are in {folder.out}",
        )
