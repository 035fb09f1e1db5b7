"""SPEC B6 (comparison of out/) and what goes into a run: inputs and the given out/.

Clauses. B6: no contract · out/ is compared before and after · created and modified files
become artifacts, deleted ones notices · changed content is found even when size and mtime
are unchanged · the runtime's own files and empty folders are never listed. DESIGN 4.3:
inputs and the given out/ are copied in; nothing of the caller's is changed.
"""

import hashlib
from pathlib import Path

import pytest

import isorun


@pytest.fixture
def before(tmp_path) -> Path:
    """An out/ of the caller's to start from."""
    folder = tmp_path / "before"
    (folder / "sub").mkdir(parents=True)
    for name in ("same.txt", "sub/changed.txt", "sub/sly.txt", "gone.txt"):
        (folder / name).write_text(f"text of {name}")
    return folder


def test_created_modified_and_deleted(run, before) -> None:
    """Each file that differs is listed once, in its list; one that does not is in none."""
    result = run(
        """
        assert Path("same.txt").read_text() == "text of same.txt"
        Path("sub/changed.txt").write_text("another text")
        Path("gone.txt").unlink()
        Path("sub/new.txt").write_text("new")
        """,
        start_from=before,
    )
    assert dict(result.workspace_diff) == {
        "created": ("sub/new.txt",),
        "modified": ("sub/changed.txt",),
        "deleted": ("gone.txt",),
    }
    assert [artifact.path for artifact in result.artifacts] == ["sub/new.txt", "sub/changed.txt"]
    assert result.notices == ("deleted: gone.txt",)
    assert {item.path: item.state for item in result.items} == {
        "sub/new.txt": "created",
        "sub/changed.txt": "modified",
        "gone.txt": "deleted",
    }


def test_same_size_and_mtime_is_found(run, before) -> None:
    """Content decides: a file with its old size and times is modified all the same."""
    result = run(
        """
        path = Path("sub/sly.txt")
        facts = path.stat()
        path.write_text(path.read_text().upper())
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        assert path.stat().st_size == facts.st_size and path.stat().st_mtime_ns == facts.st_mtime_ns
        """,
        start_from=before,
    )
    assert result.workspace_diff["modified"] == ("sub/sly.txt",)


def test_rewritten_with_the_same_content_is_not_modified(run, before) -> None:
    """A new mtime alone is no change."""
    result = run("Path('same.txt').write_text('text of same.txt')", start_from=before)
    assert set(result.workspace_diff.values()) == {()}


def test_own_files_and_empty_folders_are_never_listed(run) -> None:
    """Nothing that the runtime wrote or made is the program's doing, and neither is an empty folder."""
    result = run("print('x'); Path('empty/er').mkdir(parents=True)")
    assert dict(result.workspace_diff) == {"created": (), "modified": (), "deleted": ()}
    assert result.artifacts == ()


@pytest.mark.parametrize("name", ["result.json", "logs/user.log", "runtime.out.log", "executed_programs/x"])
def test_a_program_cannot_pass_for_the_runtime(run, name) -> None:
    """A file of the program with a name that the host writes is refused and said, and the host's stands."""
    result = run(f"p = Path({name!r}); p.parent.mkdir(exist_ok=True); p.write_text('forged')")
    assert result.workspace_diff["created"] == ()
    assert any("artifact_reserved_name" in notice for notice in result.notices)
    for path in result.out_dir.rglob("*"):
        assert not path.is_file() or path.read_bytes() != b"forged"


def test_the_callers_own_folder_is_not_touched(run, before) -> None:
    """The given out/ is copied in; what the program does to it is done to the copy."""
    run("Path('same.txt').write_text('!'); Path('gone.txt').unlink(); Path('new').write_text('n')", start_from=before)
    assert (before / "same.txt").read_text() == "text of same.txt"
    assert sorted(path.name for path in before.iterdir()) == ["gone.txt", "same.txt", "sub"]


def test_an_artifact_is_the_file(run, tmp_path) -> None:
    """Size, sha256 and bytes of an artifact are those of the file that the program wrote."""
    result = run("Path('data.bin').write_bytes(bytes(range(256)) * 10)")
    (artifact,) = result.artifacts
    data = bytes(range(256)) * 10
    assert (artifact.bytes, artifact.sha256) == (2560, hashlib.sha256(data).hexdigest())
    with artifact.open() as file:
        assert file.read() == data
    assert artifact.save(tmp_path / "copy.bin").read_bytes() == data


def test_inputs_lie_beside_the_program(run, tmp_path) -> None:
    """Files and folders given as inputs are found in work/, with their bytes; one that is changed there comes back."""
    (tmp_path / "data.csv").write_bytes(b"a,b\r\n1,2")
    (tmp_path / "folder/deep").mkdir(parents=True)
    (tmp_path / "folder/deep/x.bin").write_bytes(bytes(3_000_000))
    result = run(
        """
        here = Path(__file__).parent
        print((here / "data.csv").read_bytes(), (here / "folder/deep/x.bin").stat().st_size)
        (here / "data.csv").write_text("changed")
        """,
        inputs=[tmp_path / "data.csv", tmp_path / "folder"],
    )
    assert result.stdout == "b'a,b\\r\\n1,2' 3000000\n"
    assert (tmp_path / "data.csv").read_bytes() == b"a,b\r\n1,2"
    assert result.workspace_diff == {"created": (), "modified": ("data.csv",), "deleted": ()}


SCRIPT = "#!/bin/sh\necho ran $0\n"


