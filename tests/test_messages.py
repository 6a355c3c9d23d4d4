from pathlib import Path

from tfrs_dlrm import messages
from tfrs_dlrm.messages import install_command

ROOT = Path(__file__).parents[1]


def test_from_a_checkout(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert install_command("tpu") == "pip install -e '.[tpu]'" and install_command() == "pip install -e '.'"
    monkeypatch.chdir(tmp_path)
    assert install_command("tpu") == f"pip install -e '{ROOT}[tpu]'"


def test_from_an_index(monkeypatch, tmp_path):
    monkeypatch.setattr(messages, "_HOME", tmp_path)
    assert install_command("tpu") == "pip install 'tfrs-dlrm[tpu]'"
