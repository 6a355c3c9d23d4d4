"""One value in all the ways in which logs, messages and requests write it."""

import dataclasses
import decimal

import pyarrow as pa


@dataclasses.dataclass(frozen=True)
class Spellings:
    """The ways to write one value.

    Attributes:
      texts: as fields of text files, and as values of string columns.
      columns: as the only value of an Arrow column.
      json: in JSON.
    """

    texts: tuple[str, ...]
    columns: tuple[pa.Array, ...]
    json: tuple[str, ...]


def _columns(number, *kinds):
    return tuple(pa.array([number]).cast(kind) for kind in kinds)


def _decimals(number, *kinds):
    return tuple(pa.array([decimal.Decimal(number)], kind) for kind in kinds)


UNSIGNED = (pa.uint16(), pa.uint32(), pa.uint64())
WIDE_DECIMALS = (pa.decimal128(20, 0), pa.decimal128(22, 2), pa.decimal256(50, 0))

# Whole numbers.
ID = Spellings(
    ("24216", "24216.0", "24216.00", "24216."),
    (
        *_columns(24216, pa.int16(), pa.int32(), pa.int64(), *UNSIGNED, pa.float32(), pa.float64()),
        *_decimals(24216, pa.decimal128(5, 0), *WIDE_DECIMALS),
    ),
    ("24216", "24216.0", '"24216"', '"24216.0"'),
)
NEGATIVE = Spellings(
    ("-7", "-7.0"),
    (*_columns(-7, pa.int8(), pa.int64(), pa.float16(), pa.float64()), *_decimals(-7, *WIDE_DECIMALS)),
    ("-7", "-7.0", '"-7"', '"-7.0"'),
)
LARGEST = Spellings(
    ("9223372036854775807", "9223372036854775807.0"),
    (*_columns(2**63 - 1, pa.int64(), pa.uint64()), *_decimals(2**63 - 1, *WIDE_DECIMALS)),
    ("9223372036854775807", '"9223372036854775807"'),
)
# Its neighbour: the same float64.
NEXT_TO_LARGEST = Spellings(
    ("9223372036854775806",),
    (*_columns(2**63 - 2, pa.int64(), pa.uint64()), *_decimals(2**63 - 2, *WIDE_DECIMALS)),
    ("9223372036854775806", '"9223372036854775806"'),
)
SMALLEST = Spellings(
    ("-9223372036854775808",), _columns(-(2**63), pa.int64()), ("-9223372036854775808", '"-9223372036854775808"')
)
# Whole numbers above int64, which are text.
HASH = Spellings(
    ("15652602323569097734", "15652602323569097734.0"),
    (pa.array([15652602323569097734], pa.uint64()), *_decimals(15652602323569097734, *WIDE_DECIMALS)),
    ("15652602323569097734", '"15652602323569097734"'),
)
NEXT_TO_HASH = Spellings(
    ("15652602323569097735",),
    (pa.array([15652602323569097735], pa.uint64()),),
    ("15652602323569097735", '"15652602323569097735"'),
)
YES = Spellings(("True", "true", "TRUE"), (pa.array([True]),), ("true", '"true"', '"True"', '"TRUE"'))
NO = Spellings(("False", "false", "FALSE"), (pa.array([False]),), ("false", '"false"', '"False"', '"FALSE"'))
ONE = Spellings(
    ("1", "1.0"),
    (*_columns(1, pa.int8(), pa.uint64(), pa.float32()), *_decimals(1, *WIDE_DECIMALS)),
    ("1", "1.0", '"1"'),
)
ZERO = Spellings(
    ("0", "0.0"),
    (*_columns(0, pa.int8(), pa.uint64(), pa.float32()), *_decimals(0, *WIDE_DECIMALS)),
    ("0", "0.0", '"0"'),
)
# Texts that look like numbers.
CODE = Spellings(("007",), (pa.array(["007"]), pa.array([b"007"]), pa.array(["007"]).dictionary_encode()), ('"007"',))
HALF = Spellings(
    ("0.5",),
    (*_columns(0.5, pa.float16(), pa.float32(), pa.float64()), *_decimals("0.5", pa.decimal128(9, 4))),
    ("0.5", '"0.5"'),
)
NOTHING = Spellings(
    ("",),
    (
        pa.array([None], pa.int64()),
        pa.array([None], pa.float64()),
        pa.array([float("nan")]),
        pa.array([None], pa.string()),
        pa.nulls(1),
    ),
    ("null", '""', "NaN"),
)


def joined(*values: Spellings) -> Spellings:
    """Several ways to write the same value as one."""
    return Spellings(*(tuple(x for v in values for x in getattr(v, f.name)) for f in dataclasses.fields(Spellings)))
