"""Programs as a tool: with a contract, or for their side effects.

`execute_code_python` and `execute_code_python_side_effect` are what a model is offered;
their docstrings are the descriptions that it reads. `run_exec_tool` and
`run_exec_tool_no_contract` are for trusted code that keeps a work and an out folder of
its own. All four return a `RunResult`; a program that fails is a result, never an
exception. From inside a run none of them is answered (`nested_execution`).
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, Unpack

from isorun.core.errors import InvalidRequest, SetupFailed
from isorun.core.request import ProgramOptions, RunRequest, takes
from isorun.core.result import RunResult
from isorun.model import legal_name, parameters
from isorun.runtime.accepted.handle import Run
from isorun.runtime.aside import in_thread
from isorun.runtime.carried.session import Session
from isorun.runtime.output import OnOutput
from isorun.runtime.runtime import Runtime
from isorun.settings import Settings
from isorun.tools.folders import bring_back, drop_records, inputs_of, ready

_source: ContextVar[str | bytes | None] = ContextVar("isorun_source", default=None)
_runtime: ContextVar[Runtime | Session | None] = ContextVar("isorun_runtime", default=None)

_Runs = TypeVar("_Runs", Runtime, Session)


#: Is told of a run that has begun, with what was asked of it. What it raises cancels the run, and is raised.
OnStart = Callable[[Run, RunRequest], Awaitable[None]]


class FolderOptions(ProgramOptions, total=False):
    """The keywords of `run_exec_tool` and `run_exec_tool_no_contract`."""

    runtime: Runtime | None
    on_output: OnOutput | None
    on_start: OnStart | None


@asynccontextmanager
async def source(code: str | bytes) -> AsyncIterator[None]:
    """Inside the block, *code* is the program of every call of this task that brings none itself."""
    token = _source.set(code)
    try:
        yield
    finally:
        _source.reset(token)


@asynccontextmanager
async def using(runtime: _Runs) -> AsyncIterator[_Runs]:
    """Inside the block, the calls of this task run in *runtime*, or in a session of one; else each opens its own."""
    token = _runtime.set(runtime)
    try:
        yield runtime
    finally:
        _runtime.reset(token)


async def execute_code_python(
    code: str | bytes | None = None,
    contract: object = None,
    timeout_s: float | None = None,
    prog_name: str | None = None,
) -> RunResult:
    """Run a Python program that promises files, and check each of them before it counts.

    Choose this one when you know beforehand which files there will be; choose
    `execute_code_python_side_effect` when you do not.

    Args:
        code: The program. It has no network. It writes to the folder OUTPUT_DIR, which is
            also its working directory.
        contract: The promised files, a list (or the same as a JSON string) of objects with
            `filename` ("turn_<id>/files/report.md"), `description`, and optionally
            `visibility`, `min_bytes`, `mime`, `json_schema`, `columns`, `min_rows`,
            `pages`, `must_contain`. A file that is missing or not as promised is an error
            with a hint.
        timeout_s: Wall seconds, counted from the program's first instruction.
        prog_name: A name that is shown with the run, at most 64 characters.
    """
    if contract is None:
        raise InvalidRequest(
            "there is no contract: promise at least one file, or use exec_tools.execute_code_python_side_effect",
            code="missing_contract",
        )
    async with _open_runtime() as runtime:
        return await runtime.execute(_code(code), contract=contract, timeout_s=timeout_s, prog_name=prog_name)


async def execute_code_python_side_effect(
    timeout_s: float | None = None,
    prog_name: str | None = None,
    code: str | bytes | None = None,
) -> RunResult:
    """Run a Python program and report which files it created, modified and deleted.

    Choose this one when you cannot know beforehand which files there will be; choose
    `execute_code_python` when you can, because only promised files are checked.

    Args:
        timeout_s: Wall seconds, counted from the program's first instruction.
        prog_name: A name that is shown with the run, at most 64 characters.
        code: The program. It has no network. It writes to the folder OUTPUT_DIR, which is
            also its working directory.
    """
    async with _open_runtime() as runtime:
        return await runtime.execute(_code(code), timeout_s=timeout_s, prog_name=prog_name)


@takes(FolderOptions)
async def run_exec_tool(
    code: str | bytes,
    contract: object,
    timeout_s: float | None,
    workdir: str | Path,
    outdir: str | Path,
    exec_id: str | None = None,
    **options: Unpack[FolderOptions],
) -> RunResult:
    """Run *code* under *contract*, with folders of the caller's; for trusted code.

    The files of *workdir* (but main.py and user_code.py) are found by the program beside
    itself, and out/ starts as a copy of *outdir*. Afterwards *workdir* has main.py and
    user_code.py of this run, and *outdir* is the run's whole out/: files, logs, records,
    result.json. Both are made if they are missing, and no link in them is followed. The
    run's own folder stays too. *exec_id* is the caller's own, else a new one.

    *options*: those of a program (`prog_name`, `turn_id`, `argv`, `stdin`, `env`, `tools`, `user_id`, `limits`,
    `network`), as in `Runtime.execute`; `runtime` (else that of `using`, else one for this call), `on_output` (as
    in `Runtime.start`), `on_start` (awaited with the `Run` and its request once it has begun). Raises as
    `Runtime.execute` does; the two folders are then as they were, less the records of an earlier run's tool calls.
    Raises `SetupFailed` (outdir), which names the run's own folder, if the files cannot be put into the two: they may
    then hold a part of them.
    """
    if contract is None:
        raise InvalidRequest("there is no contract; use run_exec_tool_no_contract", code="missing_contract")
    return await _run_in_folders(code, contract, timeout_s, Path(workdir), Path(outdir), exec_id, **options)


@takes(FolderOptions)
async def run_exec_tool_no_contract(
    code: str | bytes,
    timeout_s: float | None,
    workdir: str | Path,
    outdir: str | Path,
    exec_id: str | None = None,
    **options: Unpack[FolderOptions],
) -> RunResult:
    """As `run_exec_tool`, without promises: the result lists how out/ differs from what *outdir* held."""
    return await _run_in_folders(code, None, timeout_s, Path(workdir), Path(outdir), exec_id, **options)


#: What `tool_id` names; a model sees the first, and the second if the operator wants it.
TOOLS: dict[str, Callable[..., Any]] = {
    "exec_tools.execute_code_python": execute_code_python,
    "exec_tools.execute_code_python_side_effect": execute_code_python_side_effect,
}


def advertised(settings: Settings) -> list[dict[str, Any]]:
    """The exec tools that a model is offered, each with `tool_id`, `name`, `description` and `parameters`.

    `name` is legal for the API of any model, `parameters` a JSON schema.
    `ISORUN_ADVERTISE_SIDE_EFFECT_TOOL` decides about the second. It can be called either way.
    """
    hidden = () if settings.advertise_side_effect_tool else ("exec_tools.execute_code_python_side_effect",)
    return [
        {
            "tool_id": tool_id,
            "name": legal_name(tool_id.partition(".")[2]),
            "description": inspect.getdoc(function) or "",
            "parameters": parameters(contract="contract" in inspect.signature(function).parameters),
        }
        for tool_id, function in TOOLS.items()
        if tool_id not in hidden
    ]


def _code(code: str | bytes | None) -> str | bytes:
    found = code if code is not None else _source.get()
    if found is None:
        raise InvalidRequest(
            "there is no code to run: pass `code`, or set it beforehand with `async with exec_tools.source(code):`",
            code="missing_code",
        )
    return found


@asynccontextmanager
async def _open_runtime(runtime: Runtime | None = None) -> AsyncIterator[Runtime | Session]:
    found = runtime or _runtime.get()
    if found is not None:
        yield found
        return
    async with Runtime(pool_size=0) as opened:
        yield opened


async def _run_in_folders(
    code: str | bytes,
    contract: object,
    timeout_s: float | None,
    workdir: Path,
    outdir: Path,
    exec_id: str | None,
    *,
    runtime: Runtime | None = None,
    on_output: OnOutput | None = None,
    on_start: OnStart | None = None,
    **options: Unpack[ProgramOptions],
) -> RunResult:
    inputs = inputs_of(ready(workdir))
    await in_thread(partial(drop_records, ready(outdir)))
    request = RunRequest.of(
        code, contract=contract, timeout_s=timeout_s, inputs=inputs, start_from=outdir, exec_id=exec_id, **options
    )
    async with _open_runtime(runtime) as chosen:
        run = await chosen.start(request, on_output=on_output)
        try:
            if on_start is not None:
                await on_start(run, request)
            result = await run.result()
        except BaseException:
            await run.cancel()  # a run that has ended keeps its end, and raises it again
            raise
        await _put(result, workdir, outdir)
    return result


async def _put(result: RunResult, workdir: Path, outdir: Path) -> None:
    try:
        await in_thread(partial(bring_back, result, workdir, outdir))
    except OSError as exc:
        raise SetupFailed("outdir", f"{exc}; the run's files are in {result.out_dir}") from exc
