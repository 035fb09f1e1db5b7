"""threading, queues, thread pools, context variables, and a thread that outlives the last line."""

import contextvars
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

jobs: queue.PriorityQueue[tuple[int, int]] = queue.PriorityQueue()
done: queue.Queue[int] = queue.Queue()
total = 0
lock = threading.Lock()


def work() -> None:
    global total
    while (job := jobs.get())[0] < 1000:
        with lock:
            total += job[1] ** 2
        done.put(job[1])
        jobs.task_done()


for n in range(200):
    jobs.put((n % 10, n))
workers = [threading.Thread(target=work) for _ in range(8)]
for _ in workers:
    jobs.put((1000, 0))
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
print("squares", total, done.qsize())

barrier = threading.Barrier(5)
order: list[str] = []
condition = threading.Condition()


def meet(n: int) -> None:
    barrier.wait(10)
    with condition:
        condition.wait_for(lambda: len(order) == n, timeout=10)
        order.append(f"t{n}")
        condition.notify_all()


group = [threading.Thread(target=meet, args=(n,)) for n in range(5)]
for thread in group:
    thread.start()
for thread in group:
    thread.join()
print("in order", order)

local = threading.local()
where = contextvars.ContextVar("where", default="nowhere")


def isolated(n: int) -> tuple[bool, str]:
    seen = hasattr(local, "n")
    local.n = n
    token = where.set(f"here {n}")
    name = where.get()
    where.reset(token)
    del local.n
    return seen, name


with ThreadPoolExecutor(6) as pool:
    results = sorted(f.result() for f in as_completed([pool.submit(isolated, n) for n in range(20)]))
print("local", results[:3], len(results))
semaphore = threading.BoundedSemaphore(2)
timer_fired = threading.Event()
threading.Timer(0.01, timer_fired.set).start()
print(
    "timer",
    timer_fired.wait(10),
    "semaphore",
    semaphore.acquire(),
    semaphore.acquire(),
    semaphore.acquire(False),
)
many = [threading.Thread(target=timer_fired.wait) for _ in range(40)]
for thread in many:
    thread.start()
for thread in many:
    thread.join()
print("alive", threading.active_count())


def late() -> None:
    time.sleep(0.05)
    print("late: printed after the last line", flush=True)


threading.Thread(target=late).start()
print("last line", flush=True)
