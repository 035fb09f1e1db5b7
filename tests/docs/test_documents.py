"""Every block of every document runs, or says why it cannot; every link leads somewhere.

What a page prints is the same whoever types it, but for those about what the machine lets a user have, or an operator.
"""

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Block, Reader, blocks_of, first_missing, headings, links, pages

PAGES = pages()
BLOCKS = {page: [block for block in blocks_of(page) if not block.is_prose] for page in PAGES}
LISTED = [block for blocks in BLOCKS.values() for block in blocks if block.needs is not None]
#: What this version has not got, and what a test has not: the first words of every `needs`.
REASONS = ("docker", "the service", "a checkout", "minutes", "a later version", "root")
#: Pages that root's half of CI types, too.
ROOTS = {
    Path(page)
    for page in (
        "README.md",
        "docs/limits.md",
        *(f"docs/exec/{name}.md" for name in ("operations", "run-python", "service")),
    )
}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=() if page in ROOTS else pytest.mark.any_user, id=str(page))
        for page in PAGES
        if BLOCKS[page]
    ],
)
def test_every_block_runs_as_printed(page, tmp_path, record_property) -> None:
    """Somebody who types the page from top to bottom sees what it says."""
    reader = Reader(tmp_path)
    run = [block for block in BLOCKS[page] if block.needs is None]
    reader.read_all(run)
    record_property("blocks", (len(run), len(BLOCKS[page]) - len(run)))


@pytest.mark.any_user
@pytest.mark.parametrize("block", LISTED, ids=str)
def test_a_block_that_is_not_run_says_what_it_needs(block) -> None:
    """The reason names something that is missing here, and says why in a sentence's length."""
    assert block.needs.startswith(REASONS), block.needs
    assert len(block.needs.split()) >= 4, block.needs


@pytest.mark.any_user
@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_resolves(page) -> None:
    """A link to a file of the checkout leads to one, and its anchor to a heading of that page."""
    for target in links(page):
        path, _, anchor = target.partition("#")
        found = (ROOT / page.parent / path).resolve() if path else ROOT / page
        assert found.exists(), f"{page}: {target}"
        assert not anchor or anchor in headings(found.relative_to(ROOT)), f"{page}: {target}"


def page_of(text: str, tmp_path: Path) -> tuple[list[Block], Reader]:
    return blocks_of(Path("page.md"), text), Reader(tmp_path)


@pytest.mark.any_user
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```sh\nfalse\n```", "page.md:1 exited with 1"),
        ("```python\nraise SystemExit('no')\n```", "page.md:1 exited with 1:\nno"),
        ("```console\n$ echo 1\n2\n```", "no such line, or not in this order: '2' in\n1"),
        ("```console\necho 1\n```", "page.md:1: no line begins with '$ '"),
        ("```yaml\na: 1\n```", "page.md:1: a block in 'yaml' cannot be run"),
        ("```python\nprint(1)\n```\n\n<!-- prints -->\n```\n2\n```", "page.md:6: no such line"),
    ],
)
def test_a_page_that_does_not_do_what_it_says_fails(text, complaint, tmp_path) -> None:
    """The control of the tests above: each kind of block can fail, and the failure names its line."""
    blocks, reader = page_of(text, tmp_path)
    with pytest.raises(AssertionError) as caught:
        reader.read_all(blocks)
    assert complaint in str(caught.value)


@pytest.mark.any_user
def test_blocks_share_a_folder_and_continue(tmp_path) -> None:
    """A file block is there for the next one, a continued block knows the names before it, awaits work."""
    text = (
        "<!-- file: a/b.txt -->\n```json\n{}\n```\n```python\ntext = open('a/b.txt').read()\n```\nand then\n"
        "<!-- continues -->\n```python\nimport asyncio\nawait asyncio.sleep(0)\nprint(text, 'twice')\n```\n"
        "<!-- prints -->\n```\n{}\n…twice\n```\n```console\n$ cat \\\n> a/b.txt\n{}\n```\n"
        "```sh\nexport X='a b'\ncd a\n```\n```console\n$ cat b.txt; echo \"$X\"\n{}\na b\n```\n"
    )
    blocks, reader = page_of(text, tmp_path)
    reader.read_all(blocks)
    assert [block.language for block in blocks] == ["json", "python", "python", "", "console", "sh", "console"]


def test_an_indented_block_is_found() -> None:
    """A block below a list item is a block, without the item's indentation."""
    (block,) = blocks_of(Path("p.md"), "1. first\n\n   ```sh\n   a\n     b\n   ```\n")
    assert (block.language, block.text, block.line) == ("sh", "a\n  b\n", 3)


def test_expected_lines_are_found_in_order() -> None:
    """Lines between are skipped, order counts, and `…` stands for the rest of a line."""
    assert first_missing(["a", "c … e"], ["a", "b", "c d e"]) is None
    assert first_missing(["c", "a"], ["a", "b", "c"]) == "a"


@pytest.mark.any_user
@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_mark_stands_before_a_block(page) -> None:
    """A comment on a page is a mark of the block below it: one that was misspelt or moved away would do nothing."""
    comments = re.findall(r"^\s*<!--", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert len(comments) == sum(len(block.marks) for block in blocks_of(page))


def rows_of_names() -> list[tuple[str, str, str]]:
    """The rows of docs/history/names.md: the name, what it is here, and whether it was kept."""
    text = (ROOT / "docs" / "history" / "names.md").read_text(encoding="utf-8")
    return re.findall(r"^\| (`.+?) \| (.+?) \| (kept|changed|later|not kept)(?:[:;,] .*)? \|$", text, re.MULTILINE)


def test_the_page_of_names_is_true() -> None:
    """A file that it says is there is there; one that comes with a later version is not there yet."""
    rows = rows_of_names()
    table = re.findall(r"^\| `", (ROOT / "docs" / "history" / "names.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) == len(table) > 50
    for name, now, state in rows:
        paths = re.findall(r"`((?:src|docs|examples|packages|deployment|tools)/[\w./-]+)`", now)
        assert all((ROOT / path).exists() == (state != "later") for path in paths), (name, now)


def test_the_guide_names_every_refusal_of_a_contract() -> None:
    """The codes of the guide's table are those of the code, none missing and none that is gone."""
    source = (ROOT / "src/isorun/core/contract/items.py").read_text(encoding="utf-8")
    raised = set(re.findall(r"""(?:refuse\(\s*|code=)"(\w+)\"""", source))
    guide = (ROOT / "docs/exec/run-python.md").read_text(encoding="utf-8")
    table = guide.partition("| code | refused |")[2].partition("\n\n")[0]
    named = {
        code for cell in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE) for code in re.findall(r"`(\w+)`", cell)
    }
    assert named == raised
