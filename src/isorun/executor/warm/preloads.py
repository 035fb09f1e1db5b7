"""What is imported and used once before there is a program, in the zygote.

None of it may depend on a program or leave anything that a program finds.
"""

import importlib
import time


def preload(names: list[str]) -> tuple[dict[str, float], dict[str, str]]:
    """Import *names*: seconds that each took, and the reason of each that failed."""
    loaded, failed = {}, {}
    for name in names:
        started = time.monotonic()
        try:
            importlib.import_module(name)
            _WARMERS.get(name, lambda: None)()
        except Exception as error:  # noqa: BLE001 - a preload is only a convenience: the program will see the error itself
            failed[name] = f"{type(error).__name__}: {error}"[:500]
        else:
            loaded[name] = time.monotonic() - started
    return loaded, failed


def warm() -> None:
    """What costs a millisecond the first time after a fork is done once, before."""
    exec(compile("async def f(): await g()\n", "warm", "exec", flags=0), {})  # noqa: S102 - the text is our own
    importlib.import_module("asyncio")
    importlib.import_module("logging")
    importlib.import_module("faulthandler")
    importlib.import_module("traceback")
    importlib.import_module("fcntl")


def _warm_pandas() -> None:
    import io

    import pandas  # type: ignore[import-not-found,import-untyped,unused-ignore]  # pandas may be missing

    pandas.read_csv(io.StringIO(pandas.DataFrame({"a": [1.5], "b": ["x"]}).to_csv()))


def _warm_pyplot() -> None:
    import io

    from matplotlib import pyplot  # type: ignore[import-not-found,import-untyped,unused-ignore]  # matplotlib may be missing

    figure, axes = pyplot.subplots()
    axes.plot([1, 2])
    figure.savefig(io.BytesIO(), format="png")
    pyplot.close(figure)


_WARMERS = {"pandas": _warm_pandas, "matplotlib.pyplot": _warm_pyplot}
