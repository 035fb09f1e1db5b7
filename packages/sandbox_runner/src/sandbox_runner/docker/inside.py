"""What runs inside a container around each command, and how its end is told from the engine's.

Theory of operation. `docker exec` neither ends what a command leaves behind, nor says
whether an error was the engine's or the command's. So every command runs below a shell
of ours: it marks on stderr, with a token that is secret until then, that the command
begins and how it ended, and then ends each process that the command left. What it left is found by its
parent: an orphan becomes the child of the nearest reaper, which is an init of this
command's own where the kernel has subreapers, else the container's. Only the shell's own
builtins are used, so that an image needs nothing but /bin/sh.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from math import ceil

from sandbox_runner.linux import walls

INIT = "/sbin/docker-init"
_LINE_BYTES = 64  # of a mark, behind its first words
_SAID_BYTES = 4096  # of what the engine says, that is kept
_LONGEST = 2**31 - 1  # seconds that every `sleep` takes
_SPARE_S = 60.0  # for a start, and for `cleanup` to come first, which has more to say

# Ends every process that comes from one of $parents, and every one that was begun with the token $begun, except those
# in $spared. Stops them all first: who is stopped makes no others and keeps its place below the ceiling of processes,
# so a bomb cannot make new ones faster than they end. Orphans become the reaper's, so again until there is none. A name
# may hold line breaks, so a whole `stat` is read. A zombie with threads lives: only its first thread has ended. That
# something may not be killed (a setuid program's) is the exit code.
_SWEEP = """\
sweep() {
    rounds=0 stuck=0
    while [ $rounds -lt 200 ]; do
        rounds=$((rounds + 1)); stops=0; family=
        while [ $stops -lt 50 ] && reach STOP; do stops=$((stops + 1)); done
        reach KILL || return $stuck
    done
    return 1
}
reach() {
    signal=$1; found=1
    for stat in /proc/[0-9]*/stat; do
        line=
        { while IFS= read -r part; do line="$line$part "; done < "$stat"; } 2>/dev/null
        pid=${line%% *}
        [ -n "$pid" ] || continue
        set -- ${line##*) }
        [ "$1" = Z ] && [ "${18}" -le 1 ] && continue
        case " $spared " in *" $pid "*) continue ;; esac
        case " $family " in *" $pid "*) ;; *)
            case " $parents $family " in *" $2 "*) ;; *) is_begun "${stat%/*}" || continue ;; esac
            family="$family $pid" ;;
        esac
        case $signal$1 in STOP[TtZ]) continue ;; esac
        if kill -$signal "$pid" 2>/dev/null; then found=0; elif [ -e "/proc/$pid" ]; then stuck=1; fi
    done
    return $found
}
is_begun() {
    [ -n "$begun" ] && { IFS= read -r line < "$1/cmdline"; } 2>/dev/null || return 1
    case $line in *"$begun"*) return 0 ;; esac
    return 1
}
"""
_OOM_KILLS = """\
oom_kills() {
    for _sr_file in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; do
        [ -r "$_sr_file" ] || continue
        while read -r _sr_name _sr_count; do [ "$_sr_name" = oom_kill ] && _sr_kills=$_sr_count; done < "$_sr_file"
        return 0
    done
}
"""
# Until the command begins, a variable that is set here would be the command's, if it has one of that name: hence _sr_.
COMMAND = (
    _SWEEP
    + _OOM_KILLS
    + """\
_sr_token=$1 _sr_keeper=$2 _sr_place=$3 _sr_reaper=$PPID _sr_kills=0
shift 3
[ "$_sr_reaper" = 0 ] && _sr_reaper=1
[ -e "/tmp/.$_sr_token" ] && exit 1
cd -- "$_sr_place" 2>/dev/null || { printf '%s place\\n' "$_sr_token" >&2; exit 1; }
oom_kills
_sr_before=$_sr_kills
printf '%s begin %s %s\\n' "$_sr_token" $$ "$_sr_reaper" >&2
trap : INT QUIT  # a terminal sends them to this shell as well, which must live to tell how the command ended
exec 3>&2 2>/dev/null  # what this shell itself would say of the command's end is not the command's
(exec "$@") 2>&3 3>&-  # with exec no builtin of this shell is meant
_sr_code=$?
# This shell's own children, too: a command can make one beside itself (CLONE_PARENT).
spared="1 $$ $_sr_keeper" parents="$_sr_reaper $$" begun= left=0
sweep || left=1
oom_kills
printf '%s end %s %s %s\\n' "$_sr_token" "$_sr_code" "$((_sr_kills - _sr_before))" "$left" >&3
"""
)
#: Ends a command from outside. First what it started, as long as its shell and its reaper hold it together; then these
#: two, found by their token, because they may be stopped. Arguments: token, keeper, shell, reaper.
END = (
    _SWEEP
    + """
token=$1 keeper=$2
spared="1 $$ $2 $3 $4" parents="$3 $4 1" begun=
sweep || exit 1
spared="1 $$ $keeper" parents=1 begun=$token
sweep
"""
)
#: Ends a command that did not say that it began, whether it still will or has. Arguments: its token, keeper. A
#: file tells it to stop if it looks for that later; and if it has looked before, it is found by its token now.
END_UNBEGUN = _SWEEP + """\n: > "/tmp/.$1" || exit 1\nspared="1 $$ $2" parents=1 begun=$1\nsweep\n"""
#: Says who the container's waiting process is, and which walls its kernel shows.
PROBE = (
    """\
