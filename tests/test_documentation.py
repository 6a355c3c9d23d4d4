"""The programs of the README and the docs, run as they stand there."""

import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_model
import tensorflow as tf
import tf_keras as keras
import yaml

import tfrs_dlrm as td
from tfrs_dlrm.config import MODELS, DataConfig, RunConfig, as_model
from tfrs_dlrm.programs import launch
from tfrs_dlrm.programs.commands import SCRIPTS

ROOT = Path(__file__).parents[1]


def fenced(path, language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / path).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def log(tmp_path):
    """clicks.csv with the columns that the docs say, in an otherwise empty directory."""
    rng = np.random.default_rng(0)
    lines = ["clicked,price,age,site,user,slot,tags"]
    for _ in range(3000):
        site, tags = int(rng.zipf(1.6)) % 20, rng.integers(0, 4, rng.integers(0, 3))
        click = rng.random() < 1 / (1 + np.exp(1 - (site % 3) - (tags == 1).sum()))
        age = "" if rng.random() < 0.2 else str(rng.integers(18, 70))
        tag_text = "|".join(f"t{t}" for t in tags)
        lines.append(
            f"{int(click)},{rng.exponential(5):.2f},{age},s{site},u{rng.integers(200)},{rng.integers(1, 5)},{tag_text}"
        )
    (tmp_path / "clicks.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def run(cwd, *command):
    done = subprocess.run([sys.executable, *command], cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture
def call(log, monkeypatch, capfd):
    """Runs a command of a page, in this process and beside the log; returns its output and its messages."""
    monkeypatch.chdir(log)
    names = {f"python {script}": name for name, script in SCRIPTS.items()}

    def program(start, name, *arguments):
        capfd.readouterr()
        arguments = [a.replace("configs/", f"{ROOT}/configs/") for a in arguments]
        code = launch.call(names.get(f"{start} {name}", name), arguments)
        shown = capfd.readouterr()
        assert code == 0, f"{name} {arguments}\n{shown.out[-1000:]}\n{shown.err[-3000:]}"
        return shown

    return program


@pytest.mark.parametrize(
    "page", ["README.md", pytest.param("docs/start/in-your-own-code.md", marks=pytest.mark.matrix)]
)
def test_the_programs_in_your_own_code(log, page, monkeypatch, capsys):
    (program,) = fenced(page, "python")
    assert len([line for line in program.splitlines() if line.strip()]) < 25
    monkeypatch.chdir(log)
    exec(program, {})
    auc = float(re.search(r"'auc': (0\.\d+)", capsys.readouterr().out).group(1))
    assert auc > 0.65
    assert os.path.isfile(log / "exports" / "clicks" / "1" / "saved_model.pb")


@pytest.mark.matrix
def test_the_page_on_dataframes(log, monkeypatch, capsys):
    in_memory, prepared = fenced("docs/start/from-a-dataframe.md", "python")
    monkeypatch.chdir(log)
    names = {}
    exec(in_memory, names)
    assert sorted(path.name for path in log.iterdir()) == ["clicks.csv", "clicks.keras"]
    expected = names["raw"].predict(names["encoder"].raw_inputs(names["held_out"]), verbose=0)
    (log / "clicks.csv").unlink()
    again = keras.models.load_model("clicks.keras")
    found = again.predict(names["encoder"].raw_inputs(names["held_out"]), verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    exec(prepared, names)
    assert float(re.search(r"'auc': (0\.\d+)", capsys.readouterr().out).group(1)) > 0.6
    assert (log / "exports" / "clicks" / "1" / "saved_model.pb").is_file()


@pytest.mark.matrix
def test_the_page_on_the_quickstart(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (commands,) = fenced("docs/start/quickstart.md", "bash")
    small = ["--config.data.synthetic_rows=3000", "--config.data.synthetic_eval_rows=500", "--config.train.steps=4"]
    for command in commands.splitlines():
        program, name, *arguments = shlex.split(command)
        code = launch.call(name, [*arguments, *(small if name == "train" else [])])
        assert (program, code) == ("tfrs-dlrm", 0), capfd.readouterr()
    for folder in ("data/quickstart-raw", "data/quickstart", "runs/quickstart", "exports/quickstart/1"):
        assert f"| `{folder}/` |" in (ROOT / "docs/start/quickstart.md").read_text() and (tmp_path / folder).is_dir()


def test_the_readme_is_short_and_has_the_commands_of_the_page_on_your_own_data():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
    (commands,) = fenced("README.md", "bash")
    assert commands == "".join(fenced("docs/start/your-own-data.md", "bash"))


def masked(line):
    """A printed line without its numbers, which differ between machines, and without the spaces between columns."""
    return re.sub(r"[0-9][0-9.,]*(?:e-?[0-9]+)?", "#", " ".join(line.split()))


@pytest.mark.matrix
def test_the_page_on_your_own_data(tmp_path, call):
    """The commands run on the file that the page draws, and print what the page shows, but for numbers."""
    page = "docs/start/your-own-data.md"
    (draw,) = fenced(page, "python")
    exec(draw, {})
    commands = [command.split() for command in fenced(page, "bash")]
    for command, text in zip(commands, fenced(page, "text"), strict=True):
        shown = call(*command)
        printed = {masked(line) for line in (shown.out + shown.err).replace("\r", "\n").splitlines()}
        stale = [line for line in text.splitlines() if line != "..." and masked(line) not in printed]
        assert not stale, f"{command}: not printed:\n" + "\n".join(stale) + f"\n{shown.out}{shown.err}"
    assert (tmp_path / "runs" / "clicks" / "evaluation.png").is_file()
    # The request that the page sends, to the model that the server would load.
    (body,) = re.findall(r"curl -d '(.*?)'", (ROOT / page).read_text(encoding="utf-8"))
    (instance,) = json.loads(body)["instances"]
    answer = tf.saved_model.load("exports/clicks/1").signatures["serving_default"]
    kinds = answer.structured_input_signature[1]
    assert set(instance) == set(kinds)
    given = {name: tf.constant([value], kinds[name].dtype) for name, value in instance.items()}
    assert 0 < answer(**given)["probability"].numpy()[0] < 1
    # The page's own schema describes the same file.
    schema, *_ = fenced(page, "json")  # others show single features
    (tmp_path / "clicks.json").write_text(schema)
    call(*commands[1][:-1], "--output=data/written")


def test_the_page_on_models_has_every_model_and_flags_that_there_are():
    page = (ROOT / "docs/guides/models.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^\| \[`(\w+)`\]", page, re.MULTILINE)) == (*list(MODELS)[1:], "dlrm")
    commands = re.findall(r"^    python train/main.py(.*)$", page.replace("\\\n", " "), re.MULTILINE)
    named = set()
    for command in commands:
        config = RunConfig(DataConfig(path="x"))
        for field, value in re.findall(r"--config\.model\.(\w+)=(\S+)", command):
            assert field in {f.name for f in dataclasses.fields(config.model)}
            if field == "name":
                config.model = as_model(config.model, value)
            setattr(config.model, field, yaml.safe_load(value))
        config.check()
        named.add(config.model.name)
    assert named == set(MODELS)


def test_the_page_on_checkpoints(tmp_path, monkeypatch, capsys):
    own_code, _, keras_code, _, plain = fenced("docs/guides/checkpoints.md", "python")
    monkeypatch.chdir(tmp_path)
    made = []

    def make_model():
        made.append(small_model.make(seed=len(made)))
        return made[-1]

    exec(own_code, {"td": td, "make_model": make_model})
    assert len(made) == 2
    small_model.assert_equal(*(small_model.everything(model) for model in made))
    names = {"keras": keras, "model": made[0]}
    exec(keras_code, names)
    small_model.assert_equal(*(small_model.everything(model) for model in (made[0], names["model"])))
    (tmp_path / "runs/clicks/best").mkdir(parents=True)
    (tmp_path / "checkpoints/monday").rename("runs/clicks/best/step-7")
    assert "tfrs_dlrm" not in plain
    exec(plain, {})
    shown = capsys.readouterr().out
    assert "'slots/site/accumulator': [300]" in shown and "bottom_mlp/dense_layers/0/kernel" in shown


@pytest.mark.process
def test_the_page_on_strategies(log):
    (program,) = fenced("docs/guides/strategies.md", "python")
    categorical = (td.CategoricalFeature("site"), td.CategoricalFeature("tags", separator="|"))
    schema = td.Schema(td.Label("clicked"), (td.DenseFeature("price"),), categorical).with_dim(8)
    td.prepare(schema, [str(log / "clicks.csv")], str(log / "data/clicks"), eval_fraction=0.2)
    run(log, "-c", program)
    manifest = json.loads((log / "clicks-checkpoint" / "manifest.json").read_text())
    assert manifest["step"] == 20


def test_the_page_on_embeddings():
    page = "docs/guides/embeddings.md"
    (histories, options), (compile_call, rates) = fenced(page, "json"), fenced(page, "python")
    first, schema = (
        td.Schema.from_json(json.dumps(json.loads(text) | {"label": {"column": "clicked"}}))
        for text in (histories, options)
    )
    assert [f.table for f in first.categorical] == ["item", "category"] * 2
    td.DLRM(first.with_vocabulary_sizes({"item": 60, "category": 9}).with_dim(8), top_mlp=(8, 1)).build()
    model = td.DLRM(schema.with_vocabulary_sizes({"user": 50, "item": 60, "site": 70}), top_mlp=(8, 1))
    exec(compile_call, {"model": model, "keras": keras, "td": td})
    assert {n: (tuple(v.shape), v.dtype.name) for n, v in model.embeddings.tables.items()} == {
        "shared": ((1_000_000, 8), "float32"),
        "site": ((70, 16), "bfloat16"),
    }
    exec(rates, {"model": model, "keras": keras})
    assert model.embedding_optimizer.learning_rate == pytest.approx(0.01)


def test_the_page_on_reports(tmp_path, monkeypatch):
    (program,) = fenced("docs/guides/report.md", "python")
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    assert (tmp_path / "scores.svg").read_text().count("negative") == 1
    page = (ROOT / "docs/guides/report.md").read_text()
    assert not [name for name in td.plots.__all__ if f"`{name}`" not in page and not name.startswith("save_")]


@pytest.mark.matrix
def test_the_warm_start_of_the_page_on_embeddings(log, call):
    page = "docs/guides/embeddings.md"
    (warm_start,) = fenced(page, "bash")
    prepare, train = (command.split() for command in warm_start.replace("\\\n", "").strip().splitlines())
    clicks, *_ = fenced("docs/start/your-own-data.md", "json")
    (log / "clicks.json").write_text(clicks)
    call(*(a.replace("_tuesday", "").replace("tuesday", "monday") for a in prepare))
    (log / "clicks_tuesday.csv").write_text((log / "clicks.csv").read_text().replace(",s1,", ",s999,"))
    call(*prepare)
    short = "--config.train.epochs=1"
    call(*(a.replace("tuesday", "monday") for a in train if "warm_start" not in a), short)
    said = r"warm start from runs/monday/best/step-\d+: [0-9,]+ rows of tables kept, 1 new, 1 dropped"
    assert re.search(said, call(*train, short).err)


@pytest.mark.matrix
def test_the_page_on_other_libraries(log, monkeypatch):
    page = "docs/start/coming-from.md"
    monkeypatch.chdir(log)
    rng = np.random.default_rng(0)
    shapes = {f"emb_l.{i}": (9 + i, 16) for i in range(26)}
    shapes |= {"bot_l.0": (512, 13), "bot_l.2": (256, 512), "bot_l.4": (64, 256), "bot_l.6": (16, 64)}
    shapes |= {"top_l.0": (512, 16 + 27 * 26 // 2), "top_l.2": (256, 512), "top_l.4": (1, 256)}
    state = {f"{name}.weight": rng.normal(size=shape) for name, shape in shapes.items()}
    state |= {f"{name}.bias": rng.normal(size=shape[0]) for name, shape in shapes.items() if "emb" not in name}
    np.savez("dlrm.npz", **state)
    names = {}
    exec("\n".join(fenced(page, "python")), names)
    exec(fenced(page, "py")[0], names)

    # TFRS orders features by name, and the bottom MLP's vector is the last.
    model, theirs = names["model"], names["ranking"]
    batch = next(iter(names["train"]))[0]
    one_hot = {"user": batch["ids"][:, 0], "site": batch["ids"][:, 1]}
    inputs = {"dense_features": batch["dense"], "sparse_features": one_hot | {"tags": batch["tags"]}}
    theirs(inputs)
    name_of = {50_000: "user", 1000: "site", 40: "tags"}
    for config, table in theirs._embedding_layer.embedding_tables.items():
        rows = model.embeddings.tables[name_of[config.vocabulary_size]].numpy()
        table[: len(rows)].assign(rows)
    position = {"bottom": 3, "user": 2, "site": 0, "tags": 1}
    pairs = [(a, b) for i, a in enumerate(position.values()) for b in list(position.values())[:i]]
    of_theirs = [(i, j) for i in range(4) for j in range(i)]
    order = [*range(16), *(16 + of_theirs.index((max(pair), min(pair))) for pair in pairs)]
    theirs._bottom_stack.set_weights(model.bottom_mlp.get_weights())
    kernel, *others = model.top_mlp.get_weights()
    permuted = np.empty_like(kernel)
    permuted[order] = kernel
    theirs._top_stack.set_weights([permuted, *others])
    np.testing.assert_allclose(theirs(inputs), model(batch), rtol=0, atol=1e-5)