@pytest.mark.parametrize("mode", [0o755, 0o700, 0o711, 0o555, 0o644, 0o600])
def test_an_input_keeps_whether_it_can_be_executed(run, tmp_path, mode: int) -> None:
    """A script that is executable for the caller is so for the program, in a folder too; another file is not."""
    for path in (tmp_path / "t.sh", tmp_path / "project/bin/t.sh"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SCRIPT)
        path.chmod(mode)
    result = run(
        """
        here = Path(__file__).parent
        print([oct((here / path).stat().st_mode & 0o777) for path in ("t.sh", "project/bin/t.sh")])
        print([os.access(here / path, os.X_OK) for path in ("t.sh", "project/bin/t.sh")])
        """,
        inputs=[tmp_path / "t.sh", tmp_path / "project"],
    )
    inside = 0o755 if mode & 0o111 else 0o644
    assert result.stdout == f"{[oct(inside)] * 2}\n{[inside == 0o755] * 2}\n"


def test_a_project_with_scripts_runs_as_it_is(run, tmp_path) -> None:
    """An executable input is executed by its path, however large it is; no setuid bit comes in with it."""
    script = tmp_path / "project/run.sh"
    script.parent.mkdir()
    script.write_text(SCRIPT + "exit 0\n" + "# filling\n" * 300_000)
    script.chmod(0o6755)
    result = run(
        """
        import subprocess
        script = Path(__file__).parent / "project/run.sh"
        print(subprocess.run([script], capture_output=True, text=True).stdout == f"ran {script}\\n")
        print(oct(script.stat().st_mode))
        """,
        inputs=[script.parent],
    )
    assert (result.stdout, result.stderr) == ("True\n0o100755\n", "")


def test_a_given_out_keeps_what_can_be_executed(run, before) -> None:
    """The out/ that a run starts with has executable files where the caller's has them."""
    (before / "bin").mkdir()
    (before / "bin/tool").write_text(SCRIPT)
    (before / "bin/tool").chmod(0o750)
    result = run(
        "import subprocess; print(subprocess.run(['bin/tool'], capture_output=True).stdout)", start_from=before
    )
    assert (result.stdout, result.stderr) == ("b'ran bin/tool\\n'\n", "")


def test_what_tools_keep_for_themselves_is_not_listed(run) -> None:
    """Caches and version control stay in out/, and a notice counts them; a hidden file of the program's is listed."""
    code = """
        scratch = ".git/objects/a", ".pytest_cache/v", "pkg/__pycache__/a.pyc"
        for path in *scratch, ".env", ".config/x", "git", ".gitignore":
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            open(path, "w").write("x")
    """
    result = run(code)
    assert result.workspace_diff["created"] == (".config/x", ".env", ".gitignore", "git")
    assert "3 files of caches or version control are in out/, and not listed" in result.notices
    assert (result.out_dir / ".git/objects/a").exists()


def test_an_input_module_can_be_imported(run, tmp_path) -> None:
    """work/ is first on sys.path, as the script's folder is outside."""
    (tmp_path / "mine.py").write_text("VALUE = 5")
    assert run("import mine; print(mine.VALUE)", inputs=[tmp_path / "mine.py"]).stdout == "5\n"


def test_inputs_with_a_link_inside_are_refused(run, tmp_path) -> None:
    """A link inside a folder may be anybody's, so it is not followed, and nothing starts."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to("/etc/shadow")
    with pytest.raises(isorun.InvalidRequest, match="is not a regular file"):
        run("pass", inputs=[folder])


def test_a_given_out_with_a_link_is_refused(run, before) -> None:
    """The same holds for the out/ to start from, and the folder of the run does not stay."""
    (before / "link").symlink_to("/etc/passwd")
    with pytest.raises(isorun.InvalidRequest):
        run("print(Path('link').exists())", start_from=before)


@pytest.mark.usefixtures("sealed")
def test_inputs_that_do_not_fit_are_refused(own, tmp_path) -> None:
    """More than the workspace holds is the caller's error, with its code, and not the program's."""
    (tmp_path / "big").write_bytes(bytes(9 << 20))
    limits = isorun.Limits(workspace_bytes=8 << 20)
    with own(limits=limits) as rt, pytest.raises(isorun.InvalidRequest) as caught:
        rt.execute("pass", inputs=[tmp_path / "big"])
    assert caught.value.code == "inputs_too_large"
    assert list((tmp_path / "root").glob("codegen_*")) == []


def test_a_refused_file_is_not_deleted(run, before) -> None:
    """What the program put a link in the place of is refused; to call it deleted would be a second verdict."""
    result = run("Path('gone.txt').unlink(); Path('gone.txt').symlink_to('same.txt')", start_from=before)
    assert dict(result.workspace_diff) == {"created": (), "modified": (), "deleted": ()}
    assert result.notices == ("gone.txt: artifact_symlink_blocked: is a symbolic link",)


def test_the_out_of_an_earlier_run_can_be_given(run) -> None:
    """What the host wrote into it is neither sent into the next run nor missed after it."""
    first = run("Path('kept.txt').write_text('x')")
    second = run("print([path.name for path in Path().rglob('*') if path.is_file()])", start_from=first.out_dir)
    assert (second.ok, second.stdout) == (True, "['kept.txt']\n")
    assert dict(second.workspace_diff) == {"created": (), "modified": (), "deleted": ()}
    assert second.notices == ()


def test_notices_of_refusals_are_capped(run) -> None:
    """A thousand links fill neither the notices nor infra.log; how many more there were is said."""
    result = run("for n in range(1000): Path(f'link{n:04}').symlink_to('/etc/passwd')")
    shown = [f"link{n:04}: artifact_symlink_blocked: is a symbolic link" for n in range(20)]
    assert result.notices == (*shown, "and 980 more")
