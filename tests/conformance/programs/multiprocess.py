"""multiprocessing by fork, spawn and forkserver: queues, pipes, pools, managers, shared memory, locks."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import shared_memory
from typing import Any


def square(n: int) -> int:
    return n * n


def fail(n: int) -> None:
    raise KeyError(f"from a worker: {n}")


def produce(queue: Any, start: int) -> None:  # noqa: ANN401 - each start method has its own type
    for n in range(start, start + 5):
        queue.put(n)


def add(total: Any, lock: Any, event: Any) -> None:  # noqa: ANN401 - any value will do
    event.wait(20)
    for _ in range(100):
        with lock:
            total.value += 1


def fill(name: str) -> None:
    block = shared_memory.SharedMemory(name=name)
    block.buf[:5] = b"hello"
    block.close()


def share(shared: Any, names: Any, n: int) -> None:  # noqa: ANN401 - any value will do
    shared[n] = os.environ["OUTPUT_DIR"] != ""
    names.append(f"worker {n}")


def answer(end: Any) -> None:  # noqa: ANN401 - any value will do
    end.send({"echo": end.recv()})
    end.close()


def start_and_join(*processes: Any) -> list[int | None]:  # noqa: ANN401 - any value will do
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    return [process.exitcode for process in processes]


def everything(method: str) -> None:
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    print(
        method,
        "exit codes",
        start_and_join(*(context.Process(target=produce, args=(queue, n)) for n in (0, 10))),
    )
    print(method, "queue", sorted(queue.get(timeout=10) for _ in range(10)))

    total, lock, event = context.Value("i", 0, lock=False), context.Lock(), context.Event()
    event.set()
    start_and_join(*(context.Process(target=add, args=(total, lock, event)) for _ in range(2)))
    print(method, "value", total.value)

    ours, theirs = context.Pipe()
    ours.send([1, "ü", b"\0"])
    start_and_join(context.Process(target=answer, args=(theirs,)))
    print(method, "pipe", ours.recv())

    with context.Pool(2) as pool:
        print(method, "pool", pool.map(square, range(12)), pool.apply(square, (9,)))
        try:
            pool.map(fail, [1])
        except KeyError as error:
            print(method, "raised", error)

    block = shared_memory.SharedMemory(create=True, size=1 << 20)
    start_and_join(context.Process(target=fill, args=(block.name,)))
    print(method, "shared memory", bytes(block.buf[:5]))
    block.close()
    block.unlink()

    with context.Manager() as manager:
        shared, names = manager.dict(), manager.list()
        start_and_join(*(context.Process(target=share, args=(shared, names, n)) for n in range(2)))
        print(method, "manager", dict(sorted(shared.items())), sorted(names))

    with ProcessPoolExecutor(2, mp_context=context) as executor:
        print(method, "executor", sum(executor.map(square, range(50), chunksize=10)))


if __name__ == "__main__":
    for each in ("fork", "spawn", "forkserver"):
        everything(each)
    print("children left", len(multiprocessing.active_children()))
