import contextlib
import socket
import threading
import time

import doctor_site
import pytest

from tfrs_dlrm.distribute import cluster
from tfrs_dlrm.messages import install_command
from tfrs_dlrm.tools.doctor import check_tpu, tpu_check
from tfrs_dlrm.tools.doctor.machine import Machine
from tfrs_dlrm.tools.doctor.packages import examine_packages
from tfrs_dlrm.tools.doctor.tpu_check import tpu_problems

TPU_VM = Machine(tpus=("/dev/accel0",))
AGAIN = "pip install --force-reinstall --no-deps 'tensorflow-tpu<2.21,>=2.19'"


@pytest.fixture
def use(tmp_path, monkeypatch):
    """Puts a machine and packages in the place of this one's."""

    def use(machine, **versions):
        packages = examine_packages(doctor_site.tpu_site(tmp_path, **versions))
        monkeypatch.setattr(tpu_check, "examine_machine", lambda: machine)
        monkeypatch.setattr(tpu_check, "examine_packages", lambda: packages)

    return use


@contextlib.contextmanager
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_tpu_vm_as_it_should_be(use):
    use(TPU_VM)
    check_tpu("local")


@pytest.mark.parametrize(
    "machine, versions, problem, remedy",
    [
        (Machine(), {}, "looked for /dev/accel[0-9]* and /dev/vfio/[0-9]*, and found neither", "run this on a TPU VM"),
        (
            Machine(tpus=("/dev/vfio/0",), locked_tpus=("/dev/vfio/0",)),
            {},
            "may not read and write /dev/vfio/0",
            "root",
        ),
        (TPU_VM, {"libtpu": "0.0.42.1"}, "libtpu 0.0.42.1 does not fit", "pip install 'libtpu<0.0.32,~=0.0.14'"),
        (TPU_VM, {"libtpu": "0.0.13"}, "libtpu 0.0.13 does not fit", "pip install 'libtpu<0.0.32,~=0.0.14'"),
        (TPU_VM, {"libtpu": ""}, "libtpu is not installed", "pip install 'libtpu<0.0.32,~=0.0.14'"),
        (TPU_VM, {"protobuf": "7.36.2"}, "protobuf 7.36.2 does not fit; <7 is needed", "pip install 'protobuf<7'"),
        (TPU_VM, {"tf_keras": "2.21.0"}, "tf-keras 2.21.0 does not go with TensorFlow 2.20.0", install_command("tpu")),
        (
            *(TPU_VM, {"tensorflow_tpu": "", "tensorflow": "2.21.0"}),
            "tensorflow-tpu is not installed; <2.21,>=2.19 is needed; found tensorflow 2.21.0",
            f"{install_command('tpu')}, and after it {AGAIN}",
        ),
        (TPU_VM, {"tensorflow_tpu": "2.18.0", "tf_keras": "2.18.0"}, "tensorflow-tpu 2.18.0 does not fit", AGAIN),
        (TPU_VM, {"tensorflow": "2.21.0"}, "tensorflow 2.21.0 and tensorflow-tpu 2.20.0 are both installed", AGAIN),
    ],
)
def test_each_thing_that_is_wrong(use, machine, versions, problem, remedy):
    use(machine, **versions)
    with pytest.raises(ValueError) as raised:
        check_tpu("local")
    title, found, heading, *advice = str(raised.value).split("\n")
    assert title == "--tpu=local: TensorFlow would find no TPU" and heading == "What to do:"
    assert problem in found
    assert len(advice) == 2 and remedy in advice[0] and "tfrs-dlrm doctor" in advice[1]


def test_the_other_tensorflow_written_over_it(tmp_path):
    path = doctor_site.tpu_site(tmp_path)
    for library in (tmp_path / "tensorflow").iterdir():
        library.write_bytes(b"x")  # the size that tensorflow's has
    (problem,) = tpu_problems("local", TPU_VM, examine_packages(path))
    assert problem.what.endswith("both installed, and the files in place are not those for TPUs")
    assert problem.remedy == AGAIN


def test_all_that_is_wrong_is_said_at_once_and_each_remedy_once(use):
    use(Machine(), tensorflow_tpu="", tensorflow="2.21.0", libtpu="", protobuf="7.0.0", tf_keras="2.21.0")
    with pytest.raises(ValueError) as raised:
        check_tpu("local")
    problems, advice = str(raised.value).split("\nWhat to do:")
    assert [line.split()[1] for line in problems.split("\n")[1:]] == ["this", "tensorflow-tpu", "libtpu", "protobuf"]
    assert advice.count(install_command("tpu")) == 1 and "--strategy=one_device" in advice


def test_an_address_needs_no_device_and_no_wheel(use):
    use(Machine(), tensorflow_tpu="", libtpu="")
    with listening() as one, listening() as two:
        check_tpu(f"grpc://{one},{two}")


@pytest.mark.parametrize("address", ["grpc://", "grpc://host", "grpc://host:port", "grpc://a:1,b", "grpc://host:99999"])
def test_an_address_that_is_none(use, address):
    use(Machine())
    with pytest.raises(ValueError, match=r"' is not HOST:PORT\nWhat to do:\n  - give --tpu=grpc://HOST:PORT"):
        check_tpu(address)


def test_an_address_where_nobody_listens(use):
    use(Machine(), protobuf="7.0.0")
    with listening() as address:
        pass
    with pytest.raises(ValueError, match=f"{address} does not answer: .*refused\n  - protobuf 7.0.0 does not fit"):
        check_tpu(f"grpc://{address}")


def test_waits_three_seconds_at_most_for_all_of_them(use, monkeypatch):
    use(Machine())
    monkeypatch.setattr(cluster, "_ANSWER_WITHIN", 0.3)
    ended = threading.Event()

    def never(address, timeout):
        ended.wait(60)
        raise OSError("too late")

    monkeypatch.setattr(socket, "create_connection", never)
    begin = time.monotonic()
    with pytest.raises(ValueError) as raised:
        check_tpu("grpc://a:1,b:1,c:1")
    assert time.monotonic() - begin < 15
    ended.set()
    assert str(raised.value).count("does not answer: nothing in 0 seconds") == 3


def test_a_name_needs_the_client_and_google_cloud(use, monkeypatch):
    use(Machine(), tensorflow_tpu="", libtpu="")
    monkeypatch.setattr(tpu_check, "_importable", lambda module: module == "oauth2client")
    with listening() as address:
        monkeypatch.setenv("GCE_METADATA_HOST", address)
        with pytest.raises(
            ValueError, match="cloud-tpu-client is not installed, which finds the address of 'my-tpu'\nW"
        ):
            check_tpu("my-tpu")
        monkeypatch.setattr(tpu_check, "_importable", lambda module: module in ("oauth2client", "googleapiclient"))
        check_tpu("my-tpu")
    with pytest.raises(ValueError, match=rf"project and zone of 'my-tpu' cannot .* since {address} does not answer"):
        check_tpu("my-tpu")


@pytest.mark.parametrize("tpu", ["", "http://a:1", "a:1", "my tpu", "a,b"])
def test_neither_of_the_three(use, tpu):
    use(TPU_VM)
    with pytest.raises(ValueError, match=f"'{tpu}' is no TPU\nWhat to do:\n  - give --tpu=local, the name"):
        check_tpu(tpu)
