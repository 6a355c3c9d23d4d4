"""Explains a trained model: importance and interactions of features, gates of experts, usage and neighbours of rows."""

import os

from tfrs_dlrm.programs.program_flags import ProgramFlags

FLAGS = ProgramFlags(__doc__)
_WORKDIR = FLAGS.string("workdir", None, "The directory of the run.", required=True)
_DATA = FLAGS.string("data", "", "A prepared directory; by default the one that the run trained on.")
_SPLIT = FLAGS.enum("split", "eval", ["eval", "train"], "The rows to measure importance and interactions on.")
_CHECKPOINT = FLAGS.enum("checkpoint", "best", ["best", "latest"], "The checkpoint to explain.")
_PARTS = FLAGS.texts("parts", ["importance", "interactions", "gates", "tables"], "What to measure; any of these.")
_FEATURES = FLAGS.texts("features", [], "The features for importance and interactions; by default all of the model.")
_EXAMPLES = FLAGS.integer("examples", 50_000, "How many examples to measure importance on.", least=1)
_PAIR_EXAMPLES = FLAGS.integer("interaction_examples", 2_000, "How many examples to measure interactions on.", least=1)
_SEEDS = FLAGS.integer("seeds", 3, "How many permutations of the examples, for means and spreads.", least=1)
_NEIGHBOURS = FLAGS.multi_string(
    "neighbours", "TABLE:VALUE: finds the values with the most similar vectors; may be repeated."
)
_LABEL = FLAGS.string("label", "", "The label for importance and interactions; by default the first.")
_TOP = FLAGS.integer("top", 10, "How many neighbours, pairs and rows of a table to print.", least=1)
_OUTPUT = FLAGS.string("output", "", "The directory to write; by default explanation/ in the workdir.")
FLAGS.stopped = lambda: "Nothing was written: the same command measures again."


def main() -> None:
    """Measures, and writes text, JSON and pictures."""
    from tfrs_dlrm import plots
    from tfrs_dlrm.programs.progress_bars import PrepareBar
    from tfrs_dlrm.stores.files import check_writable_place, local_path, write_json
    from tfrs_dlrm.tools.explain.explain_run import Questions, explain_run
    from tfrs_dlrm.training.run_files import EXPLANATION_DIR, EXPLANATION_FILE
    from tfrs_dlrm.training.workdir import Workdir

    questions = Questions(
        parts=tuple(_PARTS.value),
        features=tuple(_FEATURES.value),
        examples=_EXAMPLES.value,
        interaction_examples=_PAIR_EXAMPLES.value,
        seeds=_SEEDS.value,
        neighbours=tuple(_NEIGHBOURS.value),
        top=_TOP.value,
        label=_LABEL.value,
    )
    output = local_path(_OUTPUT.value)
    check_writable_place(output or _WORKDIR.value)
    with PrepareBar() as bar:
        found = explain_run(_WORKDIR.value, questions, _DATA.value, _SPLIT.value, _CHECKPOINT.value, bar)
    workdir = Workdir(_WORKDIR.value)
    output = output or workdir.file(EXPLANATION_DIR)
    os.makedirs(output, exist_ok=True)
    path = os.path.join(output, EXPLANATION_FILE)
    write_json(path, found.to_dict())
    pictures = plots.save_figures(plots.explanation(found.to_dict()), output)
    if not _OUTPUT.value:
        workdir.add([path, *pictures])
        path, *pictures = (workdir.shown(p) for p in (path, *pictures))
    print(f"{found.checkpoint} on {found.data} ({found.split}), label {found.label}\n\n{found.text(_TOP.value)}")
    print(f"\nWrote {', '.join([path, *pictures])}.")
