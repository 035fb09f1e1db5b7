"""openpyxl and pandas: a workbook with formulas, styles, a chart and a sheet from a frame, read back."""

import hashlib
import tempfile
import zipfile
from pathlib import Path

import pandas as pd
from openpyxl import Workbook, load_workbook
from openpyxl.chart import BarChart, Reference
from openpyxl.styles import Font, PatternFill

book = Workbook()
sheet = book.active
sheet.title = "Übersicht"
for row in [("month", "income"), *((f"2024-{m:02}", m * 100.5) for m in range(1, 13))]:
    sheet.append(row)
sheet["B15"] = "=SUM(B2:B13)"
for cell in sheet[1]:
    cell.font = Font(bold=True)
    cell.fill = PatternFill("solid", fgColor="DDEEFF")
chart = BarChart()
chart.add_data(Reference(sheet, min_col=2, min_row=1, max_row=13), titles_from_data=True)
sheet.add_chart(chart, "D2")

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "book.xlsx")
    book.save(path)
    with pd.ExcelWriter(path, engine="openpyxl", mode="a") as writer:
        pd.DataFrame({"a": [1, 2], "b": ["x", "東"]}).to_excel(writer, sheet_name="frame", index=False)
    again = load_workbook(path)
    for name in again.sheetnames:
        print(name, [[cell.value for cell in row] for row in again[name].iter_rows()])
    print("bold", again["Übersicht"]["A1"].font.b, "charts", len(again["Übersicht"]._charts))
    print(pd.read_excel(path, sheet_name="frame").to_dict("records"))
    with zipfile.ZipFile(path) as parts:  # core.xml holds the time of day
        for part in sorted(set(parts.namelist()) - {"docProps/core.xml"}):
            print(part, hashlib.sha256(parts.read(part)).hexdigest()[:16])
