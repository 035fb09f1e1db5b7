"""XLSX: each value is written as it is, noted, or refused; none is lost."""

import io
import math

import openpyxl
import pytest

from isorun.tools import documents
from isorun.tools.documents import Refused


def book(*args: object, **options: object) -> openpyxl.Workbook:
    return openpyxl.load_workbook(io.BytesIO(documents.xlsx(*args, **options).data))


def values(sheet) -> list[list[object]]:
    return [[cell.value for cell in row] for row in sheet.iter_rows()]


def test_values_keep_their_types() -> None:
    """Text, numbers, truth and nothing; the head stays in view and has a filter."""
    sheet = book(rows=[["x", 1, 2.5, True, None, -(10**14)]], columns=list("abcdef")).active
    assert values(sheet) == [list("abcdef"), ["x", 1, 2.5, True, None, -(10**14)]]
    assert (sheet.freeze_panes, sheet.auto_filter.ref) == ("A2", "A1:F2")


@pytest.mark.parametrize(
    "said", ["=1+1", "{=SUM(A1)}", "=cmd|'/c calc'!A0", "+1", "-1", "@x", "https://x.y", "007", "1e5"]
)
def test_a_text_stays_a_text(said) -> None:
    """Excel runs no formula of it, makes no link and no number."""
    for sheet in (book(rows=[[said]], columns=[said]).active, book(csv=f"a\n{said}\n").active):
        cell = sheet["A2"]
        expected = -1 if said == "-1" and sheet["A1"].value == "a" else said  # in CSV there is nothing but text
        assert (cell.value, cell.hyperlink) == (expected, None)
        assert cell.data_type == ("n" if expected == -1 else "s")


def test_csv_becomes_numbers_only_where_nothing_changes() -> None:
    """12.50 is a number with two decimals; leading zeros, signs, exponents and long numbers stay text."""
    sheet = book(csv="id;price;zip\n1;12.50;00123\n-2;0.5;1234567890123456\n3;1,5;.5\n").active
    assert values(sheet)[1:] == [[1, 12.5, "00123"], [-2, 0.5, "1234567890123456"], [3, "1,5", ".5"]]
    assert (sheet["B2"].number_format, sheet["B3"].number_format) == ("0.00", "0.0")


def test_rows_may_be_dicts() -> None:
    """Without columns their keys are, in order of appearance; a key that is no column is refused."""
    assert values(book(rows=[{"a": 1}, {"b": 2, "a": 3}]).active) == [["a", "b"], [1, None], [3, 2]]
    with pytest.raises(Refused, match="row 1 of sheet 'Sheet1' has the key 'b', which is not in columns"):
        book(rows=[{"b": 1}], columns=["a"])


def test_sheet_names_are_made_to_fit_with_a_notice() -> None:
    """Too long, forbidden characters, taken (in any case), empty, reserved."""
    given = ["x" * 40, "a/b[c]", "A_B_C_", "", "History", "'q'"]
    made = documents.xlsx([{"name": name, "rows": [[1]]} for name in given])
    names = openpyxl.load_workbook(io.BytesIO(made.data)).sheetnames
    assert names == ["x" * 31, "a_b_c_", "A_B_C_ (2)", "Sheet4", "History_", "q"]
    assert len(made.notices) == 5
    assert (
        made.notices[1] == "the sheet name 'a/b[c]' is written as 'a_b_c_': a name has 1 to 31 characters without "
        "[]:*?/\\ and is used once"
    )


def test_what_excel_cannot_hold_is_a_notice() -> None:
    """NaN and infinity are empty cells, long numbers and lists are text; each cell is named."""
    made = documents.xlsx(rows=[[math.nan, math.inf, 10**15, {"a": [1]}, "b\x07"]])
    row = values(openpyxl.load_workbook(io.BytesIO(made.data)).active)[0]
    assert row == [None, None, "1000000000000000", '{"a": [1]}', "b"]
    assert made.notices == [
        "2 cells are left empty, as Excel has no such number: A1 (nan), B1 (inf)",
        "1 numbers with more than fifteen digits are written as text, as Excel would round them: C1 (1000000000000000)",
        "1 values are written as JSON text, as a cell holds no list or dict: D1",
        "1 control characters or half characters were left out: U+0007",
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "give either sheets="),
        ({"rows": [], "csv": "a"}, "give either sheets="),
        ({"rows": "a"}, "rows of sheet 'Sheet1' is of type str; give a list of rows"),
        ({"rows": [1]}, "row 1 of sheet 'Sheet1' is of type int; give a list or a dict"),
        ({"rows": [[1]], "columns": "ab"}, "columns of sheet 'Sheet1' is of type str"),
        ({"rows": [["x" * 32_768]]}, "cell A1 of sheet 'Sheet1' has 32,768 characters, and a cell holds 32,767"),
        ({"rows": [[0] * 16_385]}, "a sheet holds 1,048,576 × 16,384: split it"),
        ({"rows": [[0] * 1001] * 1000}, "1,001,000 cells, more than 1,000,000"),
        ({"rows": [[b"x"]]}, "cell A1 of sheet 'Sheet1' holds bytes"),
        ({"sheets": [1]}, "sheet 1 is not a dict with rows"),
        ({"sheets": []}, "sheets is not a list of 1 to 100 sheets"),
        ({"csv": 'a\n"b\n'}, "csv cannot be read"),
    ],
)
def test_what_would_be_lost_is_refused(options, said) -> None:
    """XlsxWriter returns -1 or -2 and drops the value; here the text names the cell and says what to do."""
    with pytest.raises(Refused, match=said):
        documents.xlsx(options.pop("sheets", None), **options)
