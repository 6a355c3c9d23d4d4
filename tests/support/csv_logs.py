"""Logs in CSV, column by column, for what is proposed of them."""

import csv
import gzip
import io

import numpy as np
import pyarrow as pa

from tfrs_dlrm.data.encoding.arrow_tensors import to_tensor
from tfrs_dlrm.data.encoding.tokenizer import Tokenizer
from tfrs_dlrm.data.raw import frames, sources
from tfrs_dlrm.data.raw.typed_rows import parse


def write_csv(path, data, delimiter=",", header=True):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerows(([list(data)] if header else []) + list(zip(*data.values(), strict=True)))
    text = out.getvalue()
    path.write_bytes(gzip.compress(text.encode()) if path.name.endswith("gz") else text.encode())
    return str(path)


def with_label(tmp_path, name, values, **more):
    data = {"a": [str(i % 7) for i in range(len(values))], name: list(map(str, values)), **more}
    return write_csv(tmp_path / "log.csv", data)


def tokens(path, schema):
    """What is counted of the only feature of a log."""
    source = path if isinstance(path, str) else frames.Frame(path)
    parts = [parse(block, schema) for block in sources.blocks(source, schema)]
    assert not any(part.bad for part in parts)
    if schema.dense:
        return np.concatenate([part.inputs[schema.dense[0].name] for part in parts]).tolist()
    (feature,) = schema.categorical
    values = pa.concat_arrays([part.inputs[feature.name] for part in parts])
    return Tokenizer(schema).text(to_tensor(values)).numpy().tolist()
