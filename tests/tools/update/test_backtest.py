"""Days that are played through: the numbers of each way, those of the programs called one by one."""

import json

import click_log
import pytest
import updated_run

from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.tools.update import UpdateOptions, backtest, read_updates
from tfrs_dlrm.training.evaluation import evaluate_run
from tfrs_dlrm.training.loop import train_and_evaluate


@pytest.mark.slow
def test_three_days(tmp_path, monkeypatch):
    config = RunConfig(
        DataConfig(path="none"),
        DLRMConfig(embedding_dim=4, bottom_mlp=(4,), top_mlp=(4, 1)),
        OptimizerConfig(learning_rate=0.01),
        TrainConfig(batch_size=updated_run.BATCH, tensorboard=False),
    )
    days, said = [updated_run.log(tmp_path, n) for n in (1, 2, 3)], []
    test = backtest.Backtest(config, click_log.SCHEMA, days, str(tmp_path / "test"), UpdateOptions(epochs=2))
    with monkeypatch.context() as patch:  # an error after the update of the second day
        patch.setattr(backtest.RunRecords, "append", lambda self, record: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            test.run()
    results = test.run(said.append)
    assert [r.day for r in results] == ["day-2.csv", "day-3.csv"] and len(said) == 2
    updates = read_updates(str(tmp_path / "test/updated"))
    assert [r.metrics["updated"] for r in results] == [u.before for u in updates]
    data = str(tmp_path / "test/updated/updates/0002/data")
    parts = [evaluate_run(str(tmp_path / "test/frozen"), data, split).scores for split in ("train", "eval")]
    assert results[1].metrics["frozen"] == backtest.joined(parts).metrics()
    prepare(click_log.SCHEMA, days[:2], str(tmp_path / "two"), eval_fraction=0.1)
    config.data.path = str(tmp_path / "two")
    train_and_evaluate(config, str(tmp_path / "hand"))
    prepare(None, days[2], str(tmp_path / "third"), base=str(tmp_path / "two"))
    expected = evaluate_run(str(tmp_path / "hand"), str(tmp_path / "third"), "train").scores.metrics()
    assert results[1].metrics["scratch"] == expected
    assert test.run() == results
    table = backtest.backtest_table(results).splitlines()
    assert len(table) == 6 and len({len(line) for line in table[:4]}) == 1
    assert table[3].split()[1] == f"{sum(r.metrics['frozen']['auc'] for r in results) / 2:.5f}"
    lines = (tmp_path / "test/backtest.jsonl").read_text().splitlines()
    assert [json.loads(line)["number"] for line in lines] == [2, 3]
    for other in ({"options": UpdateOptions(epochs=1)}, {"days": days[::-1]}):
        arguments = {"days": days, "options": UpdateOptions(epochs=2), **other}
        again = backtest.Backtest(config, click_log.SCHEMA, output=str(tmp_path / "test"), **arguments)
        with pytest.raises(ValueError, match=rf"holds a backtest with other {next(iter(other))}; choose anot"):
            again.run()
    with pytest.raises(ValueError, match=r"half_life=7d: the logs have no dates here"):
        backtest.Backtest(
            config, click_log.SCHEMA, days, str(tmp_path), UpdateOptions(half_life="7d", day="2026-11-01")
        )
    with pytest.raises(ValueError, match="1 days: at least two are needed"):
        backtest.Backtest(config, click_log.SCHEMA, days[:1], str(tmp_path), UpdateOptions())
