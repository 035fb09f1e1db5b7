"""sqlite in WAL mode with two processes, full-text search, backup; dbm and shelve."""

import dbm.dumb
import multiprocessing
import os
import shelve
import sqlite3
import tempfile
from contextlib import closing

path = os.environ.setdefault("SHOP", os.path.join(tempfile.mkdtemp(), "shop.db"))


def write(start: int) -> None:
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        for n in range(start, start + 40):
            with connection:
                connection.execute("INSERT INTO item VALUES (?, ?)", (n, f"Artikel {n}"))


if __name__ == "__main__":
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        print("mode", connection.execute("PRAGMA journal_mode=WAL").fetchone())
        connection.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)")
        context = multiprocessing.get_context("spawn")
        writers = [context.Process(target=write, args=(n,)) for n in (0, 1000)]
        for writer in writers:
            writer.start()
        counts = [connection.execute("SELECT count(*) FROM item").fetchone()[0] for _ in range(50)]
        for writer in writers:
            writer.join()
        print("codes", [writer.exitcode for writer in writers], "monotone", counts == sorted(counts))
        print("rows", connection.execute("SELECT count(*), sum(id) FROM item").fetchone())
        print("files", sorted(os.listdir(os.path.dirname(path))))
        print("checked", connection.execute("PRAGMA integrity_check").fetchone())
        connection.execute("CREATE VIRTUAL TABLE text USING fts5(body)")
        connection.executemany("INSERT INTO text VALUES (?)", [("the quick fox",), ("a slow fox",), ("snail",)])
        print(
            "search",
            connection.execute("SELECT body FROM text WHERE text MATCH 'fox' ORDER BY rank").fetchall(),
        )
        print("json", connection.execute("SELECT json_extract('{\"a\": [1, 2]}', '$.a[1]')").fetchone())
        connection.create_function("twice", 1, lambda n: n * 2)
        print("function", connection.execute("SELECT twice(21)").fetchone())
        connection.commit()
        with closing(sqlite3.connect(":memory:")) as copy:
            connection.backup(copy)
            print("backup", copy.execute("SELECT max(id) FROM item").fetchone())

    folder = os.path.dirname(path)
    with shelve.open(os.path.join(folder, "shelf")) as shelf:
        shelf["key"] = {"nested": [1, 2, 3]}
    with shelve.open(os.path.join(folder, "shelf")) as shelf:
        print("shelf", dict(shelf))
    with dbm.dumb.open(os.path.join(folder, "dumb"), "c") as table:
        table[b"k"] = b"v"
        print("dbm", table[b"k"])
