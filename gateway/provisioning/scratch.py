"""What an import has to remember of what it has read: on disk, because that can be as much as the files themselves.

Knows: how to keep it in a database file that is gone with the process. Must not know: what a resource is.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType

from gateway.provisioning.rows import Row

_TABLES = """
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    CREATE TABLE seen (key BLOB PRIMARY KEY, digest INTEGER, place TEXT) WITHOUT ROWID;
    CREATE TABLE links (link TEXT PRIMARY KEY, target TEXT) WITHOUT ROWID;
    CREATE TABLE later (number INTEGER PRIMARY KEY, file TEXT, line INTEGER, body BLOB, url TEXT);
"""


class Scratch:
    """Keys that were met, what links of the files stand for here, and rows to be tried again."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)  # a file without a name, which SQLite itself deletes
        self._db.executescript(_TABLES)

    def __enter__(self) -> "Scratch":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._db.close()

    def meet(self, key: bytes, digest: int, place: str) -> tuple[int, str] | None:
        """Note that a key stands at a place; returns digest and place of the first time, None if this is it."""
        added = self._db.execute("INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", (key, digest, place))
        if added.rowcount:
            return None
        found: tuple[int, str] = self._db.execute("SELECT digest, place FROM seen WHERE key = ?", (key,)).fetchone()
        return found

    def add_links(self, links: Iterable[tuple[str, str]]) -> None:
        """Remember what links stand for."""
        self._db.executemany("INSERT OR REPLACE INTO links VALUES (?, ?)", links)

    def find_links(self, links: Iterable[str]) -> Mapping[str, str]:
        """What those of these links stand for that stand for something."""
        ask = "SELECT target FROM links WHERE link = ?"
        found = ((link, self._db.execute(ask, (link,)).fetchone()) for link in links)
        return {link: row[0] for link, row in found if row is not None}

    def put_off(self, row: Row) -> None:
        """Keep a row for later."""
        values = (row.file, row.line, row.body, row.url)
        self._db.execute("INSERT INTO later (file, line, body, url) VALUES (?, ?, ?, ?)", values)

    def take_later(self) -> Iterator[Row]:
        """Every row put off so far, in order, which is then kept no longer."""
        last = self._db.execute("SELECT max(number) FROM later").fetchone()[0] or 0
        number = 0
        while found := self._next(number, last):
            number, file, line, body, url = found
            yield Row(file, line, body, url)
        self._db.execute("DELETE FROM later WHERE number <= ?", (last,))

    def _next(self, number: int, last: int) -> tuple[int, str, int, bytes, str | None] | None:
        ask = "SELECT number, file, line, body, url FROM later WHERE number > ? AND number <= ? ORDER BY number LIMIT 1"
        found: tuple[int, str, int, bytes, str | None] | None = self._db.execute(ask, (number, last)).fetchone()
        return found
