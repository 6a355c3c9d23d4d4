"""train/infer_schema.py and train/prepare.py as a user runs them: what they print, and how their errors look."""

import subprocess
import sys
from pathlib import Path

import pytest

from tfrs_dlrm.data.raw.infer import infer_schema
from tfrs_dlrm.schema import Schema

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path):
    def program(name, *arguments):
        command = [sys.executable, str(ROOT / "train" / name), *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    return program


def test_from_a_log_to_prepared_data(run, tmp_path):
    tags = ["a", "b", "c", "a|b", "b|a", "c|a"]
    rows = [f"{i % 2},{i / 8},site {i % 3},{tags[i % 6]},{i}" for i in range(200)]
    rows[100] = rows[100].replace("12.5", "cheap")
    (tmp_path / "log.csv").write_text("\n".join(["clicked,price,site,tags,row-id", *rows]) + "\n")

    infer = ["infer_schema.py", "--input=log.csv", "--output=schemas/log.json", "--rows=99"]
    done = run(*infer)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "clicked  label               0 or 1; 49.5% are 1",
        "price    dense, standardize  numbers from 0 to 12.25",
        "site     categorical         3 values",
        "tags     multi-valued        3 values joined by '|'",
        "row-id   left out            99 values in 99 rows: an identifier, or free text",
        "",
        "Wrote schemas/log.json. Read it and change what you know better.",
        "Next:",
        "  python train/prepare.py --schema=schemas/log.json --input=log.csv --eval_fraction=0.1 --output=data/log",
    ]
    assert Schema.load(tmp_path / "schemas" / "log.json") == infer_schema(str(tmp_path / "log.csv"), rows=99).schema
    done = run(*infer)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: schemas/log.json exists, perhaps with changes of yours; --force overwrites it\n"

    prepare = ["prepare.py", "--schema=schemas/log.json", "--input=log.csv", "--output=data/log"]
    done = run(*prepare)
    assert (done.returncode, done.stdout) == (1, "") and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == (
        "error: log.csv: line 102, column 'price': 'cheap' is not a finite float32 number."
        " Mend it, or set such rows aside with bad_rows='quarantine'"
    )
    done = run(*prepare, "--bad_rows=quarantine")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "Rows:",
        "  train  199",
        "  eval     0",
        "  bad      1",
        "Tables, in rows:",
        "  site  4",
        "  tags  4",
        "Wrote data/log; the bad rows are in data/log/quarantine.jsonl.",
        "Next:",
        "  python train/main.py --config=configs/default.py --config.data.path=data/log --workdir=runs/log",
    ]
    assert "vocabulary: 100%" in done.stderr and "encode: 100%" in done.stderr and "199 rows" in done.stderr
