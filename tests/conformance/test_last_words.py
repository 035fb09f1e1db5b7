"""A program that catches an error, prints it and ends well is told what a wall has to do with it."""

import pytest

TOLD = "the program printed an error, ended well and wrote no file: "
CAUGHT = {
    "a missing input": ("print(open('data.csv').read())", "no such file was given to this run"),
    "no network": (
        "import urllib.request; urllib.request.urlopen('https://example.com')",
        "the program has no network",
    ),
    "a module": ("import no_such_module", "the module no_such_module is missing"),
    "a folder of another machine": ("open('/data/out.csv', 'w')", "that path is not in the sandbox"),
    "an encoding": ("b'J\\xfcrgen'.decode('utf-8')", "the file is not UTF-8"),
}
TRY = """
    try:
        {}
    except Exception as error:
        {}
"""


@pytest.mark.parametrize("how", ["print('Error:', error)", "logging.exception('it failed')"])
@pytest.mark.parametrize(("step", "hint"), CAUGHT.values(), ids=CAUGHT)
def test_an_error_that_was_only_printed_is_told(run, sealed: str, step: str, hint: str, how: str) -> None:
    """In the notices and in the report; the status stays what the exit says."""
    result = run(TRY.format(step, how), timeout_s=30)
    assert result.status == "ok"
    assert [notice for notice in result.notices if notice.startswith(TOLD + hint)], result.report_text
    assert TOLD in result.report_text


@pytest.mark.table
@pytest.mark.parametrize("then", ["open('rows.csv', 'w').write('a')", "print('rows:', 12)"])
@pytest.mark.parametrize(("step", "_"), CAUGHT.values(), ids=CAUGHT)
def test_a_program_that_goes_on_to_a_result_is_left_alone(run, sealed: str, step: str, _: str, then: str) -> None:
    """A file, or a line with a figure: the error was one that it expected."""
    result = run(TRY.format(step, "print('warning:', error)") + f"    {then}\n", timeout_s=30)
    assert (result.status, result.notices) == ("ok", ()), result.report_text
