"""Whole plans: small ones by hand, JSON, the pages' examples, and a step that was measured."""

import dataclasses
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, StreamConfig, TrainConfig, load_recipe
from tfrs_dlrm.data.synthetic.synthetic import criteo_schema
from tfrs_dlrm.distribute import hardware
from tfrs_dlrm.distribute.placement import Topology
from tfrs_dlrm.schema import SCHEMA_FILE, CategoricalFeature, DenseFeature, Label, Schema, Table
from tfrs_dlrm.stores.files import read_json
from tfrs_dlrm.tools.planner import lines, parse_topology, plan, plan_run, plans

ROOT = Path(__file__).parents[3]
# Of the dense half: 71 weights, 201 FLOP and 52 activations, see test_dense.
SCHEMA = Schema(
    Label("y"),
    (DenseFeature("d"), DenseFeature("e")),
    (CategoricalFeature("a"), CategoricalFeature("b", encoding="hash")),
    (Table("a", 4, vocabulary_size=6), Table("b", 4, vocabulary_size=1_000_000)),
)
CONFIG = RunConfig(
    model=DLRMConfig(4, bottom_mlp=(3, 4), top_mlp=(5, 1)),
    optimizer=OptimizerConfig(dense="adam", embedding="adagrad"),
    train=TrainConfig(batch_size=10),
)
MLPERF_ROWS = (
    *(39884406, 39043, 17289, 7420, 20263, 3, 7120, 1543, 63, 38532951, 2953546, 403346, 10),
    *(2208, 11938, 155, 4, 976, 14, 39979771, 25641295, 39664984, 585935, 12972, 108, 36),
)
KAGGLE_ROWS = (
    *(1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194),
    *(27, 14992, 5461306, 10, 5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572),
)


def moved(planned):
    return {f.what: (f.sent, f.received) for f in planned.flows}


def test_tables_have_room_for_new_values_of_a_stream():
    features = (dataclasses.replace(SCHEMA.categorical[0], max_size=1000), SCHEMA.categorical[1])
    config = dataclasses.replace(CONFIG, stream=StreamConfig(new_values="admit"))
    planned = plan(dataclasses.replace(SCHEMA, categorical=features), config, Topology("one_device", 1))
    assert planned.schema.table("a").vocabulary_size == 1001 and planned.tables[0].bytes == 1001 * 16
    assert not planned.at_most


def test_histories_look_up_every_event():
    history = CategoricalFeature("h", sequence_length=7, history_of="a")
    with_history = dataclasses.replace(SCHEMA, categorical=(*SCHEMA.categorical, history))
    one, more = (plan(schema, CONFIG, Topology("one_device", 1)) for schema in (SCHEMA, with_history))
    assert [t.placed.lookups for t in more.tables] == [1 + 7, 1]
    assert moved(more)["examples"][1][0] - moved(one)["examples"][1][0] == 10 * 7 * 4
    assert "Features h are taken" not in "\n".join(lines(more))


