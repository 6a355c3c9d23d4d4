"""Trains and evaluates a model; without flags, the quickstart. A run that was killed resumes when started again."""

import os
import shlex

from tfrs_dlrm.programs.commands import command
from tfrs_dlrm.programs.launch import define_strategy
from tfrs_dlrm.programs.program_flags import ProgramFlags

FLAGS = ProgramFlags(__doc__)
_CONFIG = FLAGS.config("quickstart")
_STRATEGY = define_strategy(FLAGS, trains=True)
_BUDGET = FLAGS.string(
    "budget",
    "",
    "With a recipe that has candidates, such as configs/auto.py: the time for all trials and the training of the best,"
    " as in 90s, 10m or 2h; by default search.budget of the recipe.",
)
_WORKDIR = FLAGS.string("workdir", "", "The directory of checkpoints and results; by default runs/RECIPE.")
FLAGS.stopped = lambda: "The same command resumes the run from its last checkpoint, or begins it."


def main() -> None:
    """Trains, from a log or from a stream."""
    from tfrs_dlrm.distribute.strategies import distribution_of
    from tfrs_dlrm.metrics.names import title
    from tfrs_dlrm.programs.many_models import without_tracing_warnings
    from tfrs_dlrm.programs.progress_bars import PrepareBar
    from tfrs_dlrm.programs.resumable import resumable
    from tfrs_dlrm.training.calibration_note import calibration_note
    from tfrs_dlrm.training.loop import train_and_evaluate

    config = _CONFIG.value
    if _BUDGET.value:
        if not config.search.candidates:
            raise ValueError(
                f"--budget={_BUDGET.value}: {_CONFIG.name} has no candidates to try; --config=configs/auto.py has, and"
                " without --budget this recipe is trained to its end"
            )
        config.search.budget = _BUDGET.value
    workdir = _WORKDIR.value or os.path.join("runs", _CONFIG.name)
    strategy = _STRATEGY()
    with resumable("run"), PrepareBar() as bar:
        if config.search.candidates:
            from tfrs_dlrm.tools.search import search_and_train

            with without_tracing_warnings():
                result = search_and_train(config, workdir, strategy, _say, bar, show_progress=True)
        elif config.data.source:
            from tfrs_dlrm.streaming.loop import train_on_stream

            result = train_on_stream(config, workdir, strategy, bar, show_progress=True)
        else:
            result = train_and_evaluate(config, workdir, strategy, bar, show_progress=True)
    if not distribution_of(strategy).is_chief:
        return
    print(f"Done at step {result.step}: {result.reason}.")
    if result.best:
        name = next(name for name in ("auc", "rmse", "log_loss") if name in result.best)
        print(f"Best evaluation at step {result.best_step}: {title(name)} {result.best[name]:.5f}.")
    if note := calibration_note(result.best):
        print(f"{note}. This corrects them:\n  {command('calibrate', f'--workdir={workdir}')}")
    output = f"--output=exports/{os.path.basename(workdir.rstrip('/'))}"
    print(f"Next:\n  {command('evaluate', f'--workdir={workdir}')}")
    print(f"  {command('export', f'--workdir={workdir}', output)}")
    print(f"  {shlex.join(['tensorboard', f'--logdir={workdir}/tensorboard'])}")


def _say(line: str) -> None:
    print(line, flush=True)
