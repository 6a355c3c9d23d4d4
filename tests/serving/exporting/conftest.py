"""What tests of exports share."""

import click_log
import pytest

import tfrs_dlrm as td


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A prepared log with every kind of feature, missing and unseen values, and a model trained on it."""
    data = click_log.make(str(tmp_path_factory.mktemp("log")))
    model = td.DLRM(td.Schema.load(f"{data}/schema.json"), (16, 8), (16, 1))
    model.compile(embedding_optimizer=td.RowWiseAdagrad(0.1))
    model.fit(td.dataset(data, 64), epochs=2, verbose=0)
    return data, model
