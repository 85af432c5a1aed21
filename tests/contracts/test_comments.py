"""Every table and column has a comment, for users of psql and BI tools."""

import asyncpg


async def test_every_table_and_column_has_a_comment(database_url: str) -> None:
    """With its unit or its values; dbmate's own table is not ours to describe."""
    connection = await asyncpg.connect(database_url)
    try:
        bare = await connection.fetch(
            """
            SELECT c.relname, a.attname
            FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
                AND c.relname <> 'schema_migrations' AND col_description(c.oid, a.attnum) IS NULL
            UNION ALL
            SELECT relname, '' FROM pg_class
            WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
                AND relname <> 'schema_migrations' AND obj_description(oid, 'pg_class') IS NULL
            """
        )
        ticks = await connection.fetchval(
            """
            SELECT col_description('insights'::regclass, attnum) FROM pg_attribute
            WHERE attrelid = 'insights'::regclass AND attname = 'cost_usd_ticks'
            """
        )
    finally:
        await connection.close()
    assert bare == []
    assert "10^10 are 1 USD" in ticks
