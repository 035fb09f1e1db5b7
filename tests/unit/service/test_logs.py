"""The service's log: a folder of its own, and what is said if it cannot be there."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from isorun.core.errors import InvalidRequest
from isorun.service.logs import FILE, start_logging
from isorun.settings import Settings


@contextmanager
def as_at_a_start() -> Iterator[None]:
    """The root logger without pytest's handlers, and afterwards as it was."""
    root, alembic = logging.getLogger(), logging.getLogger("alembic")
    before, level, others = root.handlers[:], root.level, alembic.level
    root.handlers[:] = []
    try:
        yield
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:] = before
        root.setLevel(level)
        alembic.setLevel(others)


def test_a_line_is_on_standard_error_and_in_the_folder(tmp_path: Path, capsys) -> None:
    """With the time in UTC; the folder is made. Standard output stays free for the address."""
    with as_at_a_start():
        start_logging(replace(Settings(), log_dir=tmp_path / "logs" / "chat"))
        logging.getLogger("isorun").info("[supervisor] ready")
    said, written = capsys.readouterr(), (tmp_path / "logs" / "chat" / FILE).read_text()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z INFO \[isorun\] \[supervisor\] ready\n", written)
    assert (said.out, said.err) == ("", written)


def test_without_a_folder_there_is_standard_error_alone(capsys) -> None:
    """A service that somebody tries out leaves no file."""
    with as_at_a_start():
        start_logging(Settings())
        logging.getLogger("isorun").info("heard")
        assert len(logging.getLogger().handlers) == 1
    assert capsys.readouterr().err.endswith("[isorun] heard\n")


@pytest.mark.parametrize("below", ["file/logs", "file"])
def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path, below: str) -> None:
    """With the setting, the reason and what to do; the service does not start without its log."""
    (tmp_path / "file").write_text("")
    said = r"^LOG_DIR=.*: (Not a directory|File exists); name a folder"
    with as_at_a_start(), pytest.raises(InvalidRequest, match=said) as raised:
        start_logging(replace(Settings(), log_dir=tmp_path / below))
    assert "chown 1000:1000" in str(raised.value)
    assert raised.value.code == "invalid_setting"
