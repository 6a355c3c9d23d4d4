"""Prepares the data of a run if they are missing, from the raw logs of its configuration."""

from __future__ import annotations

import os

from tfrs_dlrm.config import DataConfig
from tfrs_dlrm.config.recipes import find_schema
from tfrs_dlrm.data.preparing.manifest import MANIFEST_FILE, PreparedManifest
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.data.synthetic.synthetic import EVAL_FILE, PLANTED_FILE, TRAIN_FILE, generate
from tfrs_dlrm.schema import SCHEMA_FILE, Schema
from tfrs_dlrm.stores import Listing, Mirror, Progress, Store, is_store_url, join, local_copy
from tfrs_dlrm.stores.files import read_json, well_formed, write_json

# Metrics to compare with on the evaluation set, {name: {metric: value}}, in the prepared directory.
REFERENCE_FILE = "reference.json"
_THEN = "remove the file, and the log is drawn again"


def ensure_prepared(config: DataConfig, seed: int = 0, progress: Progress | None = None) -> str:
    """Returns the prepared directory, which is made if it is missing; for one in a store, its local copy.

    Synthetic raw logs are kept under `PATH-raw`.

    Raises:
      FileNotFoundError: it is missing, and the configuration names no raw logs.
      ValueError: see `prepare`.
    """
    path = config.path
    if config.synthetic_rows:
        raw = _synthetic_logs(config, progress)
        schema, train, evaluation = (join(raw, f) for f in (SCHEMA_FILE, TRAIN_FILE, EVAL_FILE))
    elif config.raw_train:
        schema, train, evaluation = find_schema(config.schema), config.raw_train, config.raw_eval
    else:
        return _prepared(path, progress)
    # If the data are prepared already, this makes sure that it was done as the configuration says.
    prepare(
        Schema.load(schema),
        train.split(","),
        path,
        eval_inputs=evaluation.split(",") if evaluation else [],
        eval_fraction=config.eval_fraction,
        seed=seed,
        bad_rows=config.bad_rows,  # type: ignore[arg-type]
        progress=progress,
    )
    local = local_copy(path, progress)
    reference = os.path.join(local, REFERENCE_FILE)
    if config.synthetic_rows:
        if not os.path.isfile(reference):
            planted = read_json(join(raw, PLANTED_FILE), _THEN)
            with well_formed(join(raw, PLANTED_FILE), _THEN):
                known = {"examples": planted["rows"], "auc": planted["auc"], "log_loss": planted["log_loss"]}
            write_json(reference, {"planted": known})
        mirror = Mirror(path) if is_store_url(path) else None
        if mirror and REFERENCE_FILE not in (found.files if (found := mirror.listing()) else {}):
            mirror.push()
    return local


def _prepared(path: str, progress: Progress | None) -> str:
    advice = (
        "make it with tfrs-dlrm prepare, or name raw logs in config.data.raw_train and their schema in"
        " config.data.schema"
    )
    try:
        local = local_copy(path, progress)
    except FileNotFoundError as e:
        raise FileNotFoundError(f"config.data.path: {e}; {advice}") from e
    if not os.path.isfile(os.path.join(local, MANIFEST_FILE)):
        raise FileNotFoundError(f"config.data.path={path!r}: the directory holds no prepared data; {advice}")
    PreparedManifest.load(local)  # raises if a file is damaged
    return local


def _synthetic_logs(config: DataConfig, progress: Progress | None) -> str:
    """Returns the directory of synthetic raw logs, which are drawn if they are missing."""
    raw, wanted = f"{config.path}-raw", [config.synthetic_rows, config.synthetic_eval_rows]
    planted = None
    if Listing.read(Store(raw)) if is_store_url(raw) else os.path.isfile(os.path.join(raw, PLANTED_FILE)):
        planted = read_json(join(raw, PLANTED_FILE), _THEN)
    if planted:
        with well_formed(join(raw, PLANTED_FILE), _THEN):
            found = [planted[key] for key in ("train_rows", "rows")]
        if found != wanted:
            raise ValueError(
                f"{raw}: holds {found} synthetic rows, the configuration says {wanted}; remove it and {config.path}"
            )
    else:
        total = config.synthetic_rows + config.synthetic_eval_rows

        def report(rows: int) -> None:
            if progress:
                progress("generate", rows, total, rows)

        # Another process may have drawn them meanwhile, and be reading them.
        generate(raw, config.synthetic_rows, config.synthetic_eval_rows, progress=report, again=False)
    return raw
