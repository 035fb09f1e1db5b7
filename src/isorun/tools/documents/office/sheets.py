"""Rows as XLSX, by XlsxWriter. No value is lost unseen: it is written as it is, noted, or refused with its cell.

A text stays a text: Excel takes none for a formula, a link or a number.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from isorun.tools.documents.archive import DAY
from isorun.tools.documents.bounds import Notices, Refused, cleaned

MAX_ROWS, MAX_COLUMNS, MAX_CELLS = 1_048_576, 16_384, 1_000_000
MAX_TEXT = 32_767  # characters that a cell holds
MAX_SHEETS = 100
_MAX_NAME = 31
_DIGITS = 15  # that Excel keeps
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,13})(\.\d{1,10})?")
_WIDEST, _NARROWEST, _LOOKED_AT = 60, 8, 1000  # characters, and rows that the width of a column is taken from
_NAME = "the sheet name {0} is written as {1}: a name has 1 to 31 characters without []:*?/\\ and is used once"
_NOT_A_NUMBER = "{count} cells are left empty, as Excel has no such number: {examples}"
_MANY_DIGITS = (
    "{count} numbers with more than fifteen digits are written as text, as Excel would round them: {examples}"
)
_AS_JSON = "{count} values are written as JSON text, as a cell holds no list or dict: {examples}"


@dataclass(slots=True)
class Sheet:
    """One sheet: `columns` is its head, empty where it has none."""

    name: str
    columns: list[Any]
    rows: list[list[Any]]


def sheets_of(sheets: object, rows: object, columns: object, text: str, notices: Notices) -> list[Sheet]:
    """The sheets that a caller gave in one of the three ways. Raises `Refused`."""
    given = [sheets is not None, rows is not None, bool(text)]
    if sum(given) != 1:
        raise Refused("give either sheets=[{name, columns, rows}], or rows, or csv text")
    if text:
        read = _read_csv(text)
        return [Sheet("Sheet1", read[0] if read else [], read[1:])]
    if rows is not None:
        return [_sheet("Sheet1", columns, rows)]
    if not isinstance(sheets, Sequence) or isinstance(sheets, str) or not 1 <= len(sheets) <= MAX_SHEETS:
        raise Refused(f"sheets is not a list of 1 to {MAX_SHEETS} sheets; give sheets=[{{name, columns, rows}}]")
    made: list[Sheet] = []
    for number, each in enumerate(sheets, 1):
        if not isinstance(each, Mapping) or "rows" not in each:
            raise Refused(f"sheet {number} is not a dict with rows; give {{'name': …, 'columns': […], 'rows': [[…]]}}")
        name = _name(str(each.get("name") or f"Sheet{number}"), [sheet.name.lower() for sheet in made], notices)
        made.append(_sheet(name, each.get("columns"), each["rows"]))
    return made


def write_xlsx(sheets: list[Sheet], notices: Notices) -> bytes:
    """The XLSX of *sheets*. Raises `Refused`."""
    import xlsxwriter

    cells = sum(len(row) for sheet in sheets for row in sheet.rows)
    if cells > MAX_CELLS:
        raise Refused(f"the sheets have {cells:,} cells, more than {MAX_CELLS:,}: write several files, or CSV")
    options = dict.fromkeys(("strings_to_formulas", "strings_to_urls", "strings_to_numbers"), False)
    made = io.BytesIO()
    with xlsxwriter.Workbook(made, {"in_memory": True, **options}) as book:
        book.set_properties({"created": DAY, "author": ""})
        writer = _Writer(book, notices)
        for sheet in sheets:
            writer.write(sheet)
    return made.getvalue()  # its members have one date already


def _sheet(name: str, columns: object, rows: object) -> Sheet:
    if not isinstance(rows, Sequence) or isinstance(rows, str | bytes):
        raise Refused(f"rows of sheet {name!r} is of type {type(rows).__name__}; give a list of rows")
    if columns is not None and (not isinstance(columns, Sequence) or isinstance(columns, str | bytes)):
        raise Refused(f"columns of sheet {name!r} is of type {type(columns).__name__}; give a list of names")
    head = list(columns or [])
    named = [row for row in rows if isinstance(row, Mapping)]
    if named and not head:
        head = list(dict.fromkeys(key for row in named for key in row))
    made: list[list[Any]] = []
    for number, row in enumerate(rows, 1):
        if isinstance(row, Mapping):
            if unknown := [key for key in row if key not in head]:
                raise Refused(f"row {number} of sheet {name!r} has the key {unknown[0]!r}, which is not in columns")
            made.append([row.get(key) for key in head])
        elif isinstance(row, Sequence) and not isinstance(row, str | bytes):
            made.append(list(row))
        else:
            raise Refused(f"row {number} of sheet {name!r} is of type {type(row).__name__}; give a list or a dict")
    if len(made) + bool(head) > MAX_ROWS or max(map(len, [head, *made])) > MAX_COLUMNS:
        raise Refused(
            f"sheet {name!r} has {len(made):,} rows of up to {max(map(len, [head, *made])):,} cells, and a sheet holds "
            f"{MAX_ROWS:,} × {MAX_COLUMNS:,}: split it"
        )
    return Sheet(name, head, made)


def _name(name: str, taken: list[str], notices: Notices) -> str:
    """*name* as Excel takes it, with a notice if it is another."""
    kept = re.sub(r"[\[\]:*?/\\]", "_", cleaned(name, notices)).replace("\n", " ").strip().strip("'")[:_MAX_NAME]
    kept = kept if kept and kept.lower() != "history" else f"{kept or 'Sheet'}_"
    made, number = kept, 2
    while made.lower() in taken:
        tail = f" ({number})"
        made, number = kept[: _MAX_NAME - len(tail)] + tail, number + 1
    if made != name:
        notices.say(_NAME.format(repr(name[:60]), repr(made)))
    return made


def _read_csv(text: str) -> list[list[Any]]:
    """The rows of CSV text; the separator is the one of , ; and tab that its first line has most of."""
    text = text.lstrip("\ufeff")
    first = text.split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    try:
        head, *rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    except csv.Error as error:
        raise Refused(f"csv cannot be read ({error}): write quotes in a cell twice and end each that begins") from None
    return [head, *([_typed(cell) for cell in row] for row in rows)]


def _typed(cell: str) -> str | Decimal:
    """A number only if Excel shows it as it stands here: not 007, not 1e5, not +49, not 20 digits."""
    digits = len(cell.replace(".", "").lstrip("-"))
    return Decimal(cell) if _NUMBER.fullmatch(cell) and digits <= _DIGITS else cell


class _Writer:
    """Writes one book; formats are made once, and one for each number of decimals."""

    def __init__(self, book: Any, notices: Notices) -> None:
        self._book = book
        self._notices = notices
        head = {"bold": True, "font_color": "#FFFFFF", "bg_color": "#1F4E79", "text_wrap": True, "valign": "vcenter"}
        self._head = book.add_format({**head, "indent": 1})
        self._head_of_numbers = book.add_format({**head, "align": "right"})
        self._body = book.add_format({"valign": "top"})
        self._text_form = book.add_format({"valign": "top", "indent": 1})
        self._wrapped = book.add_format({"valign": "top", "text_wrap": True, "indent": 1})
        self._decimals: dict[int, Any] = {}

    def write(self, sheet: Sheet) -> None:
        """Add *sheet*: its head stays in view, and its columns are as wide as their texts."""
        page = self._book.add_worksheet(sheet.name)
        width = max(map(len, [sheet.columns, *sheet.rows]), default=0)
        for at in range(width):
            page.set_column(at, at, _width(sheet, at))
        for at, value in enumerate(sheet.columns):
            form = self._head_of_numbers if _has_numbers(sheet, at) else self._head
            self._cell(page, sheet.name, 0, at, "" if value is None else str(value), form)
        for line, row in enumerate(sheet.rows, bool(sheet.columns)):
            high = max((_lines(value) for value in row if isinstance(value, str)), default=1)
            if high > 1:
                page.set_row(line, min(15 * high, 400))  # LibreOffice does not make it higher by itself
            for at, value in enumerate(row):
                self._cell(page, sheet.name, line, at, value, None)
        page.set_landscape()
        page.fit_to_pages(1, 0)  # printed, a sheet is as wide as a page
        if sheet.columns:
            page.repeat_rows(0)
            page.freeze_panes(1, 0)
            page.autofilter(0, 0, max(len(sheet.rows), 1), len(sheet.columns) - 1)

    def _cell(self, page: Any, name: str, line: int, at: int, value: object, form: Any) -> None:
        where = f"{_letters(at)}{line + 1}"
        if value is None or value == "":
            wrote = page.write_blank(line, at, None, form) if form else 0
        elif isinstance(value, bool):
            wrote = page.write_boolean(line, at, value, self._body)
        elif isinstance(value, Decimal):
            wrote = page.write_number(line, at, float(value), self._with_decimals(value))
        elif isinstance(value, int | float) and self._is_a_number(value, where):
            wrote = page.write_number(line, at, value, self._body)
        elif isinstance(value, float):
            self._notices.count(_NOT_A_NUMBER, f"{where} ({value})")
            wrote = 0
        else:
            said = cleaned(self._text(value, name, where), self._notices)
            if len(said) > MAX_TEXT:
                raise Refused(
                    f"cell {where} of sheet {name!r} has {len(said):,} characters, and a cell holds {MAX_TEXT:,}: "
                    "shorten it, or write it by write_file"
                )
            long = len(said) > _WIDEST or "\n" in said
            wrote = page.write_string(line, at, said, form or (self._wrapped if long else self._text_form))
        if wrote:  # XlsxWriter raises nothing where it writes nothing
            raise Refused(f"cell {where} of sheet {name!r} cannot be written (XlsxWriter says {wrote})")

    def _is_a_number(self, value: float, where: str) -> bool:
        if isinstance(value, float):
            return math.isfinite(value)
        if abs(value) >= 10**_DIGITS:
            self._notices.count(_MANY_DIGITS, f"{where} ({str(value)[:20]})")
            return False
        return True

    def _text(self, value: object, name: str, where: str) -> str:
        if isinstance(value, bytes):
            raise Refused(f"cell {where} of sheet {name!r} holds bytes: give text or a number, or use write_file")
        if isinstance(value, Mapping | list | tuple):
            self._notices.count(_AS_JSON, where)
            try:
                return json.dumps(value, ensure_ascii=False, default=str)
            except (ValueError, RecursionError) as error:
                raise Refused(f"cell {where} of sheet {name!r} cannot be written as JSON ({error})") from None
        return str(value)

    def _with_decimals(self, value: Decimal) -> Any:
        count = max(-int(value.as_tuple().exponent), 0)
        if count not in self._decimals:
            shown = f"0.{'0' * count}" if count else "0"
            self._decimals[count] = self._book.add_format({"valign": "top", "num_format": shown})
        return self._decimals[count]


def _width(sheet: Sheet, at: int) -> float:
    rows = [sheet.columns, *sheet.rows[:_LOOKED_AT]]
    texts = [str(row[at]) for row in rows if at < len(row) and row[at] is not None]
    longest = max((len(line) for said in texts for line in said[:10_000].split("\n")), default=0)
    return min(max(longest + 4, _NARROWEST), _WIDEST + 4)


def _lines(value: str) -> int:
    return sum(max(math.ceil(len(line) / _WIDEST), 1) for line in value[:MAX_TEXT].split("\n"))


def _has_numbers(sheet: Sheet, at: int) -> bool:
    first = next((row[at] for row in sheet.rows if at < len(row) and row[at] not in (None, "")), None)
    return isinstance(first, int | float | Decimal) and not isinstance(first, bool)


def _letters(at: int) -> str:
    """The name of a column, as Excel has it: A for 0, AA for 26."""
    named = ""
    at += 1
    while at:
        at, rest = divmod(at - 1, 26)
        named = chr(ord("A") + rest) + named
    return named
