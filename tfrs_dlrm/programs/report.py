"""Writes one HTML page on a run: data, model, training, evaluation, features, and checks of a bundle."""

import os

from tfrs_dlrm.programs.program_flags import ProgramFlags

FLAGS = ProgramFlags(__doc__)
_WORKDIR = FLAGS.string("workdir", None, "The directory of the run.", required=True)
_DATA = FLAGS.string("data", "", "A prepared directory; by default the one that the run trained on.")
_SPLIT = FLAGS.enum("split", "eval", ["eval", "train"], "The rows to score.")
_CHECKPOINT = FLAGS.enum("checkpoint", "best", ["best", "latest"], "The checkpoint to report on.")
_GROUP_BY = FLAGS.texts(
    "group_by", [], "Features: shows each of their values by itself; by default the three with the fewest values."
)
_EXAMPLES = FLAGS.integer(
    "examples", 10_000, "How many examples to measure importance on if explain has not; 0 leaves it out.", least=0
)
_BUNDLE = FLAGS.string("bundle", "", "A bundle, or the directory of its versions, whose checks the page shows.")
_LATENCY = FLAGS.switch("latency", True, "Measures the latency of the bundle, which takes some seconds.")
_OUTPUT = FLAGS.string("output", "", "The HTML file; by default report.html in the workdir.")
FLAGS.stopped = lambda: "Nothing was written: the same command makes the page again."


def main() -> None:
    """Scores the checkpoint, and writes the page."""
    from tfrs_dlrm.programs.progress_bars import PrepareBar
    from tfrs_dlrm.stores.files import check_writable_place, local_path, write_text
    from tfrs_dlrm.tools.report.findings import ReportOptions, examine
    from tfrs_dlrm.tools.report.page import page
    from tfrs_dlrm.training.run_files import REPORT_FILE
    from tfrs_dlrm.training.workdir import Workdir

    output = local_path(_OUTPUT.value)
    check_writable_place(os.path.dirname(output) if output else _WORKDIR.value)
    options = ReportOptions(
        data=_DATA.value,
        split=_SPLIT.value,
        which=_CHECKPOINT.value,
        group_by=tuple(_GROUP_BY.value),
        examples=_EXAMPLES.value,
        bundle=_BUNDLE.value,
        latency=_LATENCY.value,
    )
    with PrepareBar() as bar:
        found = examine(_WORKDIR.value, options, bar)
    workdir = Workdir(_WORKDIR.value)
    path = output or workdir.file(REPORT_FILE)
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    write_text(path, page(found))
    if not output:
        workdir.add([path])
        path = workdir.shown(path)
    if found.verification and not found.verification.passed:
        print(f"{_BUNDLE.value}: checks of the bundle failed; the page names them.")
    print(f"Wrote {path}.")
