"""What PostgreSQL is asked at once: each way to the server and back takes longer than the work that is done there.

SQLite does not know such statements, and does not need them: no way leads there.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Executable, bindparam, func, insert, select, true, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.selectable import TableValuedAlias

from isorun.service.store.tables import IS_OPEN, USED, events, runs

_NAMES = ("stream", "seq", "conversation_id", "conversation_seq", "kind", "at", "turn", "data")


def _happened() -> TableValuedAlias:
    """The events as rows. Each column is an array: of JSON that holds them all, PostgreSQL refuses some texts."""
    columns = [bindparam(f"all_{name}", type_=ARRAY(events.c[name].type)) for name in _NAMES]
    return (
        func.unnest(*columns)
        .table_valued(
            *(events.c[name] for name in _NAMES),
        )
        .render_derived(name="happened")
    )


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {f"all_{name}": [row[name] for row in rows] for name in _NAMES}


def _begin() -> Executable:
    used = USED.cte("used")
    allowed = [used.c[name] < bindparam(f"most_{name}", type_=BigInteger) for name in ("now", "since", "bytes")]
    new = select(*(bindparam(f"new_{one.name}", type_=one.type) for one in runs.c)).where(*allowed)
    run = insert(runs).from_select(list(runs.c), new).returning(runs.c.id).cte("run")
    happened = _happened()
    told = insert(events).from_select(_NAMES, select(happened).select_from(run.join(happened, true()))).cte("told")
    return select(used).add_cte(run, told)


_BEGIN = _begin()


def begin(
    row: Mapping[str, Any], first: Sequence[Mapping[str, Any]], *, since: str, most: Mapping[str, int]
) -> tuple[Executable, dict[str, Any]]:
    """Store a run with its first events if its user has less than *most*; it gives what the user had before."""
    new = {f"new_{name}": value for name, value in row.items()}
    bounds = {f"most_{name}": value for name, value in most.items()}
    return _BEGIN, {**new, **bounds, **_columns(first), "of": row["user_id"], "since": since}


@cache
def _add(changed: frozenset[str]) -> Executable:
    if changed:
        values = {name: bindparam(f"to_{name}", type_=runs.c[name].type) for name in changed}
        run = update(runs).where(IS_OPEN).values(values).returning(runs.c.id).cte("run")
    else:
        run = select(runs.c.id).where(IS_OPEN).with_for_update().cte("run")
    told = _happened()
    return insert(events).from_select(_NAMES, select(told).select_from(run.join(told, true())))


def add(run: str, rows: Sequence[Mapping[str, Any]], changes: Mapping[str, Any]) -> tuple[Executable, dict[str, Any]]:
    """Store events and changes of a run that is open; its row count is 0 if the run is not."""
    to = {f"to_{name}": value for name, value in changes.items()}
    return _add(frozenset(changes)), {"run": run, **to, **_columns(rows)}