def test_mirrored_by_hand():
    planned = plan(SCHEMA, CONFIG, Topology("mirrored", 2, memory=20_000_000))
    a, b = planned.tables
    assert a.placed.kind == "replicated" and [(s.begin, s.end) for s in b.placed.shards] == [
        (0, 500_000),
        (500_000, 1_000_000),
    ]
    step = 2 * 52 * 4 * 5 + 4 * 71  # activations and their gradients of 5 examples, and gradients of the weights
    tables = 6 * 16 + 500_000 * 16
    for memory in planned.memory:
        assert dataclasses.astuple(memory) == (tables, tables, 284, 2 * 284, step)
    assert planned.need == 2 * tables + 3 * 284 + step and planned.usable == 18_000_000 and planned.fits
    # Half the lookups of b are of rows on the other device.
    assert moved(planned) == {
        "ids": ([5 * 0.5 * 4] * 2, [5 * 0.5 * 4] * 2),
        "vectors": ([5 * 0.5 * 16] * 2, [5 * 0.5 * 16] * 2),
        "gradients of vectors": ([5 * 0.5 * 20] * 2, [5 * 0.5 * 20] * 2),
        # The first device gets those of the second and sends back the 6 different rows, with their counts.
        "gradients of copied tables": ([6 * 24, 5 * 20], [5 * 20, 6 * 24]),
        "dense weights and gradients": ([284] * 2, [284] * 2),
        # Rows of a and b read; two vectors written, read, and their gradients written.
        "lookups": ([5 * 16 + 5 * 16 + 5 * 2 * 3 * 16] * 2, [0] * 2),
        # b: 5 gradients read, 5 rows and slots read and written. a: 6 gradients read and all rows and slots; where they
        # are combined, 10 read and 6 written.
        "updates": ([5 * 16 + 5 * 64 + 6 * 16 + 6 * 64 + 16 * 16, 5 * 16 + 5 * 64 + 6 * 16 + 6 * 64], [0] * 2),
        "dense half": ([5 * 52 * 4 * 5 + 4 * 284 + 2 * 284 * 3] * 2, [0] * 2),
        "examples": ([0] * 2, [5 * (2 * 4 + 3 * 4)] * 2),
    }
    link, memory = 10 + 40 + 50 + 144 + 284, 640 + 1136 + 8040
    assert planned.time.compute == pytest.approx(3 * 201 * 5 / (0.4 * 156e12))
    assert planned.time.memory == pytest.approx(memory / (0.5 * 2039e9))
    assert planned.time.link == pytest.approx(link / (0.5 * 300e9))
    assert planned.time.bottleneck == "memory"
    assert planned.time.most_examples_per_second == pytest.approx(10 / planned.time.memory)
    assert planned.bytes_imbalance == planned.lookups_imbalance == 1


def test_parameter_servers_by_hand():
    planned = plan(SCHEMA, CONFIG, Topology("parameter_server", 2, workers=3))
    a, b = planned.tables
    assert [s.device for s in a.placed.shards] == [0] and len(b.placed.shards) == 2
    first, second = planned.memory
    assert first.tables == first.slots == 6 * 16 + 500_000 * 16 and second.tables == 500_000 * 16
    assert (first.dense_weights, first.dense_slots, first.step) == (142, 284, 0)
    assert planned.worker_memory == 2 * 52 * 4 * 10 + 284 and planned.fits is None
    flows = {f.what: f for f in planned.flows}
    assert (flows["ids"].received, flows["ids"].worker_sent) == ([10 * 1.5 * 4, 10 * 0.5 * 4], 10 * 2 * 4)
    assert (flows["vectors"].sent, flows["vectors"].worker_received) == ([240, 80], 320)
    # All 6 rows of a, and 5 of b on each, once, with id and count.
    assert (flows["gradients of vectors"].received, flows["gradients of vectors"].worker_sent) == ([264, 120], 384)
    assert flows["dense weights and gradients"].sent == [142, 142] and flows["ids"].total == 80
    # The first server, with the rows of three workers, is busier than any worker.
    assert planned.time.link == pytest.approx(3 * (60 + 264 + 142) / (0.5 * 4e9))
    assert planned.time.compute == pytest.approx(3 * 201 * 10 / (0.4 * 2e12)) and planned.time.examples == 30
    assert planned.lookups_imbalance == 1.5


def test_multi_worker_by_hand():
    planned = plan(SCHEMA, CONFIG, Topology("multi_worker", 3, memory=10**9))
    third = 10 / 3
    # Each worker has 3.3 examples and sends their rows, with ids of 8 bytes and counts, to the two others.
    assert moved(planned)["gradients of copied tables"][0] == pytest.approx([2 * 2 * third * (16 + 8 + 4)] * 3)
    # Of a, all 6 rows change, of b 10; 3.3 gradients of each are combined, then 10.
    changed = (6 + 10) * 2 * 32 + 2 * (third + 3 * third) * 16
    assert moved(planned)["updates"][0] == pytest.approx([changed] * 3)
    assert planned.memory[0].tables == 1_000_006 * 16 and planned.device.link == 12.5e9


