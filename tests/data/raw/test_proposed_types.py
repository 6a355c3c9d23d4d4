"""The same values are proposed alike whatever their type, and ids that a type has rounded are left out."""

import decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from csv_logs import tokens, write_csv

from tfrs_dlrm.data.raw.infer import infer_schema
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature

COUNT = 120


BIG = [2**63 - 1 - (i % 60) for i in range(COUNT)]  # all the same float64


HASHES = [2**64 - 1 - 12345 * (i % 60) for i in range(COUNT)]


@pytest.mark.parametrize(
    ("values", "kinds", "expected"),
    [
        (BIG, [pa.int64(), pa.decimal128(38, 0), pa.string()], CategoricalFeature("user_id", dtype="int64")),
        (BIG, [pa.int64(), pa.string()], CategoricalFeature("seen", dtype="int64")),  # no number is that large
        (HASHES, [pa.uint64(), pa.decimal256(60, 0), pa.string()], CategoricalFeature("user_id")),
        (
            [None if i % 7 == 0 else 24216 + i % 60 for i in range(COUNT)],
            [
                pa.float64(),
                pa.float32(),
                pa.int32(),
                pa.uint64(),
                pa.decimal128(9, 0),
                pa.decimal128(9, 2),
                pa.string(),
            ],
            CategoricalFeature("user_id", dtype="int64"),
        ),
        ([i % 3 == 0 for i in range(COUNT)], [pa.bool_(), pa.string()], CategoricalFeature("mobile", dtype="int64")),
        ([-1.0, 5.0, -7.0] * 40, [pa.float64(), pa.string(), pa.int8()], CategoricalFeature("user_id")),
        ([1.5, 2.0, 3.25] * 40, [pa.float64(), pa.float16(), pa.string()], DenseFeature("x", transform="standardize")),
    ],
    ids=["large ids", "large numbers", "hashes", "gaps", "booleans", "negative", "numbers"],
)
def test_a_column_is_the_same_in_every_type(tmp_path, values, kinds, expected):
    """The same is proposed for every type, as a file of it and as CSV; each schema reads all others alike."""
    first, read = None, []
    for kind in kinds:
        array = column_of(values, kind)
        table = pa.table({"y": [0, 1] * (COUNT // 2), expected.name: array})
        pq.write_table(table, tmp_path / "log.parquet")
        cells = {k: ["" if v is None else str(v) for v in column] for k, column in table.to_pydict().items()}
        for path in (str(tmp_path / "log.parquet"), write_csv(tmp_path / "log.csv", cells), table):
            schema = infer_schema(path).schema
            found = (*schema.dense, *schema.categorical)[0]
            assert type(found) is type(expected), (kind, path)
            if isinstance(found, CategoricalFeature):
                assert (found.name, found.dtype) == (expected.name, expected.dtype), (kind, path)
            first = first or schema
            read += [tokens(path, first), tokens(path, schema)]
    assert all(tokens == read[0] for tokens in read)
    assert len(set(read[0])) == len({str(v) for v in values})


def column_of(values, kind):
    if kind == pa.string():
        gaps = any(v is None for v in values)  # as pandas writes them
        return pa.array(["" if v is None else str(float(v) if gaps else v) for v in values])
    if pa.types.is_decimal(kind):
        return pa.array([v if v is None else decimal.Decimal(v) for v in values], kind)
    return pa.array(values, pa.uint64() if kind == pa.uint64() else None).cast(kind)


def test_ids_that_a_float_has_rounded_are_named():
    ids = pa.array([2.0**60 + 1024 * (i % 50) for i in range(COUNT)])
    proposal = infer_schema(pa.table({"y": [0, 1] * 60, "user_id": ids, "x": [i % 7 / 4 for i in range(COUNT)]}))
    assert proposal.kinds()["user_id"] == "left out"
    assert "whole numbers that a float cannot tell apart" in proposal.notes["user_id"]
