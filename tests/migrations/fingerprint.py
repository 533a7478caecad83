"""Everything that a schema consists of, as text: two databases with the same lines have the same schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.support.postgres import connected

if TYPE_CHECKING:
    from app.store.engine import Target

_OURS: Final = "n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'"
_LINES: Final = f"""
    SELECT format('relation %s %s persistence=%s partition=%s key=%s', c.relkind, c.oid::regclass, c.relpersistence,
                  pg_get_expr(c.relpartbound, c.oid), pg_get_partkeydef(c.oid))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_OURS} AND c.relkind IN ('r', 'p', 'v', 'm')
    UNION ALL
    SELECT format('column %s.%s #%s %s notnull=%s default=%s identity=%s generated=%s storage=%s collation=%s',
                  a.attrelid::regclass, a.attname, a.attnum, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                  pg_get_expr(d.adbin, d.adrelid), a.attidentity, a.attgenerated, a.attstorage,
                  (SELECT collname FROM pg_collation WHERE oid = a.attcollation))
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE {_OURS} AND c.relkind IN ('r', 'p', 'v', 'm') AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT format('constraint %s %s %s', o.conrelid::regclass, o.conname, pg_get_constraintdef(o.oid))
    FROM pg_constraint o JOIN pg_namespace n ON n.oid = o.connamespace WHERE {_OURS}
    UNION ALL
    SELECT 'index ' || indexdef FROM pg_indexes n WHERE {_OURS.replace("nspname", "schemaname")}
    UNION ALL
    SELECT format('trigger %s enabled=%s', pg_get_triggerdef(t.oid), t.tgenabled)
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE {_OURS} AND NOT t.tgisinternal
    UNION ALL
    SELECT 'function ' || pg_get_functiondef(p.oid) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE {_OURS} AND p.prokind = 'f'
    UNION ALL
    SELECT format('sequence %s %s %s', schemaname, sequencename, data_type)
    FROM pg_sequences n WHERE {_OURS.replace("nspname", "schemaname")}
    UNION ALL
    SELECT format('type %s %s', t.typname, t.typtype) FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
    WHERE {_OURS} AND t.typtype IN ('d', 'e', 'r')
    ORDER BY 1
"""


async def fingerprint(target: Target) -> list[str]:
    """One line for each part, sorted; the rows of gc_review_after_defaults, where it is, among them."""
    async with connected(target) as connection:
        lines = [row[0] for row in await connection.fetch(_LINES)]
        if await connection.fetchval("SELECT to_regclass('gc_review_after_defaults')") is None:
            return lines
        rows = await connection.fetch("SELECT event, value FROM gc_review_after_defaults ORDER BY event")
        return lines + [f"default {event} {value}" for event, value in rows]
