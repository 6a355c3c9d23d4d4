"""Trains and evaluates a DLRM; without arguments, the quickstart."""

import os
import sys

from absl import flags

from tfrs_dlrm import cli

_QUICKSTART = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "configs", "quickstart.py")
_CONFIG = cli.define_config(_QUICKSTART)
_STRATEGY = flags.DEFINE_string("strategy", "one_device", "Where to compute: one_device.")
_TPU = flags.DEFINE_string("tpu", "local", "Of --strategy=tpu: local, the NAME of a Cloud TPU, or grpc://HOST:PORT.")
_WORKDIR = flags.DEFINE_string("workdir", "", "Of checkpoints and results; by default runs/NAME after the config.")


def check() -> None:
    """Ends a run on a TPU that is not there, which TensorFlow might do by a crash or after minutes."""
    if _STRATEGY.value == "tpu":
        from tfrs_dlrm.doctor import check_tpu

        check_tpu(_TPU.value)


def main(argv: list[str]) -> None:
    """Runs what the flags say."""
    del argv
    from tfrs_dlrm.progress import PrepareBar
    from tfrs_dlrm.strategy import make_strategy
    from tfrs_dlrm.training.callbacks import Interrupted
    from tfrs_dlrm.training.loop import train_and_evaluate

    config = _CONFIG.value
    workdir = _WORKDIR.value or os.path.join("runs", cli.config_name())
    try:
        with PrepareBar() as bar:
            strategy = make_strategy(_STRATEGY.value, tpu=_TPU.value)
            result = train_and_evaluate(config, workdir, strategy, bar, show_progress=True)
    except Interrupted as e:
        print(f"{e}. The same command goes on from there.")
        sys.exit(143)  # as shells report a process ended by SIGTERM
    print(f"Done at step {result.step}: {result.reason}.")
    if result.best:
        print(f"Best evaluation at step {result.best_step}: AUC {result.best['auc']:.5f}.")
    print("Next:")
    print(f"  python train/evaluate.py --workdir={workdir}")
    print(f"  python export/main.py --workdir={workdir} --output=exports/{os.path.basename(workdir.rstrip('/'))}")
    print(f"  tensorboard --logdir={workdir}/tensorboard")


if __name__ == "__main__":
    cli.run(main, before=check)
