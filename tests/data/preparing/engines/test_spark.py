"""`prepare` on Spark writes what DuckDB does, byte for byte, whatever is killed; and says what is wrong."""

import contextlib
import dataclasses
import gzip
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from file_tree import assert_same_bytes

from tfrs_dlrm.data.preparing import job as prepare_job
from tfrs_dlrm.data.preparing import prepare as prepare_module
from tfrs_dlrm.data.preparing.engines import spark as spark_module
from tfrs_dlrm.data.preparing.engines import spark_session, spark_tasks
from tfrs_dlrm.data.preparing.engines.spark import SparkEngine, _map, _site
from tfrs_dlrm.data.preparing.job import PrepareJob
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.data.preparing.workspace import COUNTED, Workspace
from tfrs_dlrm.data.raw import sources
from tfrs_dlrm.data.raw.parsing import BadRowError
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table, Time

SCHEMA = Schema(
    Label("y"),
    dense=(
        DenseFeature("price", transform="log1p", fill_value="mean", indicator=True),
        DenseFeature("age", transform="standardize", fill_value=30.0),
        DenseFeature("spend", decimal=",", thousands=".", unit="€"),
        DenseFeature("price_log", column="price", transform=["log1p", "standardize"]),
        DenseFeature("ts_age", column="ts", time=Time(("days",))),
        DenseFeature("title", transform="standardize", fill_value="mean", size=3, separator="|"),
    ),
    categorical=(
        CategoricalFeature("site", min_count=2),
        CategoricalFeature("referrer", table="site", min_count=2),
        CategoricalFeature("slot", encoding="ids", dtype="int64", out_of_range="clip"),
        CategoricalFeature("user", encoding="hash"),
        CategoricalFeature("seen", dtype="int64"),
        CategoricalFeature("tags", separator="|", weights="tag_weights", max_size=7),
        CategoricalFeature("price_bucket", column="price", encoding="buckets", buckets=16),
        CategoricalFeature("age_log2", column="age", encoding="buckets", buckets="log2"),
        CategoricalFeature("ts", time=Time(("hour", "weekday", "day", "month", "days"))),
        CategoricalFeature("shown", time=Time(("hour", "weekday"), "%m/%d/%Y %I:%M %p")),
        CategoricalFeature("hour_x_site", cross=("ts_hour", "site"), min_count=2),
        CategoricalFeature(cross=("price_bucket", "user"), encoding="hash"),
        CategoricalFeature("visited", separator="|", sequence_length=3, history_of="referrer"),
        CategoricalFeature("seen_there", separator="|", history_of="seen", parallel_to="visited"),
    ),
    tables=(
        *(Table("slot", vocabulary_size=8), Table("user", vocabulary_size=50)),
        Table("price_bucket_x_user", vocabulary_size=500),
    ),
    weight="w",
    group="user",
)
# In UTF-16, as Java has it, the last of them would come before the one in front of it.
ODD = ["a", "B", "é", "\ud7ff", "\uffee", "\U0001f600"]
OPTIONS = {"eval_fraction": 0.2, "seed": 4, "keep_negatives": 0.6, "bad_rows": "quarantine"}


@pytest.fixture(scope="module")
def spark():
    if shutil.which("java") is None and not os.environ.get("JAVA_HOME"):
        message = "no java on the PATH; on Debian: apt-get install openjdk-17-jre-headless"
        pytest.fail(message) if os.environ.get("REQUIRE_JAVA") else pytest.skip(message)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
        patch.setattr(spark_session, "_SETTINGS", {**spark_session._SETTINGS, "spark.sql.shuffle.partitions": "3"})
        with spark_session.session("local[2]") as session:
            yield session


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "BLOCK_BYTES", 1200)
        patch.setattr(sources, "BLOCK_ROWS", 12)
        patch.setattr(prepare_job, "BLOCKS_PER_SEGMENT", 2)
        patch.setattr(prepare_module, "SAMPLES", 20)
        yield


