"""BM25 over a tenant's full-text table, without the words that stand everywhere."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_COMMON = 0.1
_KEPT = 2
_DRIFT = 0.1


def table_of(tenant: int) -> str:
    """The name of the tenant's full-text table."""
    return f"words_{int(tenant)}"


@dataclass(slots=True)
class Frequencies:
    """In how many of a tenant's passages a term stands; counted anew when their number has changed by a tenth.

    A term that stands in a tenth of all passages tells little and costs most of the time: it is left out of the
    search as long as two rarer ones remain.
    """

    total: int = 0
    known: dict[str, int] = field(default_factory=dict)

    def telling(
        self, connection: sqlite3.Connection, tenant: int, wanted: Sequence[str], passages: int
    ) -> Sequence[str]:
        """The terms to search for, the rarest first."""
        if abs(passages - self.total) > _DRIFT * self.total:
            self.total, self.known = passages, {}
        known = self.known  # another reader may begin a new one meanwhile
        known.update(_count(connection, tenant, [term for term in wanted if term not in known]))
        found = sorted((known[term], term) for term in wanted if term in known)
        most = _COMMON * max(passages, found[-1][0]) if found else 0
        return [term for place, (count, term) in enumerate(found) if place < _KEPT or count <= most]


def _count(connection: sqlite3.Connection, tenant: int, wanted: Sequence[str]) -> dict[str, int]:
    """Terms that stand nowhere are left out: they must not be remembered, the next document may have them."""
    if not wanted:
        return {}
    table = table_of(tenant)
    connection.execute(
        f"CREATE VIRTUAL TABLE IF NOT EXISTS temp.vocabulary_{tenant} USING fts5vocab(main, {table}, 'row')"
    )
    sql = f"SELECT doc FROM temp.vocabulary_{tenant} WHERE term = ?"  # noqa: S608  a number
    rows = {term: connection.execute(sql, (term,)).fetchone() for term in wanted}
    return {term: int(row[0]) for term, row in rows.items() if row}


def best_words(
    connection: sqlite3.Connection,
    tenant: int,
    wanted: Sequence[str],
    limit: int,
    documents: NDArray[np.int64] | None,
) -> dict[int, float]:
    """Passages with the highest BM25 for any of these terms, of ``documents`` only when given."""
    if not wanted:
        return {}
    table = table_of(tenant)
    match = " OR ".join(f'"{term}"' for term in wanted)  # terms hold letters and digits only
    only, values = "", [match]
    if documents is not None:
        only = " AND rowid IN (SELECT id FROM chunks WHERE document IN (SELECT value FROM json_each(?)))"
        values.append(json.dumps(documents.tolist()))
    rows = connection.execute(
        f"SELECT rowid, -bm25({table}) AS score FROM {table}"  # noqa: S608  a number
        f" WHERE {table} MATCH ?{only} ORDER BY score DESC, rowid LIMIT {int(limit)}",
        values,
    )
    return {int(number): float(score) for number, score in rows}
