"""What `prepare` writes for a Criteo log, by DuckDB's own SQL and by polars: without checks, counts for a next day,
samples, a profile, or anything that survives a kill.

python benchmarks/prepare_peers.py PEER RAW OUTPUT    # RAW as of `train/synthesize.py`, without rows that are malformed

Both read the two files, count the values of each column, number those that are frequent enough by falling count, join
their numbers to the rows, and write Parquet with the columns of `prepare`: labels, log1p of numbers, and ids.
"""

import json
import os
import sys
import time

SPLITS = ("train", "eval")
MISSING = "<missing>"
NUMBERS = [f"I{i}" for i in range(1, 14)]
VALUES = [f"C{i}" for i in range(1, 27)]
COLUMNS = ["label", *NUMBERS, *VALUES]


def least_count(raw: str) -> int:
    """How often a value has to occur to get a number."""
    with open(os.path.join(raw, "schema.json"), encoding="utf-8") as f:
        found = {feature["min_count"] for feature in json.load(f)["categorical"]}
    if len(found) != 1:
        raise ValueError(f"{raw}: all columns need the same min_count; they have {sorted(found)}")
    return int(found.pop())


def by_duckdb(raw: str, output: str) -> int:
    """Returns the rows; DuckDB has a database on the disk, so that the log need not fit the memory."""
    import duckdb

    types = {name: "VARCHAR" if name in VALUES else "FLOAT" for name in COLUMNS}
    read = f"read_csv($path, delim='\t', header=false, quote='', escape='', columns={types})"
    rows = 0
    with duckdb.connect(os.path.join(output, "log.duckdb")) as db:
        for split in SPLITS:
            db.execute(f"CREATE TABLE {split} AS FROM {read}", {"path": os.path.join(raw, f"{split}.tsv")})
            found = db.execute(f"SELECT count(*) FROM {split}").fetchone()
            rows += found[0] if found else 0
        for name in VALUES:
            number = "CAST(row_number() OVER (ORDER BY n DESC, value) AS INTEGER)"
            db.execute(
                f"CREATE TABLE of_{name} AS SELECT value, {number} AS id"
                f" FROM (SELECT coalesce({name}, '{MISSING}') AS value, count(*) AS n FROM train GROUP BY 1)"
                f" WHERE n >= {least_count(raw)}"
            )
        numbers = ", ".join(f"CAST(ln(1 + greatest(coalesce({n}, 0), 0)) AS FLOAT) AS {n}" for n in NUMBERS)
        ids = ", ".join(f"coalesce(of_{n}.id, 0) AS {n}" for n in VALUES)
        for split in SPLITS:
            joins = " ".join(f"LEFT JOIN of_{n} ON coalesce({split}.{n}, '{MISSING}') = of_{n}.value" for n in VALUES)
            rows_of_split = f"SELECT label, {numbers}, {ids} FROM {split} {joins}"
            path = os.path.join(output, f"{split}.parquet")
            db.execute(f"COPY ({rows_of_split}) TO $path (FORMAT parquet, COMPRESSION zstd)", {"path": path})
    return rows


def by_polars(raw: str, output: str) -> int:
    """Returns the rows; polars has the whole log in memory."""
    import polars as pl

    types = {name: pl.String if name in VALUES else pl.Float32 for name in COLUMNS}
    logs = {
        split: pl.read_csv(
            os.path.join(raw, f"{split}.tsv"), separator="\t", has_header=False, schema=types, quote_char=None
        ).with_columns(pl.col(VALUES).fill_null(MISSING), pl.col(NUMBERS).fill_null(0).clip(0).log1p())
        for split in SPLITS
    }
    least = least_count(raw)
    for name in VALUES:
        ids = logs["train"].group_by(name).len().filter(pl.col("len") >= least)
        ids = ids.sort(["len", name], descending=[True, False]).select(name).with_row_index("id", 1)
        ids = ids.with_columns(pl.col("id").cast(pl.Int32))
        for split, log in logs.items():
            joined = log.join(ids, on=name, how="left", maintain_order="left")
            logs[split] = joined.with_columns(pl.col("id").fill_null(0).alias(name)).drop("id")
    for split, log in logs.items():
        log.write_parquet(os.path.join(output, f"{split}.parquet"), compression="zstd")
    return sum(map(len, logs.values()))


PEERS = {"duckdb": by_duckdb, "polars": by_polars}


if __name__ == "__main__":
    peer, source, target = sys.argv[1:]
    os.makedirs(target)
    begin = time.perf_counter()
    count = PEERS[peer](source, target)
    print("RESULT", count, time.perf_counter() - begin)
