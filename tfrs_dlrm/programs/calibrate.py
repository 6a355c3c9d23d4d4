"""Calibrates the probabilities of a trained run on a part of its evaluation rows, and measures them on the others."""

import os
from typing import Any

from tfrs_dlrm.programs.commands import command
from tfrs_dlrm.programs.program_flags import ProgramFlags

FLAGS = ProgramFlags(__doc__)
_WORKDIR = FLAGS.string("workdir", None, "The directory of the run.", required=True)
_METHOD = FLAGS.enum(
    "method",
    "platt",
    ["platt", "isotonic"],
    "A line through the logits, or a rising curve of many lines, which needs thousands of clicks.",
)
_BY = FLAGS.string("by", "", "A feature with one value: frequent values of it get curves of their own.")
_MIN_EXAMPLES = FLAGS.integer(
    "min_examples", 1000, "How many of the fitted rows such a value has at least; others share one curve.", least=1
)
_SHARE = FLAGS.number("share", 0.5, "The share of the evaluation rows to fit on; the others measure the result.")
_SEED = FLAGS.integer("seed", 0, "The seed of the draw of these rows.")
_LABEL = FLAGS.string("label", "", "The label; by default the first.")
_DATA = FLAGS.string("data", "", "A prepared directory; by default the one that the run trained on.")
_CHECKPOINT = FLAGS.enum("checkpoint", "best", ["best", "latest"], "The checkpoint to calibrate.")
_UNDO = FLAGS.switch("undo", False, "Remove the calibration of the run.")
_SHOWN = (
    *("examples", "label_mean", "prediction_mean", "auc", "log_loss", "normalized_entropy", "calibration"),
    *("expected_calibration_error", "calibration_error_of_equal_bins"),
)
FLAGS.stopped = lambda: "Nothing was written: the same command calibrates again."


def main() -> None:
    """Fits the calibration, prints metrics before and after, and writes it next to the run."""
    from tfrs_dlrm.plots import save_figure
    from tfrs_dlrm.programs.progress_bars import examples_bar
    from tfrs_dlrm.stores.files import check_writable_place
    from tfrs_dlrm.training.calibrate import CalibrationOptions, calibrate
    from tfrs_dlrm.training.evaluation_report import table
    from tfrs_dlrm.training.run_calibration import CALIBRATION_FILE, CALIBRATION_PICTURE, remove_calibration
    from tfrs_dlrm.training.workdir import Workdir

    check_writable_place(_WORKDIR.value)
    home = Workdir(_WORKDIR.value)
    home.config()  # raises if the directory holds no run
    home.claim()
    try:
        if _UNDO.value:
            there = remove_calibration(home)
            home.push()
            print(f"{_WORKDIR.value}: {'the calibration is removed' if there else 'there was no calibration'}.")
            return
        options = CalibrationOptions(
            _METHOD.value, _BY.value, _MIN_EXAMPLES.value, _LABEL.value, _SHARE.value, _SEED.value
        )
        with examples_bar("score") as progress:
            found = calibrate(_WORKDIR.value, options, _DATA.value, _CHECKPOINT.value, progress)
        paths = [home.file(name) for name in (CALIBRATION_PICTURE, CALIBRATION_FILE)]
        save_figure(found.figure(), paths[0])
        found.found.save(home)  # last: the run is calibrated once it is there
        home.push()
    finally:
        home.end()
    calibration, metrics = found.found.calibration, found.found.metrics
    rows = f"{len(found.labels):,} evaluation rows that it was not fitted on"
    print(f"{found.found.checkpoint} of {_WORKDIR.value}, {calibration.method}, on {rows}:\n")
    print(table({when: _shown(column) for when, column in metrics.items()}))
    if calibration.feature:
        own = f"{len(calibration.rows):,} of {found.values:,} values of {calibration.feature}"
        print(f"\nCurves of their own: {own}; the others share one.")
    print(f"\nWrote {' and '.join(home.shown(path) for path in paths)}.\nNext:")
    name = os.path.basename(os.path.abspath(_WORKDIR.value))
    print(f"  {command('export', f'--workdir={_WORKDIR.value}', f'--output=exports/{name}')}")


def _shown(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: metrics[name] for name in _SHOWN if name in metrics}
