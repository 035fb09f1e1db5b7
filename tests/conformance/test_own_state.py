"""Each program starts with a state of its own, though its process is a copy of one that stood before it.

What the standard library and others put right in a child of fork must be right in a program's process too, and in
the children that the program forks itself.
"""

import json
import venv
from pathlib import Path

import pytest

import isorun

CHANCE = """
import hashlib, random, secrets, ssl, tempfile, uuid
found = [random.random(), random.getrandbits(64), uuid.uuid4().hex, uuid.uuid1().hex, secrets.token_hex(8)]
found += [os.urandom(8).hex(), ssl.RAND_bytes(8).hex(), tempfile.mktemp(), random.Random().random()]
print(json.dumps(found))
"""


def test_no_chance_of_one_run_comes_again_in_another(run) -> None:
    """Whatever is drawn, by whichever module, is drawn anew in each run."""
    drawn = [json.loads(run(CHANCE).stdout) for _ in range(3)]
    assert len({str(value) for run_ in drawn for value in run_}) == 3 * len(drawn[0])


def test_a_child_draws_anew(run) -> None:
    """A program's own child of fork has other random numbers than the program, as outside."""
    result = run("""
        import random
        random.seed(1)
        pid = os.fork()
        drawn = random.random()
        os.write(1, f"{drawn}\\n".encode())
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)
    """)
    first, second = result.stdout.split()
    assert first != second


def test_threads_are_as_in_a_process_of_its_own(run) -> None:
    """One thread, the main one, which this is; others start, are joined, and have locks of their own."""
    result = run("""
        import threading, _thread
        main = threading.main_thread()
        print(threading.enumerate() == [main], threading.current_thread() is main, main.ident == threading.get_ident())
        print(main.is_alive(), main.daemon, main.name, threading.active_count())
        seen = []
        local = threading.local()
        local.value = 1
        def work(n):
            seen.append((n, hasattr(local, "value")))
        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(sorted(seen), threading.active_count())
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(2) as pool:
            print(list(pool.map(abs, [-1, -2])))
    """)
    assert result.stdout.splitlines() == [
        "True True True",
        "True False MainThread 1",
        "[(0, False), (1, False), (2, False), (3, False)] 1",
        "[1, 2]",
    ], result.stderr


def test_threads_in_a_child_of_the_program(run) -> None:
    """A child of fork has one thread, also if its parent had two, and can start more."""
    result = run("""
        import threading
        stop = threading.Event()
        other = threading.Thread(target=stop.wait)
        other.start()
        pid = os.fork()
        if not pid:
            seen = threading.active_count(), threading.current_thread() is threading.main_thread(), other.is_alive()
            thread = threading.Thread(target=lambda: os.write(1, f"{seen}\\n".encode()))
            thread.start()
            thread.join()
            os._exit(0)
        os.waitpid(pid, 0)
        stop.set()
        other.join()
        print("joined")
    """)
    assert result.stdout.splitlines() == ["(1, True, False)", "joined"], result.stderr


def test_locks_of_logging_are_free(run) -> None:
    """A handler's lock, and that of the module, are held by nobody, in the program and in a child of it."""
    result = run("""
        import threading
        def look(who):
            free = []
            def take():
                locks = [handler.createLock() or handler.lock for handler in [logging.StreamHandler()]]
                locks += [handler().lock for handler in logging._handlerList if handler() and handler().lock]
                locks.append(logging._lock)
                for lock in locks:
                    free.append(lock.acquire(timeout=1))
                    lock.release()
            thread = threading.Thread(target=take)
            thread.start()
            thread.join()
            os.write(1, f"{who} {all(free)} {len(free) > 2}\\n".encode())
        look("program")
        logging.getLogger("user").info("a line")
        pid = os.fork()
        if not pid:
            look("child")
            os._exit(0)
        os.waitpid(pid, 0)
    """)
    assert result.stdout.splitlines() == ["program True True", "child True True"], result.stderr
    assert result.stderr.endswith("INFO user a line\n")


def test_the_process_knows_itself(run) -> None:
    """Its pid is the one that its kernel gives it, it leads its session, and it has the signals' usual ways."""
    result = run("""
        import signal
        print(os.getpid() == int(os.readlink("/proc/self")), os.getsid(0) == os.getpid())
        print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
        print(signal.getsignal(signal.SIGCHLD), signal.getsignal(signal.SIGPIPE))
        print(signal.set_wakeup_fd(-1), signal.pthread_sigmask(signal.SIG_BLOCK, []))
    """)
    assert result.stdout.splitlines() == ["True True", "True", "0 1", "-1 set()"], result.stderr


