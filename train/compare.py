"""Trains several models on the same data, with several seeds, and puts them beside each other."""

import os
import sys

from absl import flags

from tfrs_dlrm import cli

_QUICKSTART = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "configs", "quickstart.py")
_CONFIG = cli.define_config(_QUICKSTART)
flags.adopt_module_key_flags(cli)
_MODELS = flags.DEFINE_list(
    "models", ["logistic_regression", "factorization_machine", "dlrm"], "[LABEL@]NAME[:SECTION.FIELD=VALUE]... each."
)
_SIZES = flags.DEFINE_string("sizes", "", "One model's NAME, to be compared in several sizes, in place of --models.")
_DATA = flags.DEFINE_string("data", "", "A prepared directory; by default that of the config.")
_SEEDS = flags.DEFINE_integer("seeds", 5, "Runs of each model.", lower_bound=1)
_BUDGET = flags.DEFINE_integer("budget", 0, "Trials of learning rates and regularization for each.", lower_bound=0)
_SHARE = flags.DEFINE_float("trial_share", 1.0, "The length of a trial as a share of a run's.")
_MEASURE = flags.DEFINE_bool("measure", True, "Whether to time train steps and the exported model.")
_OUTPUT = flags.DEFINE_string("output", "", "Of runs and report; by default runs/compare-NAME after the config.")


def main(argv: list[str]) -> None:
    """Runs what the flags say."""
    del argv
    import tensorflow as tf

    from tfrs_dlrm.programs.progress_bars import PrepareBar
    from tfrs_dlrm.stores.files import local_path, write_json
    from tfrs_dlrm.tools import comparison
    from tfrs_dlrm.training.callbacks import Interrupted

    tf.get_logger().setLevel("ERROR")  # it would warn that each of many models is traced
    config = _CONFIG.value
    if _DATA.value:
        config.data.path, config.data.synthetic_rows, config.data.raw_train = _DATA.value, 0, ""
    output = local_path(_OUTPUT.value) or os.path.join("runs", f"compare-{cli.config_name()}")
    models = comparison.sizes(_SIZES.value, config) if _SIZES.value else _MODELS.value
    found = comparison.contestants(config, models)
    options = comparison.Options(_SEEDS.value, _BUDGET.value, _SHARE.value, _MEASURE.value)

    def say(line: str) -> None:
        print(line, flush=True)

    try:
        with PrepareBar() as bar:
            outcomes, costs = comparison.compare(found, output, options, say, bar, show_progress=True)
    except Interrupted as e:
        print(f"{e}. The same command goes on from there.")
        sys.exit(143)
    summary = comparison.summary(outcomes, costs)
    write_json(os.path.join(output, "compare.json"), summary)
    pictures = comparison.draw(outcomes, summary, output)
    print(f"\n{comparison.table(summary)}\n")
    print(
        f"On {config.data.path}: the odd rows of its evaluation set, {_SEEDS.value} seeds, the last checkpoint of each."
    )
    print(f"Wrote {os.path.join(output, 'compare.json')}, {' and '.join(pictures)}.")


if __name__ == "__main__":
    cli.run(main)