def frame(rows, seed=0):
    rng = np.random.default_rng(seed)

    def zipf(size):
        return np.minimum(rng.zipf(1.5, size), 40)

    visited = [["" if k % 5 == 0 else ODD[k % 6] + str(k // 6) for k in zipf(rng.integers(0, 7))] for _ in range(rows)]
    visited = [sites if any(sites) else [] for sites in visited]
    tags = [[ODD[k % len(ODD)] * (k // 6 + 1) for k in zipf(rng.integers(0, 4))] for _ in range(rows)]
    return pd.DataFrame(
        {
            "y": rng.integers(0, 2, rows),
            "w": rng.integers(1, 5, rows) / 4,
            "price": np.where(rng.random(rows) < 0.3, np.nan, rng.integers(-2, 500, rows) / 7),
            "age": np.where(rng.random(rows) < 0.1, np.nan, rng.integers(18, 80, rows)),
            "site": np.where(rng.random(rows) < 0.1, "", [ODD[k % 6] + str(k // 6) for k in zipf(rows)]),
            "referrer": [ODD[k % 6] + str(k // 6) for k in rng.integers(0, 200, rows)],
            "slot": rng.integers(-2, 12, rows),
            "user": [f"u{k}" for k in zipf(rows)],
            "spend": [f"{k % 9}.{k % 700:03d},5 €" for k in range(rows)],
            "seen": np.where(rng.random(rows) < 0.5, "True", np.where(rng.random(rows) < 0.5, "1.0", "FALSE")),
            "tags": ["|".join(t) for t in tags],
            "tag_weights": ["|".join(f"{w:.2f}" for w in rng.random(len(t))) for t in tags],
            "ts": ["" if k % 9 == 0 else f"2026-0{k % 7 + 1}-{k % 28 + 1:02d} 0{k % 4}:00" for k in range(rows)],
            "shown": [f"{k % 7 + 1}/{k % 28 + 1:02d}/2026 {k % 12 + 1}:05 {'aApP'[k % 4]}M" for k in range(rows)],
            "title": ["" if k % 8 == 0 else f"{k / 7}|{'' if k % 5 == 0 else -k}|{k % 13 / 3}" for k in range(rows)],
            "visited": ["|".join(sites) for sites in visited],
            "seen_there": ["|".join(["TRUE", "0.0", ""][k % 3] for k in range(len(sites))) for sites in visited],
        }
    )


@pytest.fixture(scope="module")
def log(tmp_path_factory, small_blocks):
    """Files of every kind with bad rows in them, and what DuckDB makes of them."""
    home = tmp_path_factory.mktemp("spark [1]{x}*")  # characters that mean something to Hadoop
    rows = frame(300)
    rows[:120].to_csv(home / "a.csv", index=False)
    lines = (home / "a.csv").read_text(encoding="utf-8").splitlines()
    for number, line in ((20, "1,2"), (100, lines[3].replace(",", ",cheap", 2))):
        lines.insert(number, line)
    (home / "a.csv").write_text("\r\n".join(lines), encoding="utf-8")
    rows[120:180].to_csv(home / "b.tsv", sep="\t", index=False)
    rows[180:230].to_csv(home / "c.tsv.gz", sep="\t", index=False)
    titles = [None if k % 7 == 0 else [k / 7, None if k % 4 == 0 else k, -1.5] for k in range(70)]
    typed = {"title": titles, "spend": [k + 0.5 for k in range(70)], "seen": [True, False] * 35}
    odd = rows[230:].assign(**typed).assign(referrer=lambda f: f["referrer"].where(f.index % 9 > 0, "x\ny"))
    pq.write_table(pa.Table.from_pandas(odd, preserve_index=False), home / "d.parquet", row_group_size=60)
    inputs = [str(home / name) for name in ("a.csv", "b.tsv", "c.tsv.gz", "d.parquet")]
    prepare(SCHEMA, inputs, str(home / "duckdb"), **OPTIONS)
    return types.SimpleNamespace(home=home, inputs=inputs, expected=home / "duckdb")


def test_a_directory_of_packed_files_split_by_group(spark, log, tmp_path):
    """Named as Hive does, and known by their first bytes."""
    rows, rule = frame(90), {**OPTIONS, "eval_fraction": 0.3, "split_by": "user"}
    for i, day in enumerate(("2026-11-01", "2026-11-02")):
        (tmp_path / f"logs/day={day}/hour=0{i}").mkdir(parents=True)
        rows[45 * i : 45 * i + 15].to_csv(tmp_path / f"logs/day={day}/part-0.bz2", sep="\t", index=False)
        rows[45 * i + 15 : 45 * i + 30].to_csv(
            tmp_path / f"logs/day={day}/part-1", encoding="utf-16", sep="\t", index=False
        )
        rows[45 * i + 30 : 45 * i + 45].to_parquet(tmp_path / f"logs/day={day}/hour=0{i}/part-2")
    rows[:0].to_csv(tmp_path / "logs/day=2026-11-02/part-3", sep="\t", index=False)
    (tmp_path / "logs/_SUCCESS").touch()
    schema = dataclasses.replace(SCHEMA, categorical=(*SCHEMA.categorical, CategoricalFeature("day")))
    for engine in ("duckdb", "spark"):
        manifest = prepare(schema, str(tmp_path / "logs"), str(tmp_path / engine), engine=engine, **rule)
        assert rows_read(manifest) + manifest.bad_rows == 90
        assert manifest.rows("train") > 30 and manifest.rows("eval") > 5
    assert_same_bytes(tmp_path / "duckdb", tmp_path / "spark")


def rows_read(manifest):
    """All rows that are well formed: also those that keep_negatives left out."""
    return sum(manifest.labels[split]["label"].count for split in ("log", "eval"))


def test_both_engines_write_the_same_bytes(spark, log, tmp_path):
    calls = []
    manifest = prepare(
        SCHEMA, log.inputs, str(tmp_path / "out"), engine="spark", progress=lambda *call: calls.append(call), **OPTIONS
    )
    assert_same_bytes(log.expected, tmp_path / "out")
    assert manifest.bad_rows == 2 and rows_read(manifest) == 300 > manifest.rows("train") + manifest.rows("eval")
    assert len(manifest.train) > 9 and len(manifest.eval) > 7
    values = (tmp_path / "out/vocabulary/site.txt").read_text(encoding="utf-8").splitlines()
    assert len(values) > 50 and {v[0] for v in values} >= set(ODD)
    assert sorted((tmp_path / "out/vocabulary/seen.txt").read_text().split()) == ["0", "1", "<missing>"]
    assert len((tmp_path / "out/vocabulary/tags.txt").read_text(encoding="utf-8").splitlines()) == 7
    total = sum(map(os.path.getsize, log.inputs))
    for stage in ("vocabulary", "encode"):
        done = [c[1] for c in calls if c[0] == stage]
        assert done[0] == 0 and done[-1] == total and done == sorted(done)
        assert [c[2:] for c in calls if c[0] == stage][-1] == (total, 300)
    assert prepare(SCHEMA, log.inputs, str(tmp_path / "out"), engine="spark", **OPTIONS) == manifest


def test_both_engines_extend_a_base_and_split_by_time_alike(spark, log, tmp_path):
    changed = {"seen": ["True", "False"] * 60, "spend": [f"{k},5 €" for k in range(120)]}
    frame(120, seed=1).assign(**changed).to_csv(tmp_path / "next.csv", index=False)
    on = {"base": str(log.expected), "half_life": 0.7}
    rule = {
        "eval_after": "2026-05-01",
        "time": "ts",
        "keep_order": True,
        "keep_negatives": 0.6,
        "bad_rows": "quarantine",
    }
    for engine in ("duckdb", "spark"):
        manifest = prepare(None, [str(tmp_path / "next.csv")], str(tmp_path / engine), engine=engine, **on, **rule)
        assert manifest.rows("train") > 30 and manifest.rows("eval") > 30
    assert_same_bytes(tmp_path / "duckdb", tmp_path / "spark")
    before, after = (
        (d / "vocabulary/site.txt").read_text(encoding="utf-8").splitlines() for d in (log.expected, tmp_path / "spark")
    )
    assert after[: len(before)] == before and len(after) > len(before)


def python_workers():
    """The processes of Python that have been forked by Spark's daemons."""
    daemons = {}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):  # it may end while it is looked at
            if "pyspark.daemon" in " ".join(process.cmdline()):
                daemons[process] = process.ppid()
    return [p for p, parent in daemons.items() if parent in {d.pid for d in daemons}]


def test_a_python_worker_is_killed(spark, log, tmp_path, monkeypatch):
    monkeypatch.setattr(spark_module, "_POLL_S", 0.02)
    killed = []

    def kill(stage, done, total, rows):
        if stage == "encode" and 0 < done < total and not killed:
            killed.append(python_workers()[0])
            killed[0].kill()

    prepare(SCHEMA, log.inputs, str(tmp_path / "out"), engine="spark", progress=kill, **OPTIONS)
    assert killed
    assert_same_bytes(log.expected, tmp_path / "out")


DRIVER = """
import json, sys
import tfrs_dlrm
from tfrs_dlrm.data.preparing import prepare
from tfrs_dlrm.data.preparing import job as prepare_job
from tfrs_dlrm.data.raw import sources
from tfrs_dlrm.schema import Schema

prepare.SAMPLES = 20
sources.BLOCK_BYTES, sources.BLOCK_ROWS, prepare_job.BLOCKS_PER_SEGMENT = 1200, 12, 2
schema, inputs, output, options = map(json.loads, sys.argv[1:])
prepare.prepare(Schema.load(schema), inputs, output, engine="spark", master="local[1]", **options)
"""


def test_the_driver_is_killed(spark, log, tmp_path):
    SCHEMA.save(tmp_path / "schema.json")
    out = tmp_path / "out"
    arguments = [str(tmp_path / "schema.json"), log.inputs, str(out), OPTIONS]
    java = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    environment = {**os.environ, "JAVA_TOOL_OPTIONS": java, "TMPDIR": str(tmp_path)}
    with open(tmp_path / "errors", "wb") as errors:
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, *map(json.dumps, arguments)], stderr=errors, env=environment
        )
    while driver.poll() is None and len(list(out.glob("unfinished/encoded/*.json"))) < 2:
        time.sleep(0.01)
    family = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL, (tmp_path / "errors").read_text()[-2000:]
    assert not (out / "prepared.json").exists()
    for shard in out.glob("*/part-*.parquet"):
        pq.read_table(shard)
    assert psutil.wait_procs(family, timeout=20)[1] == []
    finished = {p: p.stat().st_mtime_ns for p in out.glob("unfinished/*/part-*.json")}
    again = []
    prepare(SCHEMA, log.inputs, str(out), engine="spark", progress=lambda *call: again.append(call), **OPTIONS)
    assert len(finished) > 10
    assert again[-1][3] < 300, "finished segments were encoded again"
    assert_same_bytes(log.expected, out)


def test_engines_go_on_with_each_others_work(spark, log, tmp_path):
    class Stop(Exception):
        pass

    def stop_in(wanted):
        def progress(stage, done, total, rows):
            if stage == wanted and rows > 0:
                raise Stop

        return progress

    out = str(tmp_path / "out")
    for engine, stage in (("duckdb", "vocabulary"), ("spark", "encode")):
        with pytest.raises(Stop):
            prepare(SCHEMA, log.inputs, out, engine=engine, progress=stop_in(stage), **OPTIONS)
    prepare(SCHEMA, log.inputs, out, **OPTIONS)
    assert_same_bytes(log.expected, tmp_path / "out")


def test_two_attempts_at_a_segment(log, tmp_path):
    """As Spark has them when it runs a slow task once more."""
    workspace = Workspace(str(tmp_path / "out"))
    workspace.begin({})
    job = PrepareJob(SCHEMA, (log.inputs[1],), (), 0.0, 0, "error")
    first, second = (Workspace(workspace.output, name, workspace.run) for name in ("first", "second"))
    counting = spark_tasks._pass(_site(job, workspace), COUNTED, None)
    blocks = list(sources.blocks(log.inputs[1], SCHEMA))[:2]

    def parts(meanwhile):
        for block in blocks:
            yield counting.work(0, block)
            meanwhile()

    marks = []
    marks.append(
        counting.finish(first, "a", parts(lambda: marks or marks.append(counting.finish(second, "a", parts(int)))))
    )
    for workspace_of, mark in zip((second, first), marks, strict=True):
        workspace_of.mark(COUNTED, "a", mark)
    counts = pq.read_table(tmp_path / "out/unfinished/counts/site/a.parquet").to_pandas()
    counting.finish(workspace, "b", (counting.work(0, block) for block in blocks))
    assert counts.equals(pq.read_table(tmp_path / "out/unfinished/counts/site/b.parquet").to_pandas())
    assert not list((tmp_path / "out/unfinished/attempts").iterdir())
    assert workspace.marked(COUNTED) == ["a"]


def errors_of_both(log_path, tmp_path, **options):
    """What both engines say, which is the same."""
    messages = []
    for engine in ("duckdb", "spark"):
        with pytest.raises(ValueError) as info:
            prepare(SCHEMA, log_path, str(tmp_path / engine), engine=engine, **options)
        messages.append((type(info.value), str(info.value).replace(str(tmp_path / engine), "OUT")))
    assert messages[0] == messages[1]
    return messages[0]


def test_what_is_wrong_with_the_data_is_said_alike(spark, log, tmp_path, monkeypatch):
    kind, message = errors_of_both(log.inputs, tmp_path)
    columns = frame(1).shape[1]
    said = f"a.csv: line 21: 2 fields, {columns} are expected. Correct it, or set such rows"
    assert kind is BadRowError and said in message
    # The first of the errors in the files, given by a path from here, whichever executor is first.
    monkeypatch.chdir(tmp_path)
    whole = gzip.compress(frame(100).to_csv(sep="\t", index=False).encode())
    (tmp_path / "cut.tsv.gz").write_bytes(whole[:-9])
    kind, message = errors_of_both(["cut.tsv.gz", log.inputs[0]], tmp_path / "cut")
    assert kind is ValueError and message.startswith("cut.tsv.gz: the gz file is damaged or ends in the middle")
    (tmp_path / "bad.tsv").write_text(frame(1).to_csv(sep="\t", index=False) + "x\n" * 9)
    assert "bad.tsv: line 3: 1 fields" in errors_of_both(["bad.tsv"], tmp_path / "bad")[1]


def test_what_executors_lack(spark, log, tmp_path):
    engine = SparkEngine(spark)
    absent = types.ModuleType("absent_module")
    exec("def task(batches):\n    yield from batches", absent.__dict__)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "absent_module", absent)
        message = r"executors of local\[2,4\] miss a module: .*absent_module.*\. Install the same version"
        with pytest.raises(OSError, match=message):
            engine._collect(_map(engine._numbers(1), absent.task, "id long"))
    site = _site(PrepareJob(SCHEMA, (log.inputs[1],), (), 0.0, 0, "error"), Workspace(str(tmp_path)))
    message = r"the output cannot be seen on the executor .*; put it on a file system that all machines share"
    with pytest.raises(OSError, match=message):
        engine._plan(site, Workspace(str(tmp_path)))
    (tmp_path / "unfinished").mkdir()
    hidden = _site(site.job, Workspace(str(tmp_path)))
    object.__setattr__(hidden, "paths", (str(tmp_path / "elsewhere.tsv"),))
    with pytest.raises(OSError, match=r"elsewhere\.tsv: the input cannot be seen on the executor"):
        engine._plan(hidden, Workspace(str(tmp_path)))


def test_a_master_that_is_not_there(spark, log, monkeypatch, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    for master in (f"spark://{address}", f"k8s://https://{address}"):
        with pytest.raises(ConnectionError, match=rf"master='{master}' does not answer \({address}: .*is it started"):
            spark_session.check(master)
    monkeypatch.delenv("HADOOP_CONF_DIR", raising=False)
    monkeypatch.delenv("YARN_CONF_DIR", raising=False)
    with pytest.raises(OSError, match="master='yarn': set HADOOP_CONF_DIR"):
        spark_session.check("yarn")
    for master in ("local[two]", "http://host:1", "spark://"):
        with pytest.raises(ValueError, match=r"is none of local, local\[N\], local\[\*\], spark://HOST:PORT, yarn"):
            spark_session.check(master)
    with pytest.raises(ValueError, match=r"the active Spark session has 'local\[2,4\]'; leave master out"):
        prepare(SCHEMA, log.inputs, str(tmp_path / "out"), engine="spark", master="local[3]")


def test_java_and_pyspark(monkeypatch, tmp_path):
    java = tmp_path / "home" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_412\"' >&2\n")
    java.chmod(java.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    with pytest.raises(OSError, match=r"needs Java 17 or later, and .*bin/java is Java 8; install Java 17 \(on Debian"):
        spark_session.check("local")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(OSError, match=r"needs Java, and JAVA_HOME=.* has no bin/java; install Java 17"):
        spark_session.check("local")
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match="needs Java, and the PATH has no java; install Java 17"):
        spark_session.check("local")
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(ImportError, match=r"engine='spark' needs PySpark: pip install .*\[spark\]'"):
        spark_session.check("local")


def test_the_program_says_so_at_once(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        master = f"spark://127.0.0.1:{free.getsockname()[1]}"
    program = str(Path(__file__).parents[4] / "train" / "prepare.py")
    arguments = ["--engine=spark", f"--master={master}", "--schema=none.json", "--input=none.tsv", "--output=out"]
    done = subprocess.run(
        [sys.executable, program, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and done.stderr.startswith(f"error: master='{master}' does not answer (127.0.0.1:")
    assert len(done.stderr.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_arguments(tmp_path):
    with pytest.raises(ValueError, match="engine='flink' is neither 'duckdb' nor 'spark'"):
        prepare(SCHEMA, [__file__], str(tmp_path / "out"), engine="flink")
    with pytest.raises(ValueError, match="master='local' is for engine='spark', this is engine='duckdb'"):
        prepare(SCHEMA, [__file__], str(tmp_path / "out"), master="local")
    assert not (tmp_path / "out").exists()
