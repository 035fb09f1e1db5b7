"""The kernel's log: whose memory was full, from lines as a kernel writes them."""

from pathlib import Path

import pytest

from sandbox_runner.docker.container import was_out_of_memory
from sandbox_runner.linux import kernel_log

FULL, ENDED = "4" * 64, "e" * 64
LINE = (
    "6,42,971832107,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset={id},mems_allowed=0,"
    "oom_memcg={path},task_memcg=/docker/{other},task=exe,pid=19509,uid=65534\n"
)


@pytest.mark.parametrize("path", [f"/docker/{FULL}", f"/system.slice/docker-{FULL}.scope"], ids=["v1", "systemd"])
def test_a_full_memory_that_an_engine_missed_is_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Of the group whose ceiling was met, and of no other that the line names."""
    log = tmp_path / "kmsg"
    log.write_text(LINE.format(id=ENDED, path=path, other=ENDED))
    monkeypatch.setattr(kernel_log, "KERNEL_LOG", str(log))
    assert was_out_of_memory({"Id": FULL, "State": {"OOMKilled": False}})
    assert not was_out_of_memory({"Id": ENDED, "State": {"OOMKilled": False}})
    assert was_out_of_memory({"Id": ENDED, "State": {"OOMKilled": True}})
    assert not was_out_of_memory({"Id": FULL, "State": {"Running": True}})  # of one that goes on the engine hears


def test_a_log_that_is_not_ours_to_read_tells_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the engine's word is all there is."""
    monkeypatch.setattr(kernel_log, "KERNEL_LOG", "/proc/no such log")
    assert not was_out_of_memory({"Id": FULL, "State": {}})
