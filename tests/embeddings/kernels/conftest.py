"""The kernels, built once in a cache of their own."""

import shutil

import pytest

from tfrs_dlrm.embeddings import kernels


@pytest.fixture(scope="session")
def _built(tmp_path_factory):
    if shutil.which("c++") is None:
        pytest.skip("needs a C++ compiler")
    cache = tmp_path_factory.mktemp("kernels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFRS_DLRM_CACHE", str(cache))
        kernels.build()
    return cache


@pytest.fixture
def built(_built, monkeypatch):
    """Switches the kernels on, and returns the module of their operations."""
    monkeypatch.setenv("TFRS_DLRM_CACHE", str(_built))
    monkeypatch.setenv(kernels.SWITCH, "1")
    return kernels.find()
