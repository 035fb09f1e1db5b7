"""asyncio: task groups, subprocesses, signals, a Unix server with clients, executors, timeouts."""

import asyncio
import os
import signal
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor


async def children() -> None:
    process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    print("exec", (await process.communicate("grüße".encode()))[0].decode(), process.returncode)
    shells = [await asyncio.create_subprocess_shell(f"echo {n}; exit {n}", stdout=-1) for n in range(5)]
    outputs = await asyncio.gather(*(shell.communicate() for shell in shells))
    print("shell", [out for out, _ in outputs], [shell.returncode for shell in shells])
    slow = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(60)")
    try:
        await asyncio.wait_for(slow.wait(), 0.05)
    except TimeoutError:
        slow.kill()
        print("killed", await slow.wait())


async def server() -> None:
    async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "s")

        async def client(n: int) -> bytes:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"client %d\n" % n)
            line = await reader.readline()
            writer.close()
            return line

        async with await asyncio.start_unix_server(upper, path):
            print("server", await asyncio.gather(*map(client, range(8))))


async def signals() -> None:
    loop = asyncio.get_running_loop()
    got: asyncio.Queue[str] = asyncio.Queue()
    for number in (signal.SIGUSR1, signal.SIGTERM):
        loop.add_signal_handler(number, got.put_nowait, number.name)
    for number in (signal.SIGUSR1, signal.SIGTERM):
        os.kill(os.getpid(), number)
        print("signal", await asyncio.wait_for(got.get(), 10))
        loop.remove_signal_handler(number)


async def groups() -> None:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(60))
            group.create_task(asyncio.to_thread(int, "no number"))
    except* ValueError as errors:
        print("group", [str(error) for error in errors.exceptions])
    async with asyncio.timeout(30):
        with ProcessPoolExecutor(1) as pool:
            print("executor", await asyncio.get_running_loop().run_in_executor(pool, pow, 2, 100))


async def main() -> None:
    await children()
    await server()
    await signals()
    await groups()
    reader, writer = os.pipe()
    loop = asyncio.get_running_loop()
    seen = loop.create_future()
    loop.add_reader(reader, lambda: seen.set_result(os.read(reader, 10)))
    os.write(writer, b"readable")
    print("reader", await seen)


if __name__ == "__main__":
    asyncio.run(main())
