"""SPEC A2: how the program is run.

Clauses: main.py is a small stable loader · user_code.py is the program, byte for byte ·
`__name__` · `__file__` and sys.argv[0] · stdin at its end, or as given · cwd is the output
directory · top-level await · without it no loop, so asyncio.run works · with it, that
error's hint says `await main()` · multiprocessing defaults to fork · spawn children import
user_code.py (main guard) and do not see the loader's names.
"""

import json

import pytest


def test_main_is_a_small_stable_loader(run) -> None:
    """work/main.py is the same few lines for every program."""
    texts = [(run(code).out_dir.parent / "work/main.py").read_bytes() for code in ("print(1)", "import os")]
    assert texts[0] == texts[1]
    assert len(texts[0]) < 500
    assert b"user_code.py" in texts[0]


def test_the_program_finds_itself_byte_for_byte(rt) -> None:
    """Bytes that no text round trip keeps (CRLF, a tab, no newline at the end) arrive as sent."""
    code = b"# -*- coding: latin-1 -*-\r\n# \xe9\tx\r\nprint(open(__file__, 'rb').read().hex())  "
    result = rt.execute(code, timeout_s=10)
    assert bytes.fromhex(result.stdout) == code
    assert (result.out_dir.parent / "work/user_code.py").read_bytes() == code


def test_name_file_argv_and_cwd(run) -> None:
    """The program is `__main__`, knows its file and arguments, and stands in the output directory."""
    result = run(
        """
        module = sys.modules["__main__"].__name__
        print(json.dumps([__name__, __file__, sys.argv, os.getcwd(), OUTPUT_DIR, module]))
        """,
        argv=["--n", "3", "é \n"],
    )
    name, file, argv, cwd, output, module = json.loads(result.stdout)
    assert (name, module) == ("__main__", "__main__")
    assert file == argv[0]
    assert file.endswith("/work/user_code.py")
    assert argv[1:] == ["--n", "3", "é \n"]
    assert cwd == output == file.replace("/work/user_code.py", "/out")


def test_stdin_is_at_its_end(run) -> None:
    """A program that reads stdin gets the end at once, in the program and in a child."""
    result = run("""
        import subprocess
        print(repr(sys.stdin.read()), os.read(0, 10), subprocess.run(["cat"], capture_output=True).stdout)
        try:
            input()
        except EOFError:
            print("EOFError")
    """)
    assert result.stdout == "'' b'' b''\nEOFError\n"


@pytest.mark.parametrize("given", ["two\nlines é\n", b"two\nlines \xc3\xa9\n"])
def test_stdin_as_given(run, given) -> None:
    """What the caller gives as stdin is read as lines, and leaves no file for the program to find."""
    result = run("print(input(), sys.stdin.read().encode()); print(os.listdir(os.path.dirname(__file__)))", stdin=given)
    first, listing = result.stdout.splitlines()
    assert first == "two b'lines \\xc3\\xa9\\n'"
    assert ".isorun-stdin" not in listing


@pytest.mark.parametrize("given", ["a\r\nb", "a\rb\n", "name,n\r\n\r\nx,1\r\n", "\r"])
def test_stdin_keeps_its_line_ends(run, given) -> None:
    """The text of stdin has the line ends that were given, as in CPython: whole, by line, and by `input()`."""
    result = run(
        """
        print(json.dumps([list(sys.stdin), sys.stdin.newlines]))
        """,
        stdin=given,
    )
    lines, newlines = json.loads(result.stdout)
    assert ("".join(lines), newlines) == (given, None)
    assert len(lines) == given.count("\n") + (not given.endswith("\n"))


def test_input_keeps_a_carriage_return(run) -> None:
    """`input()` takes away the line feed alone."""
    assert run("print(repr(input()), repr(input()))", stdin="a\r\nb\rc\n").stdout == "'a\\r' 'b\\rc'\n"


def test_top_level_await(run) -> None:
    """`await`, `async with` and `async for` work at the top of the program, and share one loop."""
    result = run("""
        import contextlib
        @contextlib.asynccontextmanager
        async def manager():
            yield 1
        async def numbers():
            yield 2
        first = asyncio.get_running_loop()
        await asyncio.sleep(0)
        async with manager() as one:
            async for two in numbers():
                print(one, two, [n async for n in numbers()], asyncio.get_running_loop() is first, __name__)
    """)
    assert result.stdout == "1 2 [2] True __main__\n"


def test_without_top_level_await_there_is_no_loop(run) -> None:
    """A plain program may start its own loop."""
    result = run("""
        async def main():
            await asyncio.sleep(0)
            return 42
        try:
            asyncio.get_running_loop()
        except RuntimeError as error:
            print(error)
        print(asyncio.run(main()))
    """)
    assert result.stdout == "no running event loop\n42\n"


def test_asyncio_run_under_top_level_await_says_what_to_do(run) -> None:
    """The one mistake of everybody who adds a top-level await gets the sentence that mends it."""
    result = run("""
        async def main():
            pass
        await asyncio.sleep(0)
        asyncio.run(main())
    """)
    assert (result.status, result.error.code) == ("failed", "program_error")
    assert "`await main()`" in result.error.hint
    assert result.error.where == "user_code.py:5"


def test_multiprocessing_forks_by_default(run) -> None:
    """The default start method is fork, so functions and names of the program are there."""
    result = run("""
        import multiprocessing
        def square(n):
            return n * n, OUTPUT_DIR == str(OUT)
        with multiprocessing.Pool(2) as pool:
            print(multiprocessing.get_start_method(), pool.map(square, range(3)))
    """)
    assert result.stdout == "fork [(0, True), (1, True), (4, True)]\n"


def test_spawn_children_import_the_program_and_see_no_names_of_ours(run) -> None:
    """A spawned child runs user_code.py under its guard; what the loader gave is not there."""
    result = run("""
        import multiprocessing
        imported_as = __name__
        def report(queue):
            ours = "OUTPUT_DIR OUT OUT_DIR agent_io_tools CONTRACT EXECUTION_ID TURN_ID exec_tools".split()
            queue.put([imported_as, [name for name in ours if name in globals()]])
        if __name__ == "__main__":
            context = multiprocessing.get_context("spawn")
            queue = context.Queue()
            child = context.Process(target=report, args=(queue,))
            child.start()
            print(queue.get())
            child.join()
            print(child.exitcode)
    """)
    assert result.stdout == "['__mp_main__', []]\n0\n"
