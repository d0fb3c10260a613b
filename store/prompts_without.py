"""Copy a version's prompts without some of them; no byte of those is in the new file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imprompt.core.values import Ids
from imprompt.store.database_files import duckdb_errors, remove_database, replace_database
from imprompt.store.databases import STORED, quoted, read_database
from imprompt.store.generation_parameters import has_parameters
from imprompt.store.layout import SPILLED
from imprompt.store.prompts import check_prompts, duckdb_config

# Row ids become dense again, in the same order; a group is named by its first member.
_COPY = f"""
CREATE TABLE fresh.prompts AS
WITH kept AS (
    SELECT row_id AS old_id, group_id, row_number() OVER (ORDER BY row_id) - 1 AS new_id
    FROM {STORED}.main.prompts ANTI JOIN removed USING (row_id)
), named AS (SELECT old_id, new_id, min(new_id) OVER (PARTITION BY group_id) AS new_group FROM kept)
SELECT new_id AS row_id, p.prompt_key, p.text, p.embedded_text, p.source, p.source_key,
    (p.n_submitted + coalesce(g.n_submitted, 0))::BIGINT AS n_submitted, new_group AS group_id,
    (p.n_duplicates + coalesce(g.n_duplicates, 0))::BIGINT AS n_duplicates
FROM named JOIN {STORED}.main.prompts AS p ON p.row_id = named.old_id
LEFT JOIN gained AS g ON g.row_id = named.old_id ORDER BY new_id
"""  # noqa: S608 constants
_COPY_PARAMETERS = f"""
CREATE TABLE fresh.parameters AS
SELECT new_id AS row_id, negative, settings FROM (
    SELECT row_id AS old_id, row_number() OVER (ORDER BY row_id) - 1 AS new_id
    FROM {STORED}.main.prompts ANTI JOIN removed USING (row_id)
) AS kept JOIN {STORED}.main.parameters AS p ON p.row_id = old_id ORDER BY new_id
"""  # noqa: S608 constants


@dataclass(frozen=True, slots=True)
class Gained:
    """The growth of kept rows' counts: (n,) row ids, each once, and what each count gains."""

    row_ids: Ids
    n_submitted: Ids
    n_duplicates: Ids


def write_without(
    source: Path, target: Path, removed: Ids, *, gained: Gained | None = None
) -> None:
    """Write the prompts of the file `source` to the file `target`, without the rows `removed`.

    The file appears whole or not at all. The rows that stay are renumbered from 0, in their order,
    and keep their generation parameters.

    Args:
        source: a finished `prompts.duckdb`.
        target: a `prompts.duckdb` that does not exist yet.
        removed: row ids, each once.
        gained: how much the counts of rows that stay grow.

    Raises:
        StorageFull: the disk is full or may not be written.
        Checksum: the file `source` is damaged.
    """
    # DuckDB spills into the staging folder, which is purged if this process is killed.
    config = {**duckdb_config(), "temp_directory": str(target.parent / SPILLED)}
    partial = target.with_name(f"{target.name}.tmp")
    with duckdb_errors(target), read_database(source, config, files=[target]) as connection:
        remove_database(partial)
        check_prompts(connection, source)
        connection.execute(f"ATTACH {quoted(partial)} AS fresh")
        connection.register("removed", {"row_id": np.asarray(removed, dtype=np.int64)})
        none = np.empty(0, dtype=np.int64)
        taken = gained or Gained(none, none, none)
        counts = {
            "row_id": taken.row_ids,
            "n_submitted": taken.n_submitted,
            "n_duplicates": taken.n_duplicates,
        }
        connection.register("gained", counts)
        connection.execute(_COPY)
        if has_parameters(connection, source):
            connection.execute(_COPY_PARAMETERS)
            if not connection.execute("SELECT count(*) FROM fresh.parameters").fetchall()[0][0]:
                connection.execute("DROP TABLE fresh.parameters")
        connection.execute("CHECKPOINT fresh")  # so that nothing is left in a write-ahead log
        connection.execute("DETACH fresh")
        replace_database(partial, target)
