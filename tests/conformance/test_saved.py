"""`start_from` and `save_to`: out/ starts as a copy of a folder, and what the run wrote is copied to one."""

from pathlib import Path

import pytest

import isorun

WRITES = "Path('a.txt').write_text('new'); Path('sub/deep').mkdir(parents=True); Path('sub/deep/b').write_text('b')"


def files_in(folder: Path) -> dict[str, str]:
    """The text of each file below *folder*."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


def test_what_the_run_wrote_is_saved(run, tmp_path: Path) -> None:
    """Beside files that are there already; one of the same name is replaced, and none of the host's own comes along."""
    (tmp_path / "to").mkdir()
    (tmp_path / "to/a.txt").write_text("old")
    (tmp_path / "to/mine").write_text("mine")
    run(WRITES, save_to=tmp_path / "to")
    assert files_in(tmp_path / "to") == {"a.txt": "new", "mine": "mine", "sub/deep/b": "b"}


def test_what_it_only_started_from_is_not_saved(run, tmp_path: Path) -> None:
    """A file with its old content was not written by this run, whatever its times say."""
    (tmp_path / "from").mkdir()
    for name in ("same", "again", "changed"):
        (tmp_path / "from" / name).write_text(name)
    code = "Path('again').write_text('again'); Path('changed').write_text('!'); Path('new').write_text('n')"
    result = run(code, start_from=tmp_path / "from", save_to=tmp_path / "to")
    assert files_in(tmp_path / "to") == {"changed": "!", "new": "n"}
    assert result.workspace_diff["modified"] == ("changed",)


@pytest.mark.parametrize("ending", ["raise ValueError", "sys.stdout.flush(); time.sleep(60)", "sys.exit(3)"])
def test_a_run_that_fails_is_saved_too(run, tmp_path: Path, ending: str) -> None:
    """Its files are all that there is to see of it."""
    result = run(f"{WRITES}\n{ending}", save_to=str(tmp_path / "new/to"), timeout_s=1)
    assert not result.ok
    assert files_in(tmp_path / "new/to") == {"a.txt": "new", "sub/deep/b": "b"}


def test_a_run_that_is_not_kept_is_saved(run, rt, tmp_path: Path) -> None:
    """The folder of the run goes after the copy was made."""
    result = run(WRITES, save_to=tmp_path / "to", keep=False)
    assert files_in(tmp_path / "to") == {"a.txt": "new", "sub/deep/b": "b"}
    assert not result.out_dir.exists()


@pytest.mark.parametrize("keep", [True, False])
def test_what_cannot_be_saved_is_named_and_stays(rt, tmp_path: Path, keep: bool) -> None:
    """The other files are saved, and the folder that the error names has them all, kept or not."""
    (tmp_path / "to/a.txt").mkdir(parents=True)
    with pytest.raises(isorun.SetupFailed) as caught:
        rt.execute(WRITES, save_to=tmp_path / "to", keep=keep)
    text, _, folder = str(caught.value).rpartition("; the run's files are in ")
    assert text == f"save_to: a.txt: there is a folder of that name: not saved in {tmp_path}/to"
    assert files_in(tmp_path / "to") == {"sub/deep/b": "b"}
    assert (Path(folder) / "a.txt").read_text() == "new"
    assert (Path(folder) / "result.json").exists()


def test_out_is_where_all_of_out_is_copied_to(run, tmp_path: Path) -> None:
    """In Python as on the command line: a new or empty folder, which gets the logs and the result as well."""
    run(WRITES, out=tmp_path / "to")
    assert {"a.txt", "sub/deep/b", "result.json", "logs/user.log"} <= files_in(tmp_path / "to").keys()


def test_out_no_longer_says_where_to_start(run, tmp_path: Path) -> None:
    """Who means the old sense gave a folder that holds something: it is refused, untouched, with the new word."""
    (tmp_path / "before").mkdir()
    (tmp_path / "before/a.txt").write_text("x")
    with pytest.raises(
        isorun.InvalidRequest, match=r"or start_from \(--start-from\) to let out/ start as a copy of it"
    ):
        run(WRITES, out=tmp_path / "before")
    assert files_in(tmp_path / "before") == {"a.txt": "x"}


def test_two_words_for_one_thing_are_refused(run, tmp_path: Path) -> None:
    """Nothing is started, and nothing is made."""
    with pytest.raises(isorun.InvalidRequest, match="leave out one"):
        run(WRITES, out=tmp_path / "a", save_to=tmp_path / "b")
    assert not list(tmp_path.glob("[ab]"))