def test_sparse_cores_by_hand():
    rowwise = dataclasses.replace(CONFIG, optimizer=OptimizerConfig(embedding="rowwise_adagrad"))
    planned = plan(SCHEMA, rowwise, parse_topology("tpu", "v6e-2"))
    b = planned.tables[1]
    # Rows of 4 take 8 floats, and a full slot; 1,000,000 is a multiple of 8 x 2 SparseCores x 2 chips.
    assert (b.rows_on, b.row, b.slots_row) == ((500_000, 500_000), 32, 32)
    assert planned.memory[0].tables == 6 * 16 + 500_000 * 32 and planned.memory[0].slots == 6 * 4 + 500_000 * 32
    flows = moved(planned)
    # The gradient of a, all of it, goes around the ring: 2 (N - 1) / N of its bytes leave each chip.
    assert flows["gradients of copied tables"] == ([96, 96], [96, 96])
    assert flows["vectors"][0] == [5 * 0.5 * 32] * 2 and flows["gradients of vectors"][0] == [5 * 0.5 * 16] * 2


def test_json_holds_the_plan(tmp_path):
    for topology in (
        Topology("mirrored", 2),
        parse_topology("tpu", "v4-32"),
        parse_topology("parameter_server", "3+2"),
    ):
        planned = plan(SCHEMA, CONFIG, topology)
        planned.save(str(tmp_path / "plans" / "plan.json"))
        assert read_json(str(tmp_path / "plans" / "plan.json")) == planned.to_dict()
    assert planned.to_dict()["topology"]["name"] == "3+2"
    assert [t["name"] for t in planned.to_dict()["tables"]] == ["a", "b"]
    assert planned.to_dict()["memory"][0]["total"] == planned.memory[0].total
    assert planned.to_dict()["tables"][1]["most_on_a_device"] == 333_334 * (16 + 16)


def test_the_schema_is_that_of_the_prepared_data_else_the_one_named(tmp_path):
    named, prepared = tmp_path / "schema.json", tmp_path / "data"
    SCHEMA.save(named)
    config = dataclasses.replace(CONFIG, data=DataConfig(path=str(prepared), schema=str(named)))
    assert plan_run(config, "one_device", "").tables[1].placed.rows == 1_000_000
    prepared.mkdir()
    SCHEMA.with_vocabulary_sizes({"b": 77}).save(prepared / SCHEMA_FILE)
    assert plan_run(config, "one_device", "").tables[1].placed.rows == 77
    with pytest.raises(FileNotFoundError, match="names no schema; one of the two"):
        plan_run(dataclasses.replace(CONFIG, data=DataConfig(path="nowhere")), "one_device", "")


def test_sizes_that_are_not_known_yet():
    features, table = (CategoricalFeature("a"), CategoricalFeature("b", max_size=99)), Table("a", 4, vocabulary_size=6)
    planned_for = Schema(Label("y"), SCHEMA.dense, features, (table,))
    planned = plan(planned_for, CONFIG, Topology("one_device", chip="CPU"))
    assert planned.tables[1].placed.rows == 100 and planned.at_most == ("b",)
    assert "max_size is taken for the size of tables b" in "\n".join(lines(planned))
    with pytest.raises(ValueError, match="tables c have no size yet: name data that `prepare` wrote"):
        plan(
            Schema(Label("y"), SCHEMA.dense, (*features, CategoricalFeature("c")), (table,)),
            CONFIG,
            Topology("mirrored", 2),
        )
    with pytest.raises(ValueError, match=r"config.model.top_mlp=\(2,\): its last number must be 1"):
        plan(
            SCHEMA,
            dataclasses.replace(CONFIG, model=DLRMConfig(4, bottom_mlp=(4,), top_mlp=(2,))),
            Topology("mirrored", 2),
        )


