"""Signal handlers, timers, masks, wake-up descriptors, faulthandler, resource limits."""

import faulthandler
import os
import resource
import signal
import sys
import tempfile
import threading
import time

print("defaults", [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1)])
print(
    "interrupt",
    signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    signal.getsignal(signal.SIGPIPE),
)
print("mask", signal.pthread_sigmask(signal.SIG_BLOCK, []))
ticks: list[int] = []
signal.signal(signal.SIGALRM, lambda number, frame: ticks.append(frame.f_code.co_firstlineno))
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
while len(ticks) < 3:
    signal.pause()
signal.setitimer(signal.ITIMER_REAL, 0)
print("ticks", ticks[:3])
virtual: list[int] = []
signal.signal(signal.SIGVTALRM, lambda *_: virtual.append(1))
signal.setitimer(signal.ITIMER_VIRTUAL, 0.01)
while not virtual:
    sum(range(1000))
print("virtual", virtual)


class Deadline(Exception):
    pass


def expire(*_: object) -> None:
    raise Deadline


signal.signal(signal.SIGALRM, expire)
signal.alarm(1)
try:
    time.sleep(60)
except Deadline:
    print("interrupted a sleep")
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
os.kill(os.getpid(), signal.SIGUSR1)
print("pending", signal.sigpending(), signal.sigwait([signal.SIGUSR1]))
reader, writer = os.pipe2(os.O_NONBLOCK)
signal.set_wakeup_fd(writer)
signal.signal(signal.SIGUSR2, lambda *_: None)
signal.raise_signal(signal.SIGUSR2)
print("wake-up", os.read(reader, 10) == bytes([signal.SIGUSR2]))
signal.set_wakeup_fd(-1)
try:
    threading.Thread(target=lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)).start()
    time.sleep(60)
except KeyboardInterrupt:
    print("KeyboardInterrupt")
signal.signal(signal.SIGTERM, lambda number, _: print("handled", number))
os.kill(os.getpid(), signal.SIGTERM)

with tempfile.TemporaryFile("w+") as file:
    faulthandler.dump_traceback(file)
    file.seek(0)
    print("faulthandler", file.read().splitlines()[1].split(", ")[1:])
    faulthandler.dump_traceback_later(60, file=file)
    faulthandler.cancel_dump_traceback_later()
if (pid := os.fork()) == 0:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stderr.flush()
    os.close(2)
    os.abort()
print("abort", os.WTERMSIG(os.waitpid(pid, 0)[1]))
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
files: list[int] = []
try:
    while True:
        files.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    print("open files", soft >= 1024, error.strerror, len(files) < 64)
for descriptor in files:
    os.close(descriptor)
usage = resource.getrusage(resource.RUSAGE_SELF)
print("usage", usage.ru_maxrss > 1000, usage.ru_utime > 0, os.nice(0), os.getpriority(os.PRIO_PROCESS, 0))
print("cpus", len(os.sched_getaffinity(0)) >= 1, os.cpu_count() >= 1)
