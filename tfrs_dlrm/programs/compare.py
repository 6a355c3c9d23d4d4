"""Trains several models on the same data with several seeds, and compares them side by side."""

import dataclasses
import os

from tfrs_dlrm.programs.program_flags import ProgramFlags

FLAGS = ProgramFlags(__doc__)
_CONFIG = FLAGS.config("quickstart")
_MODELS = FLAGS.texts(
    "models",
    [],
    "The models, each as [LABEL@]NAME[:SECTION.FIELD=VALUE]..., or lightgbm; by default the candidates of the"
    " recipe, as configs/auto.py has, or logistic_regression,factorization_machine,dlrm.",
)
_SIZES = FLAGS.string("sizes", "", "The NAME of one model, to compare several sizes of it in place of --models.")
_DATA = FLAGS.string("data", "", "A prepared directory; by default data.path of the recipe.")
_SEEDS = FLAGS.integer("seeds", 5, "How many runs of each model.", least=1)
_BUDGET = FLAGS.integer("budget", 0, "How many trials of learning rates and regularization for each model.", least=0)
_SHARE = FLAGS.number("trial_share", 1.0, "The length of a trial as a share of the length of a run.")
_MEASURE = FLAGS.switch("measure", True, "Measures the time of train steps and of the exported model.")
_OUTPUT = FLAGS.string("output", "", "The directory of runs and report; by default runs/compare-RECIPE.")
FLAGS.stopped = lambda: "Finished runs are kept: the same command resumes the comparison."


def main() -> None:
    """Trains the models, and writes a table, JSON and pictures."""
    from tfrs_dlrm import plots
    from tfrs_dlrm.programs.many_models import without_tracing_warnings
    from tfrs_dlrm.programs.progress_bars import PrepareBar
    from tfrs_dlrm.programs.resumable import resumable
    from tfrs_dlrm.stores.files import local_path, write_json
    from tfrs_dlrm.tools import comparison

    config = _CONFIG.value
    if _DATA.value:
        config.data.path, config.data.synthetic_rows, config.data.raw_train = _DATA.value, 0, ""
    output = local_path(_OUTPUT.value) or os.path.join("runs", f"compare-{_CONFIG.name}")
    models = _MODELS.value or config.search.candidates or ("logistic_regression", "factorization_machine", "dlrm")
    if _SIZES.value:
        models = comparison.sizes(_SIZES.value, config)
    found = comparison.contestants(config, models)
    options = comparison.ComparisonOptions(_SEEDS.value, _BUDGET.value, _SHARE.value, _MEASURE.value)

    def say(line: str) -> None:
        print(line, flush=True)

    with resumable("comparison"), PrepareBar() as bar, without_tracing_warnings():
        outcomes, costs = comparison.compare(found, output, options, say, bar, show_progress=True)
    summary = comparison.summary(outcomes, costs)
    write_json(os.path.join(output, "compare.json"), summary)
    curves = plots.comparison_curves([dataclasses.asdict(outcome) for outcome in outcomes])
    pictures = plots.save_figures({"quality": plots.comparison(summary), "curves": curves}, output)
    print(f"\n{comparison.table(summary)}\n")
    print(
        f"Measured on {config.data.path}, on the half of its evaluation set that no choice saw, with {_SEEDS.value}"
        " seeds and the last checkpoint of each run."
    )
    print(f"Wrote {os.path.join(output, 'compare.json')}, {' and '.join(pictures)}.")
