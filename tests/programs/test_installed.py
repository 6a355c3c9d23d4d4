"""The package as pip installs it: a wheel, in an environment that does not see the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHELLS = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "tfrs_dlrm", "configs")


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """The installed `tfrs-dlrm`. TensorFlow and all other dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    source.mkdir()
    for name in SHELLS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index"]
    build = [*pip, "wheel", "--no-build-isolation", *offline, f"--wheel-dir={folder}", str(source)]
    subprocess.run(build, check=True, timeout=300)
    venv.create(folder / "venv", symlinks=True)
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    # A path line of a .pth file is not searched for further .pth files, such as that of an editable install.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (wheel,) = folder.glob("*.whl")
    install = [
        *pip,
        f"--python={folder / 'venv'}",
        "install",
        "--no-compile",
        *offline,
        "--force-reinstall",
        str(wheel),
    ]
    subprocess.run(install, check=True, timeout=300)
    return folder / "venv" / "bin" / "tfrs-dlrm"


@pytest.mark.process
def test_the_quickstart_by_the_installed_command_alone(command, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*arguments):
        done = subprocess.run(
            [command, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr[-3000:]}"
        return done.stdout

    assert "  input-service  " in run()
    few_rows = ["--config.data.synthetic_rows=3000", "--config.data.synthetic_eval_rows=500"]
    short = ["--config.train.batch_size=256", "--config.train.steps=4", "--config.train.eval_every_steps=2"]
    shown = run("train", "--config=quickstart", *few_rows, *short, "--workdir=runs/my quickstart")
    assert f"  {command} evaluate '--workdir=runs/my quickstart'\n" in shown
    assert f"  {command} export '--workdir=runs/my quickstart' '--output=exports/my quickstart'\n" in shown
    run("export", "--workdir=runs/my quickstart", "--output=exports/quickstart")
    assert (tmp_path / "exports" / "quickstart" / "1" / "saved_model.pb").is_file()
    # A recipe by its path in a checkout, whose schema comes with the package.
    shown = run("plan", "--config=configs/mlperf_dcn.py", "--strategy=mirrored", "--topology=8x80GB")
    assert "80" in shown
