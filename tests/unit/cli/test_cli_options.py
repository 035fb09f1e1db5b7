"""What may be typed: every command's options, its help, and what is said of a slip."""

import inspect
import re
import subprocess
import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest

from isorun.cli.commands import COMMANDS, GROUPS, below, call, parser_of
from isorun.cli.exits import UsageError
from isorun.cli.run.command import Wanted, wanted_of

CONTRACT = '[{"filename": "a"}]'
LINES = [
    (["x.py"], Wanted(file="x.py")),
    (["-"], Wanted(file="-")),
    (["x.py", "--json", "--stdin", "--side-effects"], Wanted(file="x.py", json=True, stdin=True, side_effects=True)),
    (["--timeout", "1.5", "x.py"], Wanted(file="x.py", timeout_s=1.5)),
    (["--timeout=1e3", "x.py", "--turn-id=7"], Wanted(file="x.py", timeout_s=1000, turn_id="7")),
    (["x.py", "--contract", CONTRACT], Wanted(file="x.py", contract=CONTRACT)),
    (
        ["x.py", "--input", "a", "--out", "c", "--input=b"],
        Wanted(file="x.py", inputs=(Path("a"), Path("b")), out=Path("c")),
    ),
    (["x.py", "--preload", "json,csv", "--preload=math"], Wanted(file="x.py", preload=("json", "csv", "math"))),
    (
        ["x.py", "--backend", "namespace", "--python", "/p", "--env-file", "e"],
        Wanted(file="x.py", backend="namespace", python=Path("/p"), env_file=Path("e")),
    ),
    (
        ["x.py", "--bundle", "b", "--tools", "a.b, c.d,"],
        Wanted(file="x.py", bundle=Path("b"), tools=("a.b", "c.d")),
    ),
    (["-c", "print(1)"], Wanted(file="-c", code="print(1)")),
    (["-c", "x = 1", "a", "--json", "--", "-b"], Wanted(file="-c", code="x = 1", args=("a", "-b"), json=True)),
    (["--json", "-c", "--x", "--", "--json"], Wanted(file="-c", code="--x", args=("--json",), json=True)),
    (["-c", "a\nb = 'c d'\n"], Wanted(file="-c", code="a\nb = 'c d'\n")),
    (["x.py", "--tools="], Wanted(file="x.py", tools=())),
    (["x.py", "one", "--json", "two"], Wanted(file="x.py", args=("one", "two"), json=True)),
    (["x.py", "--", "--json", "-x", "--", "-"], Wanted(file="x.py", args=("--json", "-x", "--", "-"))),
    (["--json", "--", "x.py", "--out", "a"], Wanted(file="x.py", args=("--out", "a"), json=True)),
    (["--turn-id", "--json", "x.py"], Wanted(file="x.py", turn_id="--json")),
    (["--turn-id", "-h", "x.py"], Wanted(file="x.py", turn_id="-h")),
    (["x.py", "--contract=", "--turn-id", ""], Wanted(file="x.py", contract="", turn_id="")),
    (["x.py", "--timeout", "inf"], Wanted(file="x.py", timeout_s=float("inf"))),
    (["x.py", "--timeout", "1m30s"], Wanted(file="x.py", timeout_s=90)),
    (["x.py", "--memory=256M", "--cpus", "0.5"], Wanted(file="x.py", memory="256M", cpus="0.5")),
    (["x.py", "--limit", "a=1", "--limit=b=2"], Wanted(file="x.py", limits=("a=1", "b=2"))),
    (["x.py", "--no-keep"], Wanted(file="x.py", keep=False)),
    (
        ["x.py", "--start-from", "a", "--save-to=b", "--session=c"],
        Wanted(file="x.py", start_from=Path("a"), save_to=Path("b"), session="c"),
    ),
    (["x.py", "--exec-id", "job-7", "--user-id=Ana B"], Wanted(file="x.py", exec_id="job-7", user_id="Ana B")),
    (["x.py", "--loopback"], Wanted(file="x.py", network="loopback")),
    (["x.py", "--", "--loopback"], Wanted(file="x.py", args=("--loopback",))),
    (["x.py", "--timeout", "-1"], Wanted(file="x.py", timeout_s=-1)),
]
BEHIND = "; what the program is to get comes after --"
SLIPS = [
    ("run x.py --bogus", f"No such option: --bogus (did you mean --out?){BEHIND} (isorun run"),
    ("run x.py --inputs a", f"No such option: --inputs (did you mean --input?){BEHIND} (isorun run"),
    ("run x.py -x", f"No such option: -x{BEHIND} (isorun run"),
    ("run x.py --timeout", "--timeout needs a value (isorun run"),
    ("run x.py --timeout --", "--timeout needs a value (isorun run"),
    (
        "run x.py --timeout soon",
        "--timeout: 'soon' is not a number of seconds, nor a time such as 90s, 10m or 7d (isorun run",
    ),
    ("run x.py --json=1", "--json takes no value (isorun run"),
    ("run -c", "-c needs a value (isorun run"),
    ("run --json", "Missing argument FILE|- (isorun run"),
    ("runs show", "Missing argument EXEC_ID (isorun runs show"),
    ("runs rm --json", "Missing argument EXEC_ID (isorun runs rm"),
    ("runs lss", "No such command 'lss' (did you mean ls?) (isorun runs"),
    ("rum x.py", "No such command 'rum' (did you mean run?) (isorun"),
    ("-", "No such command '-' (isorun"),
    ("nothing-like-it", "No such command 'nothing-like-it' (isorun"),
    ("--verson", "No such option: --verson (did you mean --version?) (isorun"),
    ("runs --version", "No such option: --version (isorun runs"),
    ("runs ls --limit 0", "--limit: '0' is not a whole number above 0 (isorun runs ls"),
    ("runs ls --limit 1k", "--limit: '1k' is not a whole number above 0 (isorun runs ls"),
    (
        "cleanup --older-than week",
        "--older-than: 'week' is not a number of hours, nor a time such as 90s, 10m or 7d (isorun cleanup",
    ),
    ("doctor now", "unexpected argument: now (isorun doctor"),
    ("config trust a b", "unexpected argument: b (isorun config trust"),
    ("doctor --prod", "No such option: --prod (did you mean --production?) (isorun doctor"),
    ("scenario --all --repeat 0", "--repeat: '0' is not a number of rounds; give 1 or more (isorun scenario"),
]


