"""Trains and evaluates a model; without arguments, the quickstart. With --plan, says what a run would need and take."""

import os
import sys

from absl import flags

from tfrs_dlrm import cli

_QUICKSTART = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "configs", "quickstart.py")
_CONFIG = cli.define_config(_QUICKSTART)
_STRATEGY = cli.define_strategy()
flags.adopt_module_key_flags(cli)
_WORKDIR = flags.DEFINE_string("workdir", "", "Of checkpoints and results; by default runs/NAME after the config.")
_PLAN = flags.DEFINE_bool("plan", False, "Only show the plan of a run on --topology, whose devices need not be here.")
_TOPOLOGY = flags.DEFINE_string("topology", "", "Of --plan: v4-32, mirrored's 8x80GB, parameter_server's 4x64GB, ...")
_PLAN_OUTPUT = flags.DEFINE_string("plan_output", "", "Of --plan: a JSON file to write.")


def plan() -> None:
    """Shows the plan and ends, where that is all that was asked for."""
    if not _PLAN.value:
        if _TOPOLOGY.value or _PLAN_OUTPUT.value:
            raise ValueError("--topology and --plan_output belong to --plan")
        return
    from tfrs_dlrm.tools import planner

    found = planner.plan_run(_CONFIG.value, flags.FLAGS.strategy, _TOPOLOGY.value)
    print("\n".join(planner.lines(found)))
    if _PLAN_OUTPUT.value:
        found.save(_PLAN_OUTPUT.value)
    sys.exit(0)


def main(argv: list[str]) -> None:
    """Runs what the flags say."""
    del argv
    from tfrs_dlrm.distribute.cluster import EXIT_SERVER_LOST, ServerLost
    from tfrs_dlrm.distribute.strategies import distribution_of
    from tfrs_dlrm.programs.progress_bars import PrepareBar
    from tfrs_dlrm.streaming.loop import train_on_stream
    from tfrs_dlrm.training.callbacks import Interrupted
    from tfrs_dlrm.training.loop import train_and_evaluate

    train = train_on_stream if _CONFIG.value.data.source else train_and_evaluate
    workdir = _WORKDIR.value or os.path.join("runs", cli.config_name())
    strategy = _STRATEGY()
    try:
        with PrepareBar() as bar:
            result = train(_CONFIG.value, workdir, strategy, bar, show_progress=True)
    except Interrupted as e:
        print(f"{e}. The same command goes on from there.")
        sys.exit(143)  # as shells report a process ended by SIGTERM
    except ServerLost as e:
        print(f"error: {e}. Once it is back, the same command goes on from the last checkpoint.", file=sys.stderr)
        cli.leave(EXIT_SERVER_LOST)
    if not distribution_of(strategy).is_chief:
        return
    print(f"Done at step {result.step}: {result.reason}.")
    if result.best:
        name = "auc" if "auc" in result.best else "rmse"
        print(f"Best evaluation at step {result.best_step}: {name.upper()} {result.best[name]:.5f}.")
    print(f"Next:\n  python train/evaluate.py --workdir={workdir}")
    print(f"  python export/main.py --workdir={workdir} --output=exports/{os.path.basename(workdir.rstrip('/'))}")
    print(f"  tensorboard --logdir={workdir}/tensorboard")


if __name__ == "__main__":
    cli.run(main, before=plan)
