"""Configurations of the local server: which models and versions are served, and their labels, also after a restart."""

import contextlib
import shutil

import grpc
import numpy as np
import pytest
import serving_bundles
from google.protobuf import text_format
from rpc_errors import code
from serving_bundles import predict_request
from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc, prediction_service_pb2_grpc
from waiting import wait_for

from tfrs_dlrm.serving.server.inference import Inference, InferenceOptions
from tfrs_dlrm.serving.server.model_config import VersionPolicy, read_config

ROW = {"price": np.float32([4]), "site": [b"abc"], "slot": np.int64([8])}
CONFIG = 'model_config_list {{ config {{ name: "clicks" {} }} }}'


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    root = tmp_path_factory.mktemp("bundle") / "clicks"
    serving_bundles.make(root, 1)
    return root / "1"


@pytest.fixture
def root(tmp_path, bundle):
    for version in (1, 2, 3, 4):
        shutil.copytree(bundle, tmp_path / "clicks" / str(version))
    return tmp_path / "clicks"


class Asking:
    """Asks a server over gRPC."""

    def __init__(self, server, channel):
        self.server = server
        self.models = model_service_pb2_grpc.ModelServiceStub(channel)
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def reload(self, text):
        request = model_management_pb2.ReloadConfigRequest()
        text_format.Parse(text, request.config)
        return self.models.HandleReloadConfigRequest(request).status.error_code

    def version(self, **spec):
        return self.prediction.Predict(predict_request(ROW, **spec)).model_spec.version.value

    def available(self, name="clicks"):
        states = self.server.http.get(f"/v1/models/{name}").json().get("model_version_status", [])
        return {int(state["version"]) for state in states if state["state"] == "AVAILABLE"}


@contextlib.contextmanager
def start(root, **options):
    with serving_bundles.running(root, **options) as server, grpc.insecure_channel(server.grpc) as channel:
        yield Asking(server, channel)


def test_policies_choose_the_versions(root):
    with start(root) as asking:
        assert asking.available() == {4}
        for policy, versions in (
            ("specific { versions: 1 versions: 3 versions: 77 }", {1, 3}),
            ("all {}", {1, 2, 3, 4}),
            ("latest { num_versions: 2 }", {3, 4}),
            ("latest {}", {4}),
        ):
            assert asking.reload(CONFIG.format(f"model_version_policy {{ {policy} }}")) == 0
            wait_for(lambda versions=versions: asking.available() == versions, f"versions {versions}")
            assert asking.version() == max(versions)


def test_labels_hold_their_versions_and_survive_a_restart(root, tmp_path):
    file = tmp_path / "models.config"
    with start(root, keep=2, model_config_file=str(file)) as asking:
        wait_for(lambda: asking.available() == {3, 4}, "versions {3, 4}")
        label = 'version_labels {{ key: "stable" value: {} }}'
        # tensorflow_serving/model_servers/server_core.cc, UpdateModelVersionLabelMap
        name, details = code(lambda: asking.reload(CONFIG.format(label.format(1))))
        assert name == "FAILED_PRECONDITION" and details.startswith(
            "Request to assign label to version 1 of model clicks, which is not currently available for inference"
        )
        assert not file.exists()
        assert (
            asking.reload(CONFIG.format(label.format(3) + "model_version_policy { latest { num_versions: 1 } }")) == 0
        )
        assert asking.version(label="stable") == 3 and asking.version() == 4
        shutil.copytree(root / "4", root.parent / "new")
        (root.parent / "new").rename(root / "5")
        wait_for(lambda: asking.available() == {3, 5}, "versions {3, 5}")
    with start(root, model_config_file=str(file)) as asking:
        wait_for(lambda: asking.available() == {3, 5}, "versions {3, 5}")
        assert asking.version(label="stable") == 3 and asking.version() == 5
        assert asking.reload(CONFIG.format("")) == 0
        wait_for(lambda: asking.available() == {5}, "versions {5}")
        name, details = code(lambda: asking.version(label="stable"))
        assert name == "INVALID_ARGUMENT" and "Unrecognized servable version label: stable" in details


def test_models_come_and_go(tmp_path, bundle):
    for name in ("a", "b"):
        shutil.copytree(bundle, tmp_path / "models" / name / "1")
    with start(tmp_path / "models") as asking:
        assert asking.version(name="a") == asking.version(name="b") == 1
        shutil.copytree(bundle, tmp_path / "whole" / "7")
        (tmp_path / "whole").rename(tmp_path / "models" / "later")
        wait_for(lambda: asking.available("later") == {7}, "versions {7}")
        # tensorflow_serving/sources/storage_path/file_system_storage_path_source.cc, PollFileSystemForServable: no
        # version is unloaded because a directory is gone.
        shutil.rmtree(tmp_path / "models" / "b")
        shutil.copytree(bundle, tmp_path / "elsewhere" / "9")
        listed = 'config {{ name: "a" }} config {{ name: "c" base_path: "{}" model_platform: "tensorflow" }}'
        assert asking.version(name="b") == 1
        assert asking.reload(f"model_config_list {{ {listed.format(tmp_path / 'elsewhere')} }}") == 0
        assert asking.version(name="a") == 1 and asking.version(name="c") == 9
        for gone in ("b", "later"):
            assert code(lambda gone=gone: asking.version(name=gone))[0] == "NOT_FOUND"
        assert asking.reload("model_config_list {}") == 0 and asking.version(name="c") == 9


def test_wrong_configurations_change_nothing(root, tmp_path, monkeypatch):
    monkeypatch.setattr("tfrs_dlrm.serving.server.served_models._LOOKS", 2)
    with start(root) as asking:
        for text, expected, words in (
            ("", "INVALID_ARGUMENT", "Only ModelConfigList is currently supported"),
            (CONFIG.format('base_path: "/elsewhere"'), "INVALID_ARGUMENT", "base_path /elsewhere needs another name"),
            (CONFIG.format('model_platform: "pytorch"'), "FAILED_PRECONDITION", "no entry for platform pytorch"),
            ('model_config_list { config { name: "new" } }', "INVALID_ARGUMENT", "an absolute path or URI"),
            ('model_config_list { config { name: "clicks" } config { name: "clicks" } }', "INVALID_ARGUMENT",
             "Illegal to list model clicks multiple times"),
        ):  # fmt: skip
            name, details = code(lambda text=text: asking.reload(text))
            assert name == expected and words in details, details
        listed = f'config {{ name: "clicks" }} config {{ name: "new" base_path: "{tmp_path}/nothing" }}'
        name, details = code(lambda: asking.reload(f"model_config_list {{ {listed} }}"))
        assert name == "UNKNOWN" and "1 model(s) did not become available: {new}" in details
        assert asking.version() == 4
    file = tmp_path / "models.config"
    for text, words in (("model_config", "no ModelServerConfig"), ("", "Only ModelConfigList")):
        file.write_text(text)
        with pytest.raises(ValueError, match=words):
            Inference(str(root), InferenceOptions(model_config_file=str(file)))


@pytest.mark.parametrize("root", ["/models", "s3://bucket/models/"])
def test_relative_paths_begin_at_the_root(root):
    for given, path in (("new", f"{root.rstrip('/')}/new"), ("/new/", "/new"), ("gs://other/new/", "gs://other/new")):
        config = model_management_pb2.ReloadConfigRequest().config
        config.model_config_list.config.add(name="new", base_path=given)
        assert read_config(config, root, VersionPolicy(), {})["new"].path == path
