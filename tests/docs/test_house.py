"""`tools/house.py`: each rule is broken once, and kept once."""

import subprocess
from pathlib import Path

import pytest

from tools import house

pytestmark = pytest.mark.any_user


def _function(lines: int, docstring: str = "") -> str:
    return "\n".join(["def work():", f'    """{docstring}"""', *["    pass"] * (lines - 2)]) + "\n"


def test_a_function_over_the_bound_needs_a_reason() -> None:
    """One line more than the bound is refused with its place; a reason in the docstring lets it pass."""
    assert house.too_long("a.py", _function(40)) == []
    (fault,) = house.too_long("a.py", "\n" + _function(41))
    assert fault.startswith("a.py:2: work has 41 lines, more than 40: ")
    assert house.too_long("a.py", _function(41, "Works. It is long\n    because it must be.")) == []


def test_a_module_over_the_bound_needs_a_reason() -> None:
    """One line more than the bound is refused; a reason in the docstring lets it pass."""
    assert house.too_long("a.py", "x = 1\n" * 400) == []
    (fault,) = house.too_long("a.py", "x = 1\n" * 401)
    assert fault.startswith("a.py: 401 lines, more than 400: ")
    assert house.too_long("a.py", '"""Long because of its table."""\n' + "x = 1\n" * 400) == []


@pytest.mark.parametrize(
    "line",
    [
        "x = 1  # noqa",
        "x = 1  # noqa: E731",
        "x = 1  # noqa: E731, S101 -",
        "x = 1  # type: ignore",
        "x = 1  # type: ignore[arg-type]",
        "x = 1  # type: ignore[arg-type]  # noqa: S101",
    ],
)
def test_an_ignore_without_a_reason_is_refused(line: str) -> None:
    """The codes of the checkers are no reason."""
    comment = line.removeprefix("x = 1  ")
    assert house.bare_ignores("a.py", f"\n{line}\n") == [
        f"a.py:2: '{comment}' has no reason: write it behind, after ' - '"
    ]


@pytest.mark.parametrize(
    "line",
    [
        "x = 1  # noqa: E731 - a reason",
        "x = 1  # type: ignore[arg-type]  # a reason",
        "x = 1  # type: ignore[arg-type]  # noqa: S101 - a reason",
        "x = '# noqa'",
        "x = 1  # a comment",
    ],
)
def test_an_ignore_with_a_reason_passes(line: str) -> None:
    """So does a text that only looks like one."""
    assert house.bare_ignores("a.py", f"{line}\n") == []


@pytest.mark.parametrize(
    ("subject", "body", "fault"),
    [
        ("docker: keep watching a replaced folder", "Because.", None),
        ("doctor, docs: name the setting", "Because.", None),
        ("cgroup: find, make and end groups", "Because.", None),
        ("a: " + "b" * 67 + " c", "Because.", None),
        ("a: " + "b" * 68 + " c", "Because.", "the subject has 73 characters, more than 72"),
        ("Keep watching", "Because.", "the subject is not 'area: verb what': 'Keep watching'"),
        ("docker: keep", "Because.", "the subject is not 'area: verb what': 'docker: keep'"),
        ("docker: a folder is kept", "Because.", "the subject is not 'area: verb what': 'docker: a folder is kept'"),
        ("docker: the folder stays", "Because.", "the subject is not 'area: verb what': 'docker: the folder stays'"),
        ("docker: keep watching", " \n", "the message has no body; say why"),
    ],
)
def test_a_commit_message_keeps_the_form(subject: str, body: str, fault: str | None) -> None:
    """Area, verb, object in 72 characters, and a body."""
    assert house.commit_faults("abc", subject, body) == ([] if fault is None else [f"commit abc: {fault}"])


def test_a_folder_holds_fourteen_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifteen need a reason in the list."""
    assert house.crowded("src/a", 14) == []
    assert house.crowded("src/a", 15) == ["src/a: 15 modules, more than 14: make a folder for one subject of them"]
    monkeypatch.setitem(house.CROWDED, "src/a", "a reason")
    assert house.crowded("src/a", 15) == []


def test_hard_phrases_are_found_in_strings_and_pages() -> None:
    """In a module only its strings count, and not its names or comments; on a page every line."""
    module = (
        'nobody = 1  # whatever\ndef work():\n    """It is\n    none."""\n    raise ValueError(f"{x} is no name")\n'
    )
    assert house.hard_phrases("a.py", module) == ["a.py:3: is none", "a.py:5: is no"]
    assert house.hard_phrases("a.md", "Whoever asks\none that is notable") == ["a.md: Whoever", "a.md: one that"]


def test_a_count_may_only_fall(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One more is refused; one fewer asks for a lower number."""
    monkeypatch.setitem(house.MAY_ONLY_FALL, "hard phrases", 2)
    assert house.over("hard phrases", ["a", "b"]) == []
    assert capsys.readouterr().err == ""
    (fault,) = house.over("hard phrases", ["a", "b", "c"])
    assert fault.startswith("hard phrases: 3, more than 2; ")
    assert house.over("hard phrases", ["a"]) == []
    assert "2 allowed, 1 found: lower the number" in capsys.readouterr().err


def test_a_row_code_in_the_name_of_a_test_is_counted() -> None:
    """With one letter and one number, sync or async, in a class or not."""
    text = "def test_a4_calls(): ...\n    async def test_b10_ends(): ...\ndef test_a_program(): ...\ndef a4(): ...\n"
    assert [found[0].split("test_")[1] for found in house.ROW_CODE.finditer(text)] == ["a4_", "b10_"]


def _git(root: Path, *arguments: str) -> str:
    argv = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def _commit(root: Path, subject: str, body: str = "Because.") -> str:
    _git(root, "commit", "--quiet", "--allow-empty", "-m", subject, "-m", body)
    return _git(root, "rev-parse", "HEAD")


def test_the_commits_after_the_rules_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clone without that commit is not judged; merges are left out."""
    _git(tmp_path, "init", "--quiet")
    began = _commit(tmp_path, "Old")
    _commit(tmp_path, "new: say why", "One.\n\nTwo.")
    monkeypatch.setattr(house, "RULES_BEGIN", began)
    (found,) = house.commits(tmp_path) or []
    assert found[1:] == ("new: say why", "One.\n\nTwo.")
    monkeypatch.setattr(house, "RULES_BEGIN", "0" * 40)
    assert house.commits(tmp_path) is None


def test_without_a_checkout_no_commit_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A source archive, also one that was unpacked inside another checkout, says so and passes."""
    assert house.commits(tmp_path) is None
    _git(tmp_path, "init", "--quiet")
    (tmp_path / "archive").mkdir()
    assert house.commits(tmp_path / "archive") is None
    monkeypatch.setattr(house, "commits", lambda: None)
    assert house.history() == []
    assert "no whole git checkout here" in capsys.readouterr().err


def test_a_shared_commit_can_be_excepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the beginning of its hash; the others are still judged."""
    told = [("a" * 40, "x", ""), ("b" * 40, "area: say it", "")]
    monkeypatch.setattr(house, "commits", lambda: told)
    monkeypatch.setattr(house, "SHARED", {"a" * 12: "a reason"})
    assert house.history() == [f"commit {'b' * 12}: the message has no body; say why"]


def test_this_checkout_keeps_the_rules(capsys: pytest.CaptureFixture[str]) -> None:
    """Lengths, reasons, folders and counts; the messages of its commits are for `make check`."""
    assert house.main(["--tree"]) == 0, capsys.readouterr().out