def test_the_main_module_is_a_scripts(run) -> None:
    """`__main__` has what the interpreter gives a script and what was promised, and nothing of how it was made."""
    result = run("""
        import sys, types, builtins
        main = sys.modules["__main__"]
        print(type(main) is types.ModuleType, main.__dict__ is globals(), __name__, __spec__, __doc__, __package__)
        print(__builtins__ is builtins, __file__ == sys.argv[0] == main.__file__, __cached__, __loader__.name)
        print(sorted(name for name in globals() if not name.startswith("__")))
        print([name for name in sys.modules if "rehears" in name])
    """)
    names = "CONTRACT EXECUTION_ID OUT OUTPUT_DIR OUT_DIR Path TURN_ID agent_io_tools asyncio builtins exec_tools json"
    assert result.stdout.splitlines() == [
        "True True __main__ None None None",
        "True True None __main__",
        str(sorted([*names.split(), "logging", "main", "os", "sys", "time", "types"])),
        "[]",
    ], result.stderr


def test_nothing_of_the_slots_start_lies_about(run, sealed: str) -> None:
    """The folders that a program may write to have in them what the run brought, and nothing else."""
    result = run("""
        print(sorted(os.listdir("/workspace/work")), os.listdir("/dev/shm"), os.listdir())
        print([name for name in os.listdir("/tmp") if name.startswith(".")])  # others may lead to the interpreter
    """)
    assert result.stdout == "['.isorun-last-trace', 'main.py', 'user_code.py'] [] []\n[]\n"


def test_functions_for_the_end_run_in_their_order(run) -> None:
    """Threads are joined, then what was registered with atexit runs backwards, then files are flushed."""
    result = run("""
        import atexit, threading
        atexit.register(print, "first registered")
        atexit.register(lambda: print("second", threading.main_thread().is_alive()))
        left = open("left.txt", "w")
        left.write("flushed")
        threading._register_atexit(print, "threads end")
        threading.Thread(target=lambda: (time.sleep(0.1), print("thread"))).start()
        print("last line")
    """)
    assert result.stdout.splitlines() == ["last line", "threads end", "thread", "second False", "first registered"]
    assert [(artifact.path, artifact.bytes) for artifact in result.artifacts] == [("left.txt", 7)]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import atexit; atexit.register(print, 'bye')", "bye\n"),
        ("import threading; threading._register_atexit(print, 'bye')", "bye\n"),
        ("import threading; threading.Thread(target=lambda: (time.sleep(0.05), print('bye'))).start()", "bye\n"),
        ("import _thread; _thread.start_new_thread(time.sleep, (60,)); print('left')", "left\n"),
        (
            "import logging.handlers as h, sys\n"
            "logger = logging.getLogger('mine'); logger.propagate = False\n"
            "logger.addHandler(h.MemoryHandler(9, target=logging.StreamHandler(sys.stdout))); logger.warning('kept')",
            "kept\n",
        ),
        ("class Late:\n    def __del__(self): print('deleted')\nlate = Late(); late.me = late", "deleted\n"),
        ("import weakref\nclass A: pass\na = A(); weakref.finalize(a, print, 'final')", "final\n"),
    ],
    ids=["atexit", "threads' atexit", "thread", "raw thread", "log handler", "cycle", "finalizer"],
)
def test_each_thing_that_waits_for_the_end_gets_it(run, code: str, said: str) -> None:
    """One alone of what a program may leave for its end is enough for it to be done."""
    result = run(code)
    assert (result.stdout, result.stderr, result.ok) == (said, "", True)


PRELOAD = """
import os, threading

seen = []
lock = threading.Lock()
os.register_at_fork(after_in_child=lambda: seen.append(os.getpid()))
"""


def test_what_a_preload_does_at_a_fork_is_done(own, embedded: str, tmp_path: Path) -> None:
    """A module that asked to be told of forks is told of the program's process, with its pid, and of its children."""
    venv.create(tmp_path / "own", with_pip=False, symlinks=True)
    (site,) = tmp_path.glob("own/lib/python3*/site-packages")
    (site / "notices_forks.py").write_text(PRELOAD)
    code = """
import notices_forks
print(notices_forks.seen == [os.getpid()])
pid = os.fork()
if not pid:
    os.write(1, f"{notices_forks.seen[1:] == [os.getpid()]}\\n".encode())
    os._exit(0)
os.waitpid(pid, 0)
"""
    options = {"python": str(tmp_path / "own/bin/python"), "preloads": ("notices_forks",)}
    with own(options) as rt:
        results: list[isorun.RunResult] = [rt.execute(code, timeout_s=10) for _ in range(2)]
    assert [result.stdout for result in results] == ["True\nTrue\n"] * 2, results[0].stderr


def test_the_collector_sees_the_programs_own(run) -> None:
    """What a program made is found among the collector's objects, and its globals among what refers to it."""
    result = run("""
        import gc
        class Mine: pass
        one = Mine()
        print(any(found is globals() for found in gc.get_referrers(one)), any(o is one for o in gc.get_objects()))
        print(gc.isenabled(), gc.get_threshold()[0] > 0, gc.garbage)
    """)
    assert result.stdout == "True True\nTrue True []\n"
