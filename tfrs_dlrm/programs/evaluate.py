"""Scores a checkpoint on a prepared set: a table, JSON and a picture."""

import os
import sys

from tfrs_dlrm.programs.commands import command
from tfrs_dlrm.programs.launch import Leave, define_strategy
from tfrs_dlrm.programs.program_flags import ProgramFlags

FLAGS = ProgramFlags(__doc__)
_WORKDIR = FLAGS.string("workdir", None, "The directory of the run.", required=True)
_DATA = FLAGS.string("data", "", "A prepared directory; by default the one that the run trained on.")
_SPLIT = FLAGS.enum("split", "eval", ["eval", "train"], "The rows to score.")
_CHECKPOINT = FLAGS.enum("checkpoint", "best", ["best", "latest"], "The checkpoint to score.")
_STRATEGY = define_strategy(FLAGS)
_OUTPUT = FLAGS.string("output", "", "The directory for evaluation.json and .png; by default the workdir.")
_GROUP_BY = FLAGS.texts("group_by", [], "Features: measures each of their values by itself.")
_GAUC = FLAGS.texts("gauc", [], "Features, such as the user: averages the AUC over their values.")
_RANKING = FLAGS.texts(
    "ranking", [], "Features, such as the query or the user: averages NDCG, MRR, MAP and recall over their values."
)
_K = FLAGS.integer("k", 10, "How many examples of a value NDCG and recall look at.", least=1)
_LABEL = FLAGS.string("label", "", "The label of groups and picture; by default the first.")
_TOP = FLAGS.integer("top", 20, "How many values of each feature to print, the most frequent first.", least=1)
_JSON = FLAGS.string("json", "", "The file for all groups; by default groups.json next to evaluation.json.")
FLAGS.stopped = lambda: "Nothing was written: the same command scores again."


def main() -> None:
    """Scores the checkpoint and its groups, and writes the reports."""
    from tfrs_dlrm.distribute.cluster import ServerLost
    from tfrs_dlrm.distribute.strategies import distribution_of
    from tfrs_dlrm.plots import save_figure
    from tfrs_dlrm.programs.progress_bars import examples_bar
    from tfrs_dlrm.stores.files import check_writable_place, local_path, write_json
    from tfrs_dlrm.training.evaluation import evaluate_run
    from tfrs_dlrm.training.evaluation_report import table
    from tfrs_dlrm.training.groups import Grouping
    from tfrs_dlrm.training.run_files import EVALUATION_FILE, EVALUATION_PICTURE, GROUPS_FILE
    from tfrs_dlrm.training.workdir import Workdir

    output, path = local_path(_OUTPUT.value), local_path(_JSON.value)
    check_writable_place(output or _WORKDIR.value)
    if path:
        check_writable_place(os.path.dirname(path))
    strategy = _STRATEGY()
    grouping = Grouping(_WORKDIR.value, _GROUP_BY.value, _GAUC.value, _LABEL.value, _RANKING.value, _K.value)
    try:
        with examples_bar("evaluate") as progress:
            evaluation = evaluate_run(_WORKDIR.value, _DATA.value, _SPLIT.value, _CHECKPOINT.value, progress, strategy)
    except ServerLost as e:
        print(f"error: {e}", file=sys.stderr)
        raise Leave(1) from e
    if not distribution_of(strategy).is_chief:
        return
    workdir = Workdir(_WORKDIR.value)
    output = output or workdir.path
    os.makedirs(output, exist_ok=True)
    paths = [os.path.join(output, name) for name in (EVALUATION_FILE, EVALUATION_PICTURE)]
    write_json(paths[0], evaluation.to_dict())
    save_figure(evaluation.figure(grouping.label), paths[1])
    print(f"{evaluation.checkpoint} on {evaluation.data} ({_SPLIT.value})\n")
    print(table(evaluation.columns()))
    if evaluation.note:
        print(f"\n{evaluation.note}.")
    for note in evaluation.scores.left_out():
        print(f"\n{note}.")
    if _GROUP_BY.value or _GAUC.value or _RANKING.value:
        groups = grouping.measure(evaluation, _SPLIT.value)
        paths.append(path or os.path.join(output, GROUPS_FILE))
        write_json(paths[-1], groups.to_dict())
        print(f"\n{groups.text(_TOP.value)}")
    if not _OUTPUT.value:
        workdir.add(paths)
        paths = [workdir.shown(path) for path in paths]
    print(f"\nWrote {', '.join(paths[:-1])} and {paths[-1]}.\nNext:")
    name = os.path.basename(os.path.abspath(_WORKDIR.value))
    print(f"  {command('export', f'--workdir={_WORKDIR.value}', f'--output=exports/{name}')}")
