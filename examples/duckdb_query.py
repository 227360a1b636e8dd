"""For analysts with DuckDB: tag an Arrow column, then query the mentions with SQL. `python examples/duckdb_query.py`."""

from __future__ import annotations

from pathlib import Path

import duckdb

import entitymill

ROOT = Path(__file__).parents[1]

tagger = entitymill.load(ROOT / "models" / "demo")
speeches = duckdb.sql(f"SELECT speech, text FROM '{ROOT}/data/state_union.parquet' WHERE year = 2006 LIMIT 20")
texts = speeches.to_arrow_table()
texts = texts.append_column("mentions", tagger(texts["text"]))

print(
    duckdb.sql("""
        SELECT mention.label AS label, mention.entity AS entity, count(*) AS mentions
        FROM (SELECT unnest(mentions) AS mention FROM texts)
        GROUP BY ALL ORDER BY mentions DESC, entity LIMIT 8
    """)
)
