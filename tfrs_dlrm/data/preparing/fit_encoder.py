"""An encoder whose vocabularies and statistics are those of rows in memory, without a prepared directory."""

from __future__ import annotations

import tempfile

from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.preparing.counting import count
from tfrs_dlrm.data.preparing.engines.local import LocalEngine
from tfrs_dlrm.data.preparing.job import BadRows, PrepareJob
from tfrs_dlrm.data.preparing.workspace import Workspace
from tfrs_dlrm.data.raw.frames import RawInputs, expand_inputs
from tfrs_dlrm.data.raw.parsing import BadRowError
from tfrs_dlrm.messages.arguments import checked
from tfrs_dlrm.schema import Schema


@checked
def fit_encoder(schema: Schema, inputs: RawInputs, *, bad_rows: BadRows = "error") -> Encoder:
    """Returns the encoder that `prepare` would write for the same training rows.

    Its `schema` has the size of every table, and is that of the model. See `dataset` for batches of the rows.

    Args:
      schema: describes the rows.
      inputs: the training rows; see `prepare`.
      bad_rows: `error` stops at the first malformed row, `quarantine` leaves malformed rows out.

    Raises:
      ValueError: the schema's label has `keep_negatives`.
      FileNotFoundError, ValueError, BadRowError: see `prepare`.
    """
    if schema.label.keep_negatives != 1:
        raise ValueError(
            f"fit_encoder takes all rows, and the schema has keep_negatives={schema.label.keep_negatives}; call"
            " prepare(schema, inputs, directory), which drops negatives, or schema.with_keep_negatives(1.0)"
        )
    job = PrepareJob(schema, expand_inputs(inputs, "inputs"), (), 0.0, 0, bad_rows)
    with tempfile.TemporaryDirectory(prefix="fit_encoder-") as directory:
        try:
            schema = count(job, Workspace(directory), LocalEngine(), lambda *_: None, with_labels=True)
        except BadRowError as e:
            mend = (
                "leave such rows out of the data, since dataset(frame) refuses them too;"
                " fit_encoder(..., bad_rows='quarantine') passes them over, as prepare(..., bad_rows='quarantine') does"
            )
            raise BadRowError(e.bad, mend) from None
        return Encoder.from_config(Encoder(schema, directory).get_config())