for stat in /proc/[0-9]*/stat; do
    { IFS= read -r line < "$stat"; } 2>/dev/null || continue
    pid=${line%% *}
    set -- ${line##*) }
    [ "$2" = 1 ] && [ "$pid" != $$ ] && [ "$pid" != $PPID ] && echo "keeper $pid"
done
"""
    + walls.SHOW
    + "echo ready\n"
)


def keep_alive(ttl_s: float) -> str:
    """The container's own command: it waits for *ttl_s* and a minute. Then the container ends, and all that is in it.

    So a command whose owner was killed does not go on for ever without `cleanup`.
    """
    return f"exec sleep {min(ceil(ttl_s + _SPARE_S), _LONGEST)}"


def new_token() -> str:
    """What a command cannot know before it begins."""
    return f"sandbox-{secrets.token_hex(16)}"


def command(token: str, keeper: int, place: str, argv: list[str], *, own_init: bool) -> list[str]:
    """What to give `docker exec` so that *argv* runs in the folder *place*, marked by *token*."""
    reaping = [INIT, "-s", "--"] if own_init else []
    # The token on the script's first line is what `END_UNBEGUN` finds.
    return [*reaping, "/bin/sh", "-c", f": {token}\n{COMMAND}", "sandbox", token, str(keeper), place, *argv]


def end(marks: Marks, keeper: int) -> list[str]:
    """What to give `docker exec` so that the command that *marks* tells of ends, with all that it started."""
    if marks.began is None:
        return ["/bin/sh", "-c", END_UNBEGUN, "sandbox", marks.token.decode(), str(keeper)]
    return ["/bin/sh", "-c", END, "sandbox", marks.token.decode(), str(keeper), *map(str, marks.began)]


@dataclass(slots=True)
class Marks:
    """A `Filter` that takes our marks out of a command's stderr, and keeps what they say.

    What comes before the first mark, or behind the last, is the engine's: `engine_said`.
    """

    token: bytes
    began: tuple[int, int] | None = None  # our shell, its reaper
    ended: tuple[int, int] | None = None  # the exit code, the kernel's kills for want of memory
    has_left: bool = False  # something that it started could not be ended
    has_no_place: bool = False
    engine_said: bytes = b""
    _held: bytes = b""

    def feed(self, data: bytes) -> bytes:
        """See `execution.Filter`."""
        self._held += data
        if self.began is None and not self._take_begin():
            return b""
        return self._take_end()

    def end(self) -> bytes:
        """See `execution.Filter`."""
        held, self._held = self._held, b""
        if self.began is None or self.ended is not None:
            self._hear(held)
            return b""
        return held

    def _hear(self, data: bytes) -> None:
        # A command that has read our token can print a mark and then without end.
        self.engine_said += data[: _SAID_BYTES - len(self.engine_said)]

    def _take_begin(self) -> bool:
        # A terminal ends its lines with two characters.
        self.has_no_place = any(self.token + b" place" + end in self._held for end in (b"\n", b"\r\n"))
        # The token alone is no mark: an engine that fails may show the command line.
        said, _, rest = self._held.partition(self.token + b" begin ")
        line, newline, rest = rest.partition(b"\n")
        numbers = line.split()
        if not newline or len(numbers) != 2 or not all(map(_is_number, numbers)):
            # An image's /bin/sh may print without end, and never begin.
            unread = len(self.token) + _LINE_BYTES
            self._hear(self._held[:-unread])
            self._held = self._held[-unread:]
            return False
        self._hear(said)
        self._held = rest
        self.began = int(numbers[0]), int(numbers[1])
        return True

    def _take_end(self) -> bytes:
        """What is the command's of what is held: all before the first mark. The last mark counts.

        An earlier one was forged, by the command or by another of the same sandbox.
        """
        mark, out = self.token + b" end ", b""
        while True:
            before, found, rest = self._held.partition(mark)
            kept = len(before) - (0 if found else _overlap(before, mark))
            out += self._own(before[:kept])
            if not found:
                self._held = before[kept:]
                return out
            line, newline, after = rest.partition(b"\n")
            if not newline and len(line) <= _LINE_BYTES:
                self._held = found + line
                return out
            numbers = line.split()
            if newline and len(numbers) == 3 and all(map(_is_number, numbers)):
                self.ended = min(int(numbers[0]), 255), int(numbers[1])
                self.has_left = numbers[2] != b"0"
                self._held = after
            else:
                out += self._own(found)
                self._held = rest

    def _own(self, data: bytes) -> bytes:
        """*data* if it is the command's; what comes behind a mark is the engine's."""
        if self.ended is None:
            return data
        self._hear(data)
        return b""


def _is_number(text: bytes) -> bool:
    # A command can read our token and forge a mark: it may lie, but must not make `int` raise.
    return text.isdigit() and len(text) < 19


def _overlap(data: bytes, mark: bytes) -> int:
    """How many of *data*'s last bytes may be the beginning of *mark*."""
    for size in range(min(len(data), len(mark) - 1), 0, -1):
        if data.endswith(mark[:size]):
            return size
    return 0
