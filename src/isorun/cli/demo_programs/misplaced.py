"""Writes the report that it promised, to a folder where nobody looks for it."""
# ruff: noqa: F821, T201 - OUT is a name that every program finds

(OUT / "report.md").write_text("# Penguins\n")  # type: ignore[name-defined]  # see above
print("wrote report.md")
