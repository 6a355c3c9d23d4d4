import doctor_site
import pytest
import tensorflow as tf

from tfrs_dlrm.tools.doctor.packages import TENSORFLOWS, examine_packages


def test_of_this_environment_is_what_tensorflow_says_of_itself():
    packages = examine_packages()
    assert packages.owner in TENSORFLOWS
    assert packages.tensorflow == tf.__version__
    assert packages.misfit("numpy") == packages.misfit("tf-keras") == ""


def test_reads_versions_and_demands(tmp_path):
    packages = examine_packages(doctor_site.tpu_site(tmp_path, libtpu="0.0.42.1", numpy="1.20", protobuf=""))
    assert packages.versions["tf-keras"] == "2.20.1" and "tensorflow-cpu" not in packages.versions
    assert packages.python_demand == ">=3.10,<3.14"
    assert packages.misfit("tf-keras") == ""
    assert packages.misfit("protobuf") == "protobuf is not installed"
    assert packages.misfit("numpy") == "numpy 1.20 does not fit; >=1.26 is needed"
    assert packages.misfit("protobuf", "tpu") == "protobuf is not installed; <7 is needed"
    # What setup.py demands and what tensorflow-tpu does, together.
    assert set(str(packages.demand("libtpu", "tpu")).split(",")) == {"<0.0.32", "~=0.0.14"}
    assert "libtpu 0.0.42.1 does not fit" in packages.misfit("libtpu", "tpu")


def test_nothing_is_demanded_where_this_package_is_not_installed(tmp_path):
    doctor_site.install(tmp_path, "tensorflow", "1.15", size=3)
    packages = examine_packages([str(tmp_path)])
    assert packages.owner == "tensorflow" and packages.misfit("tensorflow") == ""


@pytest.mark.parametrize(
    "order, owner",
    [
        (["tensorflow"], "tensorflow"),
        (["tensorflow-tpu", "tensorflow"], "tensorflow"),
        (["tensorflow", "tensorflow-tpu"], "tensorflow-tpu"),
        ([], ""),
    ],
)
def test_the_package_tensorflow_is_of_whoever_wrote_it_last(tmp_path, order, owner):
    for name in order:
        doctor_site.install(tmp_path, name, "2.20.0", size=10 + TENSORFLOWS.index(name))
    assert examine_packages([str(tmp_path)]).owner == owner


def test_a_mixture_of_two_tensorflows_is_nobodys(tmp_path):
    for size, name in enumerate(("tensorflow", "tensorflow-tpu"), 1):
        doctor_site.install(tmp_path, name, "2.20.0", size=size)
    (tmp_path / "tensorflow" / "libtensorflow_cc.so.2").write_bytes(b"x")
    packages = examine_packages([str(tmp_path)])
    assert packages.owner == "" and packages.tensorflow == ""
    assert packages.tensorflows == ["tensorflow 2.20.0", "tensorflow-tpu 2.20.0"]


def test_a_tensorflow_whose_files_are_gone_is_nobodys(tmp_path):
    doctor_site.install(tmp_path, "tensorflow", "2.20.0", size=1)
    (tmp_path / "tensorflow" / "libtensorflow_cc.so.2").unlink()
    assert examine_packages([str(tmp_path)]).owner == ""
