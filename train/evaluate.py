"""Scores a checkpoint on a prepared set: a table, JSON and a picture."""

import os
import sys

from absl import flags

from tfrs_dlrm import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "The directory of the run.", required=True)
_DATA = flags.DEFINE_string("data", "", "A prepared directory; by default the one that the run trained on.")
_SPLIT = flags.DEFINE_enum("split", "eval", ["eval", "train"], "Which rows of it.")
_CHECKPOINT = flags.DEFINE_enum("checkpoint", "best", ["best", "latest"], "Which weights.")
_STRATEGY = cli.define_strategy()
flags.adopt_module_key_flags(cli)
_OUTPUT = flags.DEFINE_string("output", "", "Where to write evaluation.json and .png; by default the workdir.")
_GROUP_BY = flags.DEFINE_list("group_by", [], "Features, separated by commas, to measure each value of.")
_GAUC = flags.DEFINE_list("gauc", [], "Features, such as the user's, to average the AUC over the values of.")
_LABEL = flags.DEFINE_string("label", "", "The label of groups and picture, by name; by default the first.")
_TOP = flags.DEFINE_integer("top", 20, "How many values of each feature to show, the most frequent.", lower_bound=1)
_JSON = flags.DEFINE_string("json", "", "Where to write all groups; by default groups.json beside evaluation.json.")


def main(argv: list[str]) -> None:
    """Runs what the flags say."""
    del argv
    from tfrs_dlrm.distribute.cluster import ServerLost
    from tfrs_dlrm.distribute.strategies import distribution_of
    from tfrs_dlrm.programs.progress_bars import examples_bar
    from tfrs_dlrm.stores.files import local_path
    from tfrs_dlrm.training import evaluation_report as report
    from tfrs_dlrm.training.evaluation import evaluate_run
    from tfrs_dlrm.training.groups import Grouping
    from tfrs_dlrm.training.workdir import Workdir

    output, path = local_path(_OUTPUT.value), local_path(_JSON.value)
    strategy = _STRATEGY()
    grouping = Grouping(_WORKDIR.value, _GROUP_BY.value, _GAUC.value, strategy, _LABEL.value)
    try:
        with examples_bar("evaluate") as progress:
            split, which = _SPLIT.value, _CHECKPOINT.value
            evaluation = evaluate_run(_WORKDIR.value, _DATA.value, split, which, progress, strategy)  # type: ignore[arg-type]
    except ServerLost as e:
        print(f"error: {e}", file=sys.stderr)
        cli.leave(1)
    if not distribution_of(strategy).is_chief:
        return
    home = Workdir(_WORKDIR.value)
    output = output or home.path
    os.makedirs(output, exist_ok=True)
    paths = [os.path.join(output, f"evaluation.{ending}") for ending in ("json", "png")]
    report.write_json(paths[0], evaluation.to_dict())
    evaluation.picture(paths[1], grouping.label)
    print(f"{evaluation.checkpoint} on {evaluation.data} ({_SPLIT.value})\n")
    print(report.table(evaluation.columns()))
    if _GROUP_BY.value or _GAUC.value:
        groups = grouping.measure(evaluation, _SPLIT.value)  # type: ignore[arg-type]
        paths.append(path or os.path.join(output, "groups.json"))
        report.write_json(paths[-1], groups.to_dict())
        print(f"\n{groups.text(_TOP.value)}")
    if not _OUTPUT.value:
        home.add(paths)
        paths = [home.shown(path) for path in paths]
    print(f"\nWrote {', '.join(paths[:-1])} and {paths[-1]}.\nNext:")
    name = os.path.basename(os.path.abspath(_WORKDIR.value))
    print(f"  python export/main.py --workdir={_WORKDIR.value} --output=exports/{name}")


if __name__ == "__main__":
    cli.run(main)
