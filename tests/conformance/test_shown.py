"""What a program would show on a screen comes back: the value of its last line, and its figures."""

import pytest

import isorun

VALUES = {
    "1 + 1": "2",
    "x = 5\nx": "5",
    "x = 5": None,
    "x = [0]\nx[0] = 1": None,
    "None": None,
    "'''A docstring.'''": None,
    "print(1)": None,
    "for n in range(3):\n    n": None,
    "await asyncio.sleep(0, 7)": "7",
    "(\n    1\n    + 2\n)": "3",
    "x = 1; x": "1",
    "len('abc')  # a comment": "3",
    "import os\nos.fork()\n'both'": "'both'",
    "class A:\n    def __repr__(self): raise SystemExit(9)\nA()": None,
    "x = 1\n'é\\ud800'": "'é\\ud800'",
    "5": "5",
    "print(1); 2": "2",
}
PLOT = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\n"
FIGURES = {
    "shown": ("plt.show()", {"figure-1.png"}),
    "left open": ("x = 1", {"figure-1.png"}),
    "shown and left open": ("plt.show()\nx = 1", {"figure-1.png"}),
    "two": ("plt.figure(); plt.plot([2, 1]); plt.show()", {"figure-1.png", "figure-2.png"}),
    "shown, drawn on, shown": ("plt.show(); plt.plot([2, 1]); plt.show()", {"figure-1.png", "figure-2.png"}),
    "saved": ("plt.savefig('c.png'); plt.show()", {"c.png"}),
    "saved by its object": ("plt.gcf().savefig('c.png')", {"c.png"}),
    "saved after it was shown": ("plt.show(); plt.savefig('c.png')", {"figure-1.png", "c.png"}),
    "closed": ("plt.close()", set()),
    "empty": ("plt.close(); plt.figure()", set()),
    "a name that is taken": ("open('figure-1.png', 'w').write('mine'); plt.show()", {"figure-1.png", "figure-2.png"}),
    "by a program that exits": ("raise SystemExit(0)", {"figure-1.png"}),
}


@pytest.mark.table
@pytest.mark.parametrize("code", VALUES)
def test_the_value_of_the_last_expression_is_kept(run, code: str) -> None:
    """As a notebook shows it; a statement, None and a docstring have none."""
    result = run(code)
    assert (result.status, result.value) == ("ok", VALUES[code]), result.report_text
    assert (result.rich, result.artifacts) == ({}, ())


def test_the_forms_that_a_notebook_would_show_are_kept(run) -> None:
    """HTML and SVG as text, PNG in base64; a form that raises or is too large is not there."""
    code = """
        class Shown:
            def _repr_html_(self): return "<b>x</b>"
            def _repr_svg_(self): return "<svg" + " " * 600_000
            def _repr_png_(self): return b"\\x89PNG"
            def __repr__(self): return "shown"
        Shown()
    """
    result = run(code)
    assert result.value == "shown"
    assert result.rich == {"text/html": "<b>x</b>", "image/png": "iVBORw=="}
    assert "<b>x</b>" not in result._repr_html_()


def test_a_long_value_is_shown_by_its_beginning(run) -> None:
    """Neither the program's memory nor the result has to hold the text of all of it."""
    result = run("[0] * 10_000_000")
    assert result.status == "ok"
    assert result.value.startswith("[0, 0, ")
    assert len(result.value) <= 65536


def test_the_line_that_raised_is_the_programs(run) -> None:
    """Keeping the value changes no traceback."""
    result = run("def f():\n    return 1 / 0\n\nf()")
    assert (result.status, result.value, result.error.where) == ("failed", None, "user_code.py:2")
    assert result.stderr.splitlines()[1:3] == [
        f'  File "{result.stderr.split(chr(34))[1]}", line 4, in <module>',
        "    f()",
    ]


@pytest.mark.table
@pytest.mark.parametrize(("code", "files"), FIGURES.values(), ids=FIGURES)
def test_a_figure_that_nobody_saved_comes_back(run, code: str, files: set[str]) -> None:
    """Shown or left open it is a file, and a notice says so; one that the program saved is not there twice."""
    result = run(PLOT + code, timeout_s=30)
    assert {artifact.path for artifact in result.artifacts} == files, result.report_text
    ours = sorted(name for name in files if name.startswith("figure-") and "mine" not in code)
    told = f"figures that were shown or left open are saved as {', '.join(ours)}"
    assert (told in result.notices) == bool(ours)


