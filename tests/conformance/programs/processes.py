"""subprocess with and without a shell, pipelines, groups, signals, timeouts, os.posix_spawn."""

import os
import signal
import subprocess
import sys
import textwrap

run = subprocess.run
print("list", run(["printf", "%s-%s", "a b", "ç"], capture_output=True, text=True, check=True).stdout)
shell = "for i in 3 1 2 1; do echo $i; done | sort -n | uniq -c | awk '{print $2 \"x\" $1}'"
print("shell", run(shell, shell=True, capture_output=True, text=True, check=True).stdout.split())
print("stdin", run(["tr", "a-z", "A-Z"], input=b"grep me\n", capture_output=True, check=True).stdout)
print("merged", subprocess.check_output("echo out; echo err >&2", shell=True, stderr=subprocess.STDOUT))
print(
    "environment",
    run(["sh", "-c", "echo $X"], env={"X": "1", "PATH": os.environ["PATH"]}, capture_output=True).stdout,
)
print("cwd", run(["pwd"], cwd="/usr", capture_output=True, text=True).stdout)
print("exit", run(["sh", "-c", "exit 7"]).returncode, run("kill -9 $$", shell=True).returncode)
print("os.system", os.waitstatus_to_exitcode(os.system("exit 3")), os.popen("echo popen").read())
try:
    run(["sleep", "30"], timeout=0.1)
except subprocess.TimeoutExpired as error:
    print("timeout", error.cmd)
try:
    run(["/no/such/program"])
except FileNotFoundError as error:
    print("missing", error.filename)

child = textwrap.dedent("""
    import signal, sys
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(42))
    print("ready", flush=True)
    signal.pause()
""")
with subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE) as process:
    assert process.stdout
    print("child", process.stdout.readline())
    process.terminate()
    print("handled", process.wait(10))
with subprocess.Popen("sleep 30 & sleep 30", shell=True, start_new_session=True) as process:
    print("own session", os.getsid(process.pid) == process.pid)
    os.killpg(process.pid, signal.SIGKILL)
    print("group killed", process.wait(10))

first = subprocess.Popen(["seq", "1000"], stdout=subprocess.PIPE)
second = subprocess.Popen(["awk", "{s+=$1} END {print s}"], stdin=first.stdout, stdout=subprocess.PIPE)
assert first.stdout
first.stdout.close()
print("pipeline", second.communicate()[0], first.wait())

read, write = os.pipe()
run([sys.executable, "-c", f"import os; os.write({write}, b'through a passed fd')"], pass_fds=[write])
print(os.read(read, 100))
pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 5"], os.environ)
print("posix_spawn", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

if (pid := os.fork()) == 0:
    if (orphan := os.fork()) == 0:
        os._exit(0)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(orphan, 0)[1]) + 9)
print("fork", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
big = run([sys.executable, "-c", "print('x' * 3_000_000)"], capture_output=True).stdout
print("big output", len(big))
code = "import json, sys; print(json.dumps([sys.argv[1:], sys.stdin.read(), sys.flags.utf8_mode]))"
print("python", run([sys.executable, "-c", code, "a", "ü"], input="in", capture_output=True, text=True).stdout)
