import json

import numpy as np
import pytest

from tfrs_dlrm.stores.files import write_json, write_text


def test_write_json(tmp_path):
    path = tmp_path / "evaluation.json"
    data = {"auc": float("nan"), "n": np.int64(3), "steps": (1, np.float32(0.5)), "curve": np.array([1.0, np.inf])}
    write_json(path, {"model": data, "note": "é", "none": None, "yes": True})
    text = path.read_text(encoding="utf-8")
    assert text.endswith("}\n")
    expected = {"auc": None, "n": 3, "steps": [1, 0.5], "curve": [1.0, None]}
    assert json.loads(text) == {"model": expected, "note": "é", "none": None, "yes": True}


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"auc": 0.5})
    with pytest.raises(TypeError):
        write_json(path, {"auc": object()})
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half \udcff")
    assert json.loads(path.read_text()) == {"auc": 0.5}
