"""Which paths a `.dockerignore` leaves out."""

import pytest

from sandbox_runner.docker.dockerignore import Hits, IgnoreRules


def left_out(text: str, path: str) -> bool:
    """Whether *text* leaves *path* out, asked folder by folder as a reader of the disk does."""
    rules = IgnoreRules.parse(text)
    hits: Hits = ()
    parts = path.split("/")
    for count in range(1, len(parts) + 1):
        hits = rules.hits("/".join(parts[:count]), hits)
    return rules.leave_out(hits)


@pytest.mark.parametrize(
    ("pattern", "path", "out"),
    [
        ("", "a", False),
        ("a", "a", True),
        ("a", "a/b/c", True),  # a folder, so all in it
        ("a", "b/a", False),
        ("/a", "a", True),  # a leading slash means nothing
        ("./b/../a/", "a", True),
        ("*", "a/b", True),
        ("*.md", "a.md", True),
        ("*.md", "d/a.md", False),  # a star stops at a slash
        ("*/a*", "d/ab", True),
        ("a?", "ab", True),
        ("a?", "a", False),
        ("a?b", "a/b", False),
        ("**", "a/b", True),
        ("**/a", "a", True),
        ("**/a", "d/e/a", True),
        ("**/a", "ba", False),
        ("**a", "d/ba", True),  # Docker reads this as "ends so"
        ("**/**/*.x", "d/e/a.x", True),
        ("d/**", "d/e/f", True),
        ("d/**", "d", False),
        ("d/**/a", "d/a", True),
        ("d**/*.x", "d/e/f/a.x", True),
        ("[b-d]", "c", True),
        ("[^b-d]", "c", False),
        ("[^b-d]", "a", True),
        ("[!a]", "!", True),  # as in Go, ! within brackets is itself
        ("[\\]a]", "]", True),
        ("a\\*b", "a*b", True),
        ("a\\*b", "axb", False),
        ("a.|)$(}+{b", "a.|)$(}+{b", True),
        ("a.b", "axb", False),
        ("  a  ", "a", True),
        ("# a", "# a", False),  # a comment
        ("  # a", "# a", True),  # none: not in the first column
        ("\ufeffa", "a", True),
        ("a\r\nb", "a", True),
        ("a\u2028b", "b", False),  # one line
        ("a\x85b", "b", False),
    ],
)
def test_a_pattern_matches_as_documented(pattern, path, out) -> None:
    """Each pattern says of its path what Docker's own matcher says."""
    assert left_out(pattern, path) is out


@pytest.mark.parametrize(
    ("text", "path", "out"),
    [
        ("*.md\n!README.md", "README.md", False),
        ("*.md\n!README.md", "a.md", True),
        ("!README.md\n*.md", "README.md", True),  # the last one that matches decides
        ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", True),
        ("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", False),
        ("docs\n!docs/a", "docs/a/b", False),
        ("docs\n!docs/a\ndocs/a/b", "docs/a/b", True),
        ("**\n!**/*.py", "a/b/c.py", False),
    ],
)
def test_the_last_match_decides(text, path, out) -> None:
    """An exception holds until a later line matches again."""
    assert left_out(text, path) is out


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("!", "a lone ! is not a pattern"),
        ("[", "it ends within brackets, or after a backslash"),
        ("a[]b]", "it ends within brackets, or after a backslash"),
        ("[a-]", "it ends within brackets, or after a backslash"),
        ("a\\", "it ends within brackets, or after a backslash"),
        ("a" * 4097, "it has more than 4096 characters"),
        ("[z-a]", "a range within brackets ends before it begins"),
    ],
)
def test_a_pattern_docker_refuses_is_refused(line, why) -> None:
    """A malformed line is an error that names its number, not its text (a secret?), and never one without a match."""
    with pytest.raises(ValueError, match="line 2") as caught:
        IgnoreRules.parse(f"a\n{line}\n")
    assert str(caught.value) == f"line 2: {why}"


def test_what_is_always_sent_cannot_be_left_out() -> None:
    """The Dockerfile and the ignore file stay, whatever the lines say, and also if their names hold wildcards."""
    rules = IgnoreRules.parse("*\n", ["Docker[file]", "deep/Dockerfile"])
    assert not rules.leave_out(rules.hits("Docker[file]"))
    deep = rules.hits("deep")
    assert rules.leave_out(deep)
    assert rules.may_keep_below("deep", deep)
    assert not rules.leave_out(rules.hits("deep/Dockerfile", deep))


@pytest.mark.parametrize(
    ("text", "folder", "may"),
    [
        ("a", "a", False),
        ("*\n!a", "b", False),
        ("*\n!b/c", "b", True),
        ("*\n!b/c", "b/d", False),
        ("*\n!**/x", "b/d", True),
        ("*\n!b*/[c-d]/x", "bb/c", True),
        ("*\n!b[/]c", "b", True),  # a slash within brackets
        ("!b/c\n*", "b", False),  # a later line has the last word
    ],
)
def test_a_folder_is_entered_only_if_something_in_it_may_be_kept(text, folder, may) -> None:
    """A folder that is left out is read only where a later exception could match in it."""
    rules = IgnoreRules.parse(text)
    assert rules.may_keep_below(folder, rules.hits(folder)) is may


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    ("pattern", "path", "out"),
    [
        ("*a" * 40 + "*b", "a" * 250, False),
        ("*a" * 40 + "*b", "a" * 250 + "b", True),
        ("**/a/" * 40 + "b", "a/" * 500 + "c", False),
        ("**/a/" * 40 + "b", "a/" * 500 + "b", True),
        ("*[^b]" * 40 + "*b", "a" * 250, False),
        ("d**/*?a" * 20, "da" * 500 + "c", False),
    ],
)
def test_no_pattern_takes_longer_than_its_path(pattern, path, out) -> None:
    """Matching does not try every way to share a path out between the stars."""
    rules = IgnoreRules.parse(pattern)
    assert rules.leave_out(rules.hits(path)) is out
    assert rules.may_keep_below(path, ()) is False
