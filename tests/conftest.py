"""What all tests share: four logical CPU devices for replicas, little memory, seeds, and the folder of real data."""

import gc
import importlib.abc
import importlib.util
import os
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TFRS_DLRM_KERNELS", "0")  # what every machine has; tests of the kernels switch them on
os.environ.setdefault("MALLOC_ARENA_MAX", "2")  # for the processes that tests start

import process_memory
import pytest

import tfrs_dlrm  # noqa: F401  (chooses Keras 2; loads no TensorFlow)

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"
_BY_FIXTURE = {"spark": "spark", "browser": "browser", "real_data": "realdata"}
# Files with such tests are begun first, so that no worker starts the longest of them when the other has ended.
_LONGEST_FIRST = ("cluster", "spark", "browser", "realdata", "process", "matrix", "slow")

_CHROMIUM = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


class _FourDevices(importlib.abc.MetaPathFinder):
    """Configures TensorFlow as soon as a test imports it: many tests need none, and it takes seconds to load."""

    def find_spec(self, name, path, target=None):
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def load_and_configure(module):
            load(module)
            cpu = module.config.list_physical_devices("CPU")[0]
            module.config.set_logical_device_configuration(cpu, [module.config.LogicalDeviceConfiguration()] * 4)

        spec.loader.exec_module = load_and_configure
        return spec


sys.meta_path.insert(0, _FourDevices())


def pytest_configure(config):
    config.pluginmanager.register(process_memory.Plugin(), "process_memory")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks tests by their fixtures, and puts files with long tests first."""
    places = {}
    for item in items:
        for fixture in _BY_FIXTURE.keys() & set(item.fixturenames):
            item.add_marker(_BY_FIXTURE[fixture])
        marks = [_LONGEST_FIRST.index(m.name) for m in item.iter_markers() if m.name in _LONGEST_FIRST]
        places[item.path] = min([*marks, places.get(item.path, len(_LONGEST_FIRST))])
    items.sort(key=lambda item: places[item.path])  # stable: files stay whole and in order


@pytest.fixture(scope="module", autouse=True)
def _freed_memory() -> Iterator[None]:
    """Gives back what the models and functions of a module took; without, a process grows to 6 GB."""
    yield
    if "tf_keras" in sys.modules:
        sys.modules["tf_keras"].backend.clear_session()
    process_memory.forget_custom_gradients()
    gc.collect()
    process_memory.trim()


@pytest.fixture
def moments() -> random.Random:
    """Random moments, of a seed that a failure shows; TEST_SEED=... repeats them."""
    seed = int(os.environ.get("TEST_SEED") or random.SystemRandom().randrange(10**6))
    print(f"TEST_SEED={seed}")
    return random.Random(seed)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with Adult and anime; skips where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"no real data at {REAL_DATA}")
    return REAL_DATA


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; skips where there is none."""
    path = shutil.which("chromium")
    if path is None:
        message = "no chromium on the PATH; on Debian: apt-get install chromium"
        pytest.fail(message) if os.environ.get("REQUIRE_CHROMIUM") else pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_CHROMIUM)
        yield browser
        browser.close()
