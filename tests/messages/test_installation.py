from pathlib import Path

from tfrs_dlrm.messages import installation
from tfrs_dlrm.messages.installation import install_command

ROOT = Path(__file__).parents[2]


def test_from_a_checkout(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert install_command("tpu") == "pip install -e '.[tpu]'" and install_command() == "pip install -e '.'"
    monkeypatch.chdir(tmp_path)
    assert install_command("tpu") == f"pip install -e '{ROOT}[tpu]'"


def test_from_an_index(monkeypatch, tmp_path):
    monkeypatch.setattr(installation, "_HOME", tmp_path)
    assert install_command("tpu") == "pip install 'tfrs-dlrm[tpu]'"