def test_tensorflow_is_not_loaded():
    program = (
        "import sys; from tfrs_dlrm.tools.planner import plan_run; from tfrs_dlrm.config import RunConfig, DataConfig;"
        "print(plan_run(RunConfig(DataConfig(schema='docs/plans/criteo_terabyte.json')), 'tpu', 'v4-32').fits,"
        " {'tensorflow', 'numpy', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout == "True set()\n", done.stderr


def test_the_schemas_of_the_page():
    names = [f"C{i}" for i in range(1, 27)]
    terabyte = criteo_schema(dim=128).with_vocabulary_sizes(dict(zip(names, MLPERF_ROWS, strict=True)))
    assert Schema.load(ROOT / "docs" / "plans" / "criteo_terabyte.json") == terabyte
    large = Schema.load(ROOT / "docs" / "plans" / "ten_terabytes.json")
    assert sum(4 * t.vocabulary_size * t.dim for t in large.tables) == 100 * 200_000_000 * 128 * 4


def test_the_constants_of_the_page():
    page = (ROOT / "docs/guides/planner.md").read_text(encoding="utf-8")
    for device in (*hardware.TPUS.values(), *hardware.GPUS.values(), hardware.CPU):
        memory = "as given" if device.memory is None else f"{device.memory / 1e9:.3g}"
        speeds = [device.float32 / 1e12, device.bfloat16 / 1e12, device.bandwidth / 1e9, device.link / 1e9]
        cells = [device.name, memory, *(f"{s:g}" for s in speeds), device.source]
        assert f"| {' | '.join(cells)} |" in page


def test_the_examples_of_the_page(monkeypatch):
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs/guides/planner.md").read_text(encoding="utf-8")
    examples = re.findall(r"```bash\n(python train/plan\.py .*?)```\n+```\n(.*?)```", page, re.DOTALL)
    assert len(examples) >= 6
    for command, shown in examples:
        flags = dict(a[2:].partition("=")[::2] for a in shlex.split(command.replace("\\\n", " "))[2:])
        config = load_recipe(flags.pop("config"))
        for path, value in flags.items():
            if path.startswith("config."):
                _, section, name = path.split(".")
                holder = getattr(config, section)
                setattr(holder, name, type(getattr(holder, name))(value))
        planned = plan_run(config, flags["strategy"], flags["topology"])
        assert "\n".join(lines(planned)) == shown.rstrip("\n"), command


@pytest.mark.parametrize(
    "measured, rows, largest, model",
    [
        (0.0266, KAGGLE_ROWS, 1_000_000, DLRMConfig(16, bottom_mlp=(512, 256, 16), top_mlp=(512, 256, 1))),
        (0.0988, MLPERF_ROWS, 400_000, DLRMConfig(128, bottom_mlp=(512, 256, 128), top_mlp=(1024, 1024, 512, 256, 1))),
    ],
)
def test_steps_that_were_measured(monkeypatch, measured, rows, largest, model):
    # docs/benchmarks.md has the seconds, on 2 cores with 0.36 TFLOP/s and 34 GB/s, in float32 with Adagrad.
    here = dataclasses.replace(hardware.CPU, float32=0.36e12, bandwidth=34e9)
    monkeypatch.setattr(plans, "device_of", lambda topology: here)
    rows = {f"C{i}": min(n, largest) for i, n in enumerate(rows, 1)}
    config = RunConfig(
        model=model,
        optimizer=OptimizerConfig(dense="adagrad", embedding="adagrad"),
        train=TrainConfig(batch_size=2048),
    )
    time = plan(criteo_schema().with_vocabulary_sizes(rows), config, Topology("one_device", chip="CPU")).time
    assert 0.4 * time.compute + 0.5 * time.memory == pytest.approx(measured, rel=0.2)  # at full speed
