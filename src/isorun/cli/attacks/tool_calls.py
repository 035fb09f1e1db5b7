"""What a program can do with its tool stream, and with tools that mean well."""

from isorun.cli.attacks.attack import Attack

KIND = "Tool calls"
ALIAS = "attacked"
#: The bundle's only module. The naive tools are what the careful ones are compared with.
MODULE = '''
import isorun

def helper() -> str:
    """No tool."""
    return "reached"

@isorun.tool
def never_granted() -> str:
    """For somebody else."""
    return "reached"

@isorun.tool
def add(a: int) -> int:
    """Add one."""
    return a + 1

@isorun.tool
def fails() -> None:
    """Fail, with a secret in the text."""
    raise ValueError("SECRET")

@isorun.tool
def fails_openly() -> None:
    """Say it on purpose: a control."""
    raise isorun.ToolError("SECRET")

@isorun.tool
def write(path: str, ctx: isorun.ToolContext) -> None:
    """Write beneath the run's out/."""
    with ctx.open_output(path, "w") as file:
        file.write("x")
'''
GRANTED = tuple(f"{ALIAS}.{name}" for name in ("add", "fails", "fails_openly", "write"))
_CALL = """
from agent_io_tools import tool_call_sync
def ask(tool_id, **params):
    try:
        return tool_call_sync(tool_id=tool_id, params=params)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
"""


def _asks(name: str, attack: str, honest: str) -> Attack:
    return Attack(KIND, name, _CALL + attack, honest=_CALL + honest, tools=GRANTED)


_REACHED = "won = ask('attacked.add', a=1) == 2"
_WRITES = "won = ask('attacked.write', path='{path}') is None"

ATTACKS = (
    _asks("call a tool that was not granted", "won = ask('attacked.never_granted') == 'reached'", _REACHED),
    _asks("call a function that is not a tool", "won = ask('attacked.helper') == 'reached'", _REACHED),
    _asks(
        "call by a dunder, or a module behind the module",
        "won = any(isinstance(ask(i), (int, dict, list)) or ask(i) == 'reached' for i in "
        "('attacked.__dict__', 'attacked.isorun.tool', 'attacked.helper.__call__', 'os.getpid', '.add', 'attacked.'))",
        _REACHED,
    ),
    _asks("give an argument of another type", "won = ask('attacked.add', a='1') == 2", _REACHED),
    _asks(
        "have a tool write outside of the run", _WRITES.replace("{path}", "../../evil"), _WRITES.replace("{path}", "a")
    ),
    _asks(
        "the same through a planted link",
        "os.symlink('/tmp', 'link')\n" + _WRITES.replace("{path}", "link/evil"),
        "os.mkdir('link')\n" + _WRITES.replace("{path}", "link/fine"),
    ),
    _asks(
        "read a secret in a tool's error",
        "won = 'SECRET' in str(ask('attacked.fails'))",
        "won = 'SECRET' in str(ask('attacked.fails_openly'))",
    ),
    _asks(
        "call from a child, which does not hold the stream",
        """
child = os.fork()
if child == 0:
    os._exit(0 if ask("attacked.add", a=1) == 2 else 1)
won = os.waitpid(child, 0)[1] == 0
""",
        _REACHED,
    ),
    _asks(
        "send a frame above its ceiling",
        "os.write(3, struct.pack('>I', 0xffffffff) + b'x' * 100)\ntime.sleep(0.5)\n" + _REACHED,
        _REACHED,
    ),
)
