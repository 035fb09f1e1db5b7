"""What runs inside a container around each command, and how its end is told from the engine's.

Theory of operation. `docker exec` neither ends what a command leaves behind, nor says
whether an error was the engine's or the command's. So every command runs below a shell
of ours: it marks on stderr, with a token nobody else knows beforehand, that the command
begins and how it ended, and then ends whatever the command left. What it left is found by its
parent: an orphan becomes the child of the nearest reaper, which is an init of this
command's own where the kernel has subreapers, else the container's. Only the shell's own
builtins are used, so that an image needs nothing but /bin/sh.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

INIT = "/sbin/docker-init"
_LINE_BYTES = 64  # of a mark, behind its first words
_SAID_BYTES = 4096  # of what the engine says, that is kept
#: The container's own command: it waits, for about as long as a machine lives.
KEEP_ALIVE = "exec sleep 2147483647"

# Ends every process whose parent is one of $parents, and every one that was begun with the token $begun, except those
# in $spared; again and again, because their children become the reaper's. A name may hold line breaks, so a whole
# `stat` is read. A zombie with threads is a process whose first thread has ended: it lives.
_SWEEP = """\
sweep() {
    rounds=0
    while [ $rounds -lt 2000 ]; do
        rounds=$((rounds + 1)); found=no
        for stat in /proc/[0-9]*/stat; do
            line=
            { while IFS= read -r part; do line="$line$part "; done < "$stat"; } 2>/dev/null
            pid=${line%% *}
            set -- ${line##*) }
            [ "$1" = Z ] && [ "${18}" -le 1 ] && continue
            case " $spared " in *" $pid "*) continue ;; esac
            case " $parents " in *" $2 "*) ;; *) is_begun "${stat%/*}" || continue ;; esac
            kill -9 "$pid" 2>/dev/null && found=yes
        done
        [ $found = no ] && return 0
    done
    return 1
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
exec 3>&2 2>/dev/null  # what this shell itself would say of the command's end is not the command's
(exec "$@") 2>&3 3>&-  # with exec no builtin of this shell is meant
_sr_code=$?
spared="1 $$ $_sr_keeper" parents=$_sr_reaper begun= left=0
sweep || left=1
oom_kills
printf '%s end %s %s %s\\n' "$_sr_token" "$_sr_code" "$((_sr_kills - _sr_before))" "$left" >&3
"""
)
#: Ends a command from outside: everything but its shell, which then ends by itself. Arguments: shell, reaper, keeper.
END = _SWEEP + """\nspared="1 $$ $1 $2 $3" parents="$1 $2 1" begun=\nsweep\n"""
#: Ends a command that did not say that it began, whether it still will or has. Arguments: its token, keeper. A
#: file tells it to stop if it looks for that later; and if it has looked before, it is found by its token now.
END_UNBEGUN = _SWEEP + """\n: > "/tmp/.$1" || exit 1\nspared="1 $$ $2" parents=1 begun=$1\nsweep\n"""
#: Says who the container's waiting process is, and which walls its kernel shows.
PROBE = """\
for stat in /proc/[0-9]*/stat; do
    { IFS= read -r line < "$stat"; } 2>/dev/null || continue
    pid=${line%% *}
    set -- ${line##*) }
    [ "$2" = 1 ] && [ "$pid" != $$ ] && [ "$pid" != $PPID ] && echo "keeper $pid"
done
while read -r name value; do
    case $name in CapEff:|NoNewPrivs:|Seccomp:) echo "$name $value" ;; esac
done < /proc/self/status
echo ready
"""


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
    return ["/bin/sh", "-c", END, "sandbox", *map(str, marks.began), str(keeper)]


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
        if self.ended is not None:
            self._hear(data)
            return b""
        self._held += data
        if self.began is None and not self._take_begin():
            return b""
        return self._take_end()

    def end(self) -> bytes:
        """See `execution.Filter`."""
        held, self._held = self._held, b""
        if self.began is None:
            self._hear(held)
            return b""
        return held

    def _hear(self, data: bytes) -> None:
        # A command that has read our token can print a mark and then without end.
        self.engine_said += data[: _SAID_BYTES - len(self.engine_said)]

    def _take_begin(self) -> bool:
        said, mark, rest = self._held.partition(self.token)
        line, newline, rest = rest.partition(b"\n")
        if not mark or not newline:
            return False
        self._hear(said)
        self._held = rest
        word, *numbers = line.split()
        self.has_no_place = word == b"place"
        if len(numbers) == 2 and all(map(_is_number, numbers)):
            self.began = int(numbers[0]), int(numbers[1])
        return self.began is not None

    def _take_end(self) -> bytes:
        """What is the command's of what is held, without our mark."""
        mark, out = self.token + b" end ", b""
        while True:
            before, found, rest = self._held.partition(mark)
            if not found:
                kept = len(before) - _overlap(before, mark)
                self._held = before[kept:]
                return out + before[:kept]
            line, newline, after = rest.partition(b"\n")
            if not newline and len(line) <= _LINE_BYTES:
                self._held = found + line
                return out + before
            numbers = line.split()
            if newline and len(numbers) == 3 and all(map(_is_number, numbers)):
                self.ended = min(int(numbers[0]), 255), int(numbers[1])
                self.has_left = numbers[2] != b"0"
                self._held = b""
                self._hear(after)
                return out + before
            out, self._held = out + before + found, rest  # forged, so it is the command's


def _is_number(text: bytes) -> bool:
    # A command can read our token and forge a mark: it lies about itself alone, but must not make `int` raise.
    return text.isdigit() and len(text) < 19


def _overlap(data: bytes, mark: bytes) -> int:
    """How many of *data*'s last bytes may be the beginning of *mark*."""
    for size in range(min(len(data), len(mark) - 1), 0, -1):
        if data.endswith(mark[:size]):
            return size
    return 0
