"""What the other tests stand on: the stub says what it is told, and what a machine lacks cannot pass unseen."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"


def ask(program: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([str(program), *arguments], capture_output=True, text=True)


def test_the_longest_key_that_fits_answers(stub_docker) -> None:
    """Code, stdout and stderr are those of the most exact key; what has no key is an error that names it."""
    stub = stub_docker({"image": {"code": 3}, "image inspect": {"stdout": "[]", "stderr": "none such", "code": 1}})
    assert os.environ["SANDBOX_RUNNER_DOCKER"] == str(stub.path)
    found = ask(stub.path, "image", "inspect", "a b")
    assert (found.returncode, found.stdout, found.stderr) == (1, "[]", "none such")
    assert ask(stub.path, "image", "rm").returncode == 3
    found = ask(stub.path, "run", "it")
    assert (found.returncode, found.stderr) == (1, "stub docker: it was not told what to say to run it\n")


def test_answers_follow_each_other(stub_docker) -> None:
    """The last one stands for every later call; all calls are kept, with the names of the environment alone."""
    stub = stub_docker({"rm": [{"code": 1}, {"code": 0}]})
    environ = os.environ | {"A_SECRET": "the-value-of-it"}
    codes = [subprocess.run([stub.path, "rm", str(n)], env=environ, check=False).returncode for n in range(3)]
    assert codes == [1, 0, 0]
    assert [call.argv for call in stub.calls] == [["rm", "0"], ["rm", "1"], ["rm", "2"]]
    assert "A_SECRET" in stub.calls[0].env
    assert "the-value-of-it" not in stub.log.read_text(encoding="utf-8")


def test_an_answer_that_sleeps_has_spoken_before(stub_docker) -> None:
    """It hangs with its output out, as an engine that hangs in the middle does."""
    stub = stub_docker({"build": {"stdout": "step 1\n", "sleep": 3600}})
    with subprocess.Popen([stub.path, "build"], stdout=subprocess.PIPE) as hanging:
        assert hanging.stdout is not None
        assert hanging.stdout.readline() == b"step 1\n"
        assert hanging.poll() is None
        hanging.kill()


def test_the_real_cli_does_what_has_no_key(stub_docker) -> None:
    """With *real*, one subcommand fails and the others are done; each call is kept all the same."""
    stub = stub_docker({"two": {"code": 9}}, real="/bin/echo")
    assert ask(stub.path, "one", "more").stdout == "one more\n"
    assert ask(stub.path, "two").returncode == 9
    assert len(stub.calls) == 2


def test_the_last_worker_of_all_looks_for_what_is_left(request, tmp_path, monkeypatch) -> None:
    """What one worker is in the middle of is no leftover of another's; what is left when all have ended is the last's.

    A session that begins after them looks anew.
    """
    plugins = request.config.pluginmanager.get_plugins()
    (plugin,) = (plugin for plugin in plugins if hasattr(plugin, "left_by_all_users"))
    monkeypatch.setattr(plugin, "SETTLE_S", 0.0)
    sharing = plugin.left_by_all_users
    engine = {"theirs"}
    with sharing(tmp_path, engine.copy) as last:
        with sharing(tmp_path, engine.copy) as first:
            engine |= {"in use", "left"}
        assert first == set()
        engine.remove("in use")
    assert last == {"left"}
    with sharing(tmp_path, engine.copy) as later:
        engine.add("more")
    assert later == {"more"}
    # What another session is just removing is waited for.
    monkeypatch.setattr(plugin, "SETTLE_S", 20.0)
    looks = iter([set(), {"theirs"}, {"theirs"}, set()])
    with sharing(tmp_path, looks.__next__) as last:
        pass
    assert (last, next(looks, None)) == (set(), None)


FIXTURES = ("docker_cli", "base_image", "gvisor")


@pytest.mark.parametrize(
    ("required", "outcome", "said"),
    [
        ("", "3 skipped", ": docker: there is no Docker CLI\n"),
        ("docker, gvisor", "3 errors", "\ndocker: there is no Docker CLI, and ISORUN_REQUIRE names it\n"),
    ],
    ids=["not required", "required"],
)
def test_what_is_required_may_not_be_lacking(required, outcome, said, tmp_path) -> None:
    """Without a Docker CLI each fixture skips and says why; where ISORUN_REQUIRE names it, that is an error."""
    (tmp_path / "conftest.py").write_bytes(CONFTEST.read_bytes())
    tests = "\n".join(f"def test_{fixture}({fixture}):\n    pass\n" for fixture in FIXTURES)
    (tmp_path / "test_one.py").write_text(tests, encoding="utf-8")
    environ = os.environ | {"ISORUN_REQUIRE": required, "SANDBOX_RUNNER_DOCKER": str(tmp_path / "none")}
    options = ["-p", "no:cacheprovider", "-rs", "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_one.py"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert f" {outcome} in " in done.stdout.splitlines()[-1], done.stdout
    assert done.stdout.count(said) == 3, done.stdout
