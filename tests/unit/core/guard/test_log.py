"""core.log: a caller's handlers and filters, which may raise."""

import logging

import pytest

from isorun.core.guard.log import log_of


class Closed(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise OSError(f"closed: {record.getMessage()}")


def refusing(record: logging.LogRecord) -> bool:
    raise KeyError(record.name)


@pytest.fixture
def logger() -> logging.Logger:
    found = logging.Logger("isorun.test_log")
    logging.Logger.manager.loggerDict[found.name] = found
    yield found
    del logging.Logger.manager.loggerDict[found.name]


def test_a_handler_that_raises_is_shown_and_dropped(logger, capsys) -> None:
    """Who logs goes on; the traceback is on stderr, as logging does it."""
    logger.addHandler(Closed())
    log_of(logger.name).warning("a %s", "line")
    assert capsys.readouterr().err.endswith("OSError: closed: a line\n")


def test_a_filter_that_raises_is_shown_and_dropped(logger, capsys) -> None:
    """Also where an exception is being logged."""
    logger.addFilter(refusing)
    try:
        raise ValueError
    except ValueError:
        log_of(logger.name).exception("failed")
    assert capsys.readouterr().err.endswith("KeyError: 'isorun.test_log'\n")


def test_a_record_names_who_logged(logger, caplog) -> None:
    """Not the line of this module that stands between."""
    logger.addHandler(caplog.handler)
    log_of(logger.name).error("it is %d", 3)
    (record,) = caplog.records
    assert (record.message, record.funcName) == ("it is 3", "test_a_record_names_who_logged")
