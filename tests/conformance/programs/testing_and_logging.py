"""unittest runs, logging to files and queues, warnings, tracebacks, profiles, memory traces."""

# ruff: noqa: PT009, PT027 - unittest is what is tried here
import cProfile
import io
import logging
import logging.config
import logging.handlers
import os
import pstats
import queue
import traceback
import tracemalloc
import unittest
import warnings
from pathlib import Path
from unittest import mock


class Arithmetic(unittest.TestCase):
    def test_sums(self) -> None:
        for n in range(3):
            with self.subTest(n=n):
                self.assertEqual(n + n, 2 * n)

    def test_fails(self) -> None:
        self.assertEqual([1, 2], [1, 3])

    @unittest.skip("on purpose")
    def test_skipped(self) -> None: ...

    def test_mock(self) -> None:
        with mock.patch("os.getcwd", return_value="/mocked"):
            self.assertEqual(os.getcwd(), "/mocked")


class Asynchronous(unittest.IsolatedAsyncioTestCase):
    async def test_awaits(self) -> None:
        with self.assertRaises(ZeroDivisionError):
            _ = 1 / 0


stream = io.StringIO()
cases = [unittest.defaultTestLoader.loadTestsFromTestCase(case) for case in (Arithmetic, Asynchronous)]
result = unittest.TextTestRunner(stream, verbosity=2).run(unittest.TestSuite(cases))
print("unittest", result.testsRun, len(result.failures), len(result.skipped), result.errors)
print([line for line in stream.getvalue().splitlines() if " ... " in line])

out = Path(os.environ["OUTPUT_DIR"])
logging.config.dictConfig(
    {
        "version": 1,
        "formatters": {"plain": {"format": "%(levelname)s|%(name)s|%(funcName)s|%(message)s"}},
        "handlers": {"file": {"class": "logging.FileHandler", "filename": out / "app.log", "formatter": "plain"}},
        "root": {"level": "DEBUG", "handlers": ["file"]},
    }
)
log = logging.getLogger("app.part")
log.debug("debug %s", "ü")
try:
    raise LookupError("lost")
except LookupError:
    log.exception("caught")
logging.shutdown()
print((out / "app.log").read_text().splitlines()[0], (out / "app.log").read_text().count("LookupError"))
(out / "app.log").unlink()
records: queue.Queue[logging.LogRecord] = queue.Queue()
memory = io.StringIO()
listener = logging.handlers.QueueListener(records, logging.StreamHandler(memory))
listener.start()
quiet = logging.Logger("quiet")
quiet.addHandler(logging.handlers.QueueHandler(records))
quiet.warning("through a queue")
listener.stop()
print("queue", memory.getvalue())
rotating = logging.handlers.RotatingFileHandler(out / "rotated.log", maxBytes=100, backupCount=2)
quiet.handlers = [rotating]
for n in range(20):
    quiet.warning("line %02d", n)
rotating.close()
print("rotated", sorted(path.name for path in out.glob("rotated*")))

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    warnings.warn("careful", DeprecationWarning, stacklevel=1)
    print("warning", [(str(w.message), w.category.__name__, os.path.basename(w.filename)) for w in caught])


def outer() -> None:
    try:
        {}["missing"]
    except KeyError as error:
        raise RuntimeError("wrapped") from error


try:
    outer()
except RuntimeError as error:
    text = traceback.format_exception(error)
    print(
        "traceback",
        len(text),
        [line.strip() for line in "".join(text).splitlines() if "^" in line or "Error" in line],
    )
profile = cProfile.Profile()
profile.runcall(sorted, range(1000), key=lambda n: -n)
print("profile", pstats.Stats(profile, stream=io.StringIO()).total_calls)
tracemalloc.start()
kept = [bytes(1000) for _ in range(100)]
print("traced", tracemalloc.get_traced_memory()[0] > 100_000, len(kept))
tracemalloc.stop()