@pytest.mark.parametrize(("line", "wanted"), LINES)
def test_a_line_of_run_means_this(line: list[str], wanted: Wanted) -> None:
    """Options stand anywhere, with their value behind = or a space; what follows `--` is the program's."""
    assert wanted_of(parser_of("run").read(line)) == wanted


@pytest.mark.parametrize(("line", "said"), SLIPS)
def test_a_slip_is_told_with_the_nearest_name_and_where_to_look(line: str, said: str) -> None:
    """Nothing is done; the text names what was given, and the help of that very command."""
    with pytest.raises(UsageError) as caught:
        call(line.split())
    assert str(caught.value) == f"{said} --help shows what there is)"


@pytest.mark.parametrize("name", [*COMMANDS, *GROUPS])
@pytest.mark.parametrize("columns", [40, 80, 200])
def test_help_is_plain_text_as_wide_as_the_terminal(name: str, columns: int, monkeypatch, capsys) -> None:
    """Usage, a line about the command, and its options or commands; -h is --help; no control character."""
    monkeypatch.setenv("COLUMNS", str(columns))
    assert call([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: isorun {name}".rstrip())
    about = GROUPS[name] if name in GROUPS else COMMANDS[name][1]
    assert about in " ".join(shown.split())
    assert "\x1b" not in shown
    assert max(len(line) for line in shown.splitlines()[1:]) <= columns
    assert call([*name.split(), "-h"]) == 0
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_alone_shows_its_help_and_is_a_mistake(group: str, capsys) -> None:
    """Every command below it is listed with its line; the exit code is 2."""
    assert call(group.split()) == 2
    shown = " ".join(capsys.readouterr().out.split())
    for lines in below(group).values():
        for name, line in lines.items():
            assert f"{name} {line}" in shown


def test_every_command_is_in_one_listing() -> None:
    """A command that is added to the table is shown by some --help, and can be called."""
    listed = [f"{group} {name}".lstrip() for group in GROUPS for lines in below(group).values() for name in lines]
    assert sorted(name for name in listed if name not in GROUPS) == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_a_parameter_of_its_function(name: str) -> None:
    """The table and the function agree; of `run`, whose options are the fields of `Wanted`."""
    module = import_module(f"isorun.cli.{COMMANDS[name][0]}")
    word = name.split()[-1].replace("-", "_")
    dests = {settings.get("dest") or name.removeprefix("--") for name, settings in module.OPTIONS[word]}
    parameters = [field.name for field in fields(Wanted)]
    if name != "run":
        parameters = list(inspect.signature(getattr(module, word)).parameters)
    assert sorted(dest.replace("-", "_") for dest in dests) == sorted(parameters)


def test_a_command_is_imported_only_once_it_is_wanted() -> None:
    """Neither help nor `run` waits for the modules of other commands."""
    code = (
        "import sys; from isorun.cli.commands import call, parser_of;"
        "call(['--help']); parser_of('run').read(['x.py']);"
        "print([name for name in sys.modules if name.startswith('isorun.cli.')], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.removeprefix("isorun.cli.") for name in re.findall(r"isorun[.a-z_]+", done.stderr)}
    assert loaded == {"commands", "exits", "parsing", "run", "run.command"}


def test_the_exit_codes_are_in_the_help_of_run() -> None:
    """Every fixed code of an ending, and of an error of ours, with its word."""
    from isorun.cli.exits import EXIT
    from isorun.core.outcome import Exit, Status, cli_exit_code

    shown = " ".join(parser_of("run").format_help().split())
    own = (Status.OK, Status.FAILED, Status.KILLED, Status.LOST)
    for status in set(Status) - set(own):
        assert re.search(rf"\b{cli_exit_code(status, Exit(code=0, signal=None))} {status}\b", shown)
    for code in EXIT.values():
        assert re.search(rf"\b{code} ", shown)


@pytest.mark.parametrize("line", ["config trust", "scenario"])
def test_a_word_that_is_left_out_is_not_given(line: str) -> None:
    """The command's own default holds, whatever type the word would have."""
    assert parser_of(line).read([]) == {}