def test_both_can_be_turned_off(own) -> None:
    """By a setting each."""
    settings = isorun.Settings(keep_value=False, save_figures=False)
    with own(settings=settings) as rt:
        result = rt.execute(PLOT + "plt.show()\n1", timeout_s=30)
    assert (result.status, result.value, result.artifacts) == ("ok", None, ())


@pytest.mark.parametrize(
    "place",
    [
        "os.symlink('/etc/passwd', path)",
        "os.mkfifo(path)",
        "os.mkdir(path)",
        "open(path, 'wb').write(b'\\xff' * 10_000_000)",
    ],
)
def test_what_a_program_puts_in_the_place_of_a_value_is_no_way_out(run, place: str) -> None:
    """A link is not followed, a FIFO not waited for, a long file not read whole."""
    code = f"""
        path = os.path.join(os.path.dirname(__file__), ".isorun-value.txt")
        {place}
        os._exit(0)
    """
    result = run(code)
    assert result.status == "ok"
    assert "root" not in (result.value or "")
    assert len(result.value or "") <= 65536


def test_an_artifact_is_found_by_its_name(run) -> None:
    """By its path, or by its name where one has it; what is not there is told with what is."""
    result = run("os.mkdir('d')\nfor p in 'a.txt', 'd/b.txt', 'd/a.txt': open(p, 'w').write(p)")
    assert result["a.txt"].read_text() == "a.txt"
    assert result["b.txt"].read_bytes() == b"d/b.txt"
    with pytest.raises(KeyError, match=r"0 artifacts are called 'c.txt'; there are: a.txt, d/a.txt, d/b.txt"):
        result["c.txt"]


def test_a_notebook_shows_pictures(run) -> None:
    """As data, so that the page needs no file; a picture's own artifact shows itself, too."""
    result = run(PLOT + "plt.show()", timeout_s=30)
    assert '<img src="data:image/png;base64,iVBOR' in result._repr_html_()
    assert result["figure-1.png"]._repr_png_().startswith(b"\x89PNG")


#: A Chinese character that no usual font has, also where fonts for Chinese are installed.
RARE = "\\U00030001"


def test_what_stands_in_matplotlibs_place_is_not_seen(run) -> None:
    """A warning names the program's line, and a traceback has the program's frame and matplotlib's alone."""
    code = PLOT + f"plt.title('{RARE}')\nplt.savefig('a.png')\nplt.savefig('none/b.png')"
    result = run(code, timeout_s=30)
    assert "user_code.py:4: UserWarning: Glyph" in result.stderr
    assert "executor" not in result.stderr
    assert result.error.where == "user_code.py:5"
    assert any("(Chinese, Japanese or Korean), so empty squares are drawn" in notice for notice in result.notices)


FONT = """
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0)); pen.lineTo((0, 900)); pen.lineTo((900, 900)); pen.closePath()
    made = FontBuilder(1000, isTTF=True)
    made.setupGlyphOrder([".notdef", "han"])
    made.setupCharacterMap({0x30001: "han"})
    made.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "han": pen.glyph()})
    made.setupHorizontalMetrics({".notdef": (500, 0), "han": (1000, 0)})
    made.setupHorizontalHeader(ascent=800, descent=-200)
    made.setupNameTable({"familyName": NAME, "styleName": "Regular", "psName": "Made"})
    made.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    made.setupPost()
    folder = Path.home() / ".fonts"
    folder.mkdir()
    made.save(folder / "made.ttf")
    import matplotlib.pyplot as plt
    plt.plot([1, 2])
    plt.title("a\\U00030001")
    plt.savefig("a.png")
"""


@pytest.mark.parametrize(("name", "squares"), [("Noto Sans Telugu", 0), ("Unknown Font", 1)])
def test_a_font_that_has_the_characters_is_used_if_it_is_there(run, sealed: str, name: str, squares: int) -> None:
    """One of the usual fonts, which the program need not name; else a notice says what is drawn."""
    result = run(FONT.replace("NAME", repr(name)), timeout_s=30)
    assert result.status == "ok", result.report_text
    assert sum("empty squares" in notice for notice in result.notices) == squares
