"""`infer` and `prepare` as a user runs them: what they print, and how their errors look."""

import pytest

from tfrs_dlrm.data.raw.infer import infer_schema
from tfrs_dlrm.programs import launch
from tfrs_dlrm.schema import Schema


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)

    def program(name, *arguments):
        capfd.readouterr()
        return launch.call(name, arguments), *capfd.readouterr()

    return program


def test_from_a_log_to_prepared_data(run, tmp_path):
    tags = ["a", "b", "c", "a|b", "b|a", "c|a"]
    rows = [f"{i % 2},{i / 8},site {i % 3},{tags[i % 6]},{i}" for i in range(200)]
    rows[100] = rows[100].replace("12.5", "cheap")
    (tmp_path / "log.csv").write_text("\n".join(["clicked,price,site,tags,row-id", *rows]) + "\n")

    infer = ["infer", "--input=log.csv", "--output=schemas/log.json", "--rows=99"]
    code, out, err = run(*infer)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "clicked  label                        sure  0 or 1; 49.5% are 1",
        "price    dense, standardize, buckets  sure  numbers from 0 to 12.25; with fractions",
        "site     categorical                  sure  3 texts",
        "tags     multi-valued                 sure  3 values joined by '|'",
        "row-id   left out                     sure  99 whole numbers in 99 rows: ids that hardly ever come again",
        "",
        "Looked at 99 rows.",
        "Wrote schemas/log.json. Read it, and change what you know better.",
        "Next:",
        "  tfrs-dlrm prepare --schema=schemas/log.json --input=log.csv --eval_fraction=0.1 --output=data/log",
    ]
    assert Schema.load(tmp_path / "schemas" / "log.json") == infer_schema(str(tmp_path / "log.csv"), rows=99).schema
    code, out, err = run(*infer)
    assert (code, out) == (1, "")
    assert err == "error: schemas/log.json exists and may hold your changes; --force overwrites it\n"

    prepare = ["prepare", "--schema=schemas/log.json", "--input=log.csv", "--output=data/log"]
    code, out, err = run(*prepare)
    assert (code, out) == (1, "") and "Traceback" not in err
    assert err.splitlines()[-1] == (
        "error: log.csv: line 102, column 'price': 'cheap' is not a finite float32 number."
        " Correct it, or set such rows aside with bad_rows='quarantine'"
    )
    code, out, err = run(*prepare, "--bad_rows=quarantine")
    assert code == 0, err
    assert out.splitlines() == [
        "Files:",
        "  train  1",
        "  eval   0",
        "Rows:",
        "  train  199",
        "  eval     0",
        "  bad      1",
        "Tables, in rows:",
        "  site           4",
        "  tags           4",
        "  price_bucket  33",
        "Wrote data/log; the bad rows are in data/log/quarantine.jsonl.",
        "Next:",
        "  tfrs-dlrm train --config=configs/default.py --config.data.path=data/log --workdir=runs/log",
    ]
    assert "vocabulary: 100%" in err and "encode: 100%" in err and "199 rows" in err
