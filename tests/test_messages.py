from pathlib import Path

import pytest

from tfrs_dlrm import messages
from tfrs_dlrm.messages import cause, install_command, log_rate
from tfrs_dlrm.messages.log_rate import LogRate

ROOT = Path(__file__).parents[1]


def test_from_a_checkout(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert install_command("tpu") == "pip install -e '.[tpu]'" and install_command() == "pip install -e '.'"
    monkeypatch.chdir(tmp_path)
    assert install_command("tpu") == f"pip install -e '{ROOT}[tpu]'"


def test_from_an_index(monkeypatch, tmp_path):
    monkeypatch.setattr(messages, "_HOME", tmp_path)
    assert install_command("tpu") == "pip install 'tfrs-dlrm[tpu]'"


_TRACE = 'Traceback (most recent call last):\n\n  File "x.py", line 3, in read\n    raise\n\nValueError: inner\n'


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            f"{{{{function_node __wrapped__Next_device_/job:a}}}} ValueError: a.parquet: bad\n{_TRACE}",
            "a.parquet: bad",
        ),
        (
            "Graph execution error:\n\nDetected at node PyFunc defined at (most recent call last):\n<stack traces"
            f" unavailable>\nValueError: a.parquet: bad\n{_TRACE}\n\n\t [[{{{{node PyFunc}}}}]]\n\t [[Next]]",
            "a.parquet: bad",
        ),
        (
            'Graph execution error:\n\nDetected at node PyFunc defined at (most recent call last):\n  File "<frozen'
            f' runpy>", line 198, in _run\n\n    more\nDetected at node PyFunc\n2 root error(s) found.\n  (0) UNKNOWN: '
            f" StoreError: s3://b/x: gone\n{_TRACE}",
            "s3://b/x: gone",
        ),
        (
            "{{function_node __f}} assertion failed: [feature f: id 9 is outside] [[{{node a}}]] [Op:X]",
            "assertion failed: [feature f: id 9 is outside]",
        ),
        (
            "in user code:\n\n    File x.py, line 1, in f  *\n        g()\n\n    ValueError: feature 'a' is missing\n",
            "feature 'a' is missing",
        ),
        ("ArrowInvalid: no Parquet\n" + _TRACE, "no Parquet"),
    ],
)
def test_the_line_that_names_the_cause(text, line):
    assert cause(ValueError(text)) == line


def test_messages_of_our_own_are_whole():
    assert cause(ValueError("a.csv: two\nlines")) == "a.csv: two\nlines"


def test_each_kind_of_line_is_logged_once_in_its_time(monkeypatch):
    now = 100.0
    monkeypatch.setattr(log_rate.time, "monotonic", lambda: now)
    first, second = LogRate(60), LogRate(60)
    assert [first.due(), first.due(), second.due()] == [True, False, True]
    now = 160.0
    assert [first.due(), first.due()] == [True, False]
