"""Says what the model of a run has made of its features and tables, in text, JSON and pictures."""

import os

from absl import flags

from tfrs_dlrm import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "The directory of the run.", required=True)
_DATA = flags.DEFINE_string("data", "", "A prepared directory; by default the one that the run trained on.")
_SPLIT = flags.DEFINE_enum("split", "eval", ["eval", "train"], "The rows to measure importance and interactions on.")
_CHECKPOINT = flags.DEFINE_enum("checkpoint", "best", ["best", "latest"], "Which weights.")
_PARTS = flags.DEFINE_list("parts", ["importance", "interactions", "tables"], "What to find out; any of these.")
_FEATURES = flags.DEFINE_list("features", [], "Of importance and interactions; by default all that the model has.")
_EXAMPLES = flags.DEFINE_integer("examples", 50_000, "To measure importance on.", lower_bound=1)
_PAIR_EXAMPLES = flags.DEFINE_integer("interaction_examples", 2_000, "To measure interactions on.", lower_bound=1)
_SEEDS = flags.DEFINE_integer("seeds", 3, "Permutations of the examples, for means and spreads.", lower_bound=1)
_NEIGHBOURS = flags.DEFINE_multi_string("neighbours", [], "TABLE:VALUE, to find the values most like it; repeatable.")
_LABEL = flags.DEFINE_string("label", "", "Of importance and interactions, by name; by default the first.")
_TOP = flags.DEFINE_integer("top", 10, "How many neighbours, pairs, and rows of a table.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", "", "The directory to write; by default explanation/ in the workdir.")


def main(argv: list[str]) -> None:
    """Runs what the flags say."""
    del argv
    from tfrs_dlrm.programs.progress_bars import PrepareBar
    from tfrs_dlrm.stores.files import local_path, write_json
    from tfrs_dlrm.tools.explain.explain import Questions, explain_run
    from tfrs_dlrm.tools.explain.pictures import draw
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
    with PrepareBar() as bar:
        split, which = _SPLIT.value, _CHECKPOINT.value
        found = explain_run(_WORKDIR.value, questions, _DATA.value, split, which, bar)  # type: ignore[arg-type]
    home = Workdir(_WORKDIR.value)
    output = output or home.file("explanation")
    os.makedirs(output, exist_ok=True)
    path = os.path.join(output, "explanation.json")
    write_json(path, found.to_dict())
    pictures = draw(found, output)
    if not _OUTPUT.value:
        home.add([path, *pictures])
        path, *pictures = (home.shown(p) for p in (path, *pictures))
    print(f"{found.checkpoint} on {found.data} ({found.split}), label {found.label}\n\n{found.text(_TOP.value)}")
    print(f"\nWrote {', '.join([path, *pictures])}.")


if __name__ == "__main__":
    cli.run(main)
