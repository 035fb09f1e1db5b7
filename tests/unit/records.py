"""Records of the wire for tests that need one and do not care what it says."""

from isorun.core.sent.context import RunContext
from isorun.core.sent.facts import ContainerFacts
from isorun.core.sent.sealing import Sealing

SEALING = Sealing(
    without=[],
    cgroup=True,
    nproc=8,
    data_bytes=None,
    file_bytes=1 << 20,
    open_files=64,
    may_lack=[],
    workspace_bytes=1 << 20,
    workspace_inodes=64,
    tmp_bytes=1 << 20,
    shm_bytes=1 << 20,
)

CONTEXT = RunContext(
    exec_id="",
    turn="turn_1",
    contract=[],
    directories=[],
    log_mode="full",
    traceback_remap=True,
    keep_value=True,
    save_figures=True,
    frame_bytes=1 << 16,
    frame_values=1 << 10,
    cpus=1,
    stdin=False,
    given=[],
    tools={},
    about={},
)

FACTS = ContainerFacts(
    status="",
    init="",
    mountinfo="",
    rlimits="",
    namespaces={},
    fds=[],
    sizes={},
    cgroup={},
)
