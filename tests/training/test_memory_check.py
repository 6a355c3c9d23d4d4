import click_log
import pytest

from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig
from tfrs_dlrm.distribute.strategies import distribution_of
from tfrs_dlrm.embeddings.optimizers import FTRL, RowWiseAdagrad
from tfrs_dlrm.training import loop, memory_check
from tfrs_dlrm.training.loop import train_and_evaluate
from tfrs_dlrm.training.memory_check import check_memory

SCHEMA = click_log.SCHEMA.with_vocabulary_sizes({"site": 10, "tags": 20})
ROWS = 10 + 50 + 5 + 20
MODEL = DLRMConfig(embedding_dim=8, bottom_mlp=(16, 8), top_mlp=(16, 1))
CONFIG = RunConfig(DataConfig(path="none"), MODEL, OptimizerConfig(embedding="rowwise_adagrad"))


@pytest.mark.parametrize(
    ("optimizer", "size"),
    [(None, ROWS * 8 * 4), (RowWiseAdagrad(0.1), ROWS * (8 + 1) * 4), (FTRL(0.1), ROWS * (8 + 2 * 8) * 4)],
)
def test_tables_and_slots_are_counted(monkeypatch, optimizer, size):
    monkeypatch.setattr(memory_check, "available_memory", lambda: size)
    check_memory(CONFIG, SCHEMA, distribution_of(), optimizer)
    monkeypatch.setattr(memory_check, "available_memory", lambda: size - 1)
    with pytest.raises(ValueError, match=r"too little memory: the model needs 2.72 kB for tables.* are free"):
        check_memory(CONFIG, SCHEMA, distribution_of(), optimizer)
    monkeypatch.setattr(memory_check, "available_memory", lambda: None)  # not known
    check_memory(CONFIG, SCHEMA, distribution_of(), optimizer)


def test_a_run_that_cannot_fit_is_refused_before_its_tables_are_made(tmp_path, monkeypatch):
    monkeypatch.setattr(memory_check, "available_memory", lambda: 1000)
    monkeypatch.setattr(loop, "make_model", lambda *_: pytest.fail("the tables come first"))
    config = RunConfig(DataConfig(path=click_log.make(str(tmp_path))), MODEL)
    with pytest.raises(ValueError, match="for the slots of their optimizer, and 1 kB are free on this machine"):
        train_and_evaluate(config, str(tmp_path / "run"))
