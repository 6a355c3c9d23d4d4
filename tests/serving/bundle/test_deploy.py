"""Deploy files of models whose names YAML, Kubernetes or URLs read otherwise: as people, and as the API's rules."""

import re

import pytest
import yaml
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from tfrs_dlrm.serving.bundle import deploy
from tfrs_dlrm.serving.bundle.deploy import memory_mebibytes, write_deploy
from tfrs_dlrm.serving.bundle.model_names import model_name, service_name

# https://kubernetes.io/docs/concepts/overview/working-with-objects/names: DNS labels of RFC 1035.
SERVICE = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
NAMES = [
    "clicks",
    "no",
    "null",
    "1e3",
    "0x1F",
    "on",
    "My_Model",
    "a.b",
    "a" * 64,
    "A" * 200,
    "1st",
    "v-",
    "nan",
    "12_34",
]


@pytest.fixture
def written(tmp_path):
    def write(name, mebibytes=1000):
        output = tmp_path / name
        (output / "1/variables").mkdir(parents=True)
        with open(output / "1/variables/variables.data-00000-of-00001", "wb") as f:
            f.truncate(mebibytes << 20)  # takes no room
        write_deploy(str(output), model_name(str(output)), str(output / "1"))
        return output / "deploy"

    return write


@pytest.mark.parametrize("name", NAMES)
def test_names_stay_text_and_follow_the_rules_of_kubernetes(written, name):
    files = written(name)
    deployment, service, budget = yaml.safe_load_all((files / "kubernetes.yaml").read_text())
    called = service["metadata"]["name"]
    assert SERVICE.fullmatch(called), called
    pod = deployment["spec"]["template"]
    labels = {"app": called}
    assert deployment["metadata"]["name"] == called and deployment["spec"]["selector"]["matchLabels"] == labels
    assert pod["metadata"]["labels"] == service["spec"]["selector"] == labels
    assert budget["spec"] == {"minAvailable": 1, "selector": {"matchLabels": labels}}
    (container,) = pod["spec"]["containers"]
    assert container["args"][0] == f"--model_config_file=/models/{name}/deploy/models.config"
    assert container["readinessProbe"]["httpGet"]["path"] == f"/v1/models/{name}/metadata"
    assert container["volumeMounts"][0]["mountPath"] == f"/models/{name}"
    assert pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == called
    compose = yaml.safe_load((files / "docker-compose.yml").read_text())
    assert list(compose["services"]) == [called] and compose["services"][called]["volumes"] == [f"..:/models/{name}:ro"]
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((files / "models.config").read_text(), config)
    assert config.model_config_list.config[0].name == name


def test_two_models_have_two_services():
    names = [*NAMES, "my-model", "my_model", "my.model", "MY-MODEL", "a" * 65, "model-1st", "clicks-"]
    assert len({service_name(name) for name in names}) == len(names)
    assert service_name("clicks") == "clicks" and service_name("2024-clicks").startswith("model-2024-clicks-")


@pytest.mark.parametrize(
    ("output", "better"),
    [
        ("exports/2024", "model-2024"),
        ('exports/a"b', "a-b"),
        ("exports/my model", "my-model"),
        ("exports/a:b", "a-b"),
        ("exports/.hidden", "hidden"),
        ("exports/клики", "model"),
        ("exports/a\nb", "a-b"),
        ("s3://bucket/2024", "model-2024"),
        ("exports/-7", "model-7"),
    ],
)
def test_names_that_urls_and_servers_cannot_take_are_refused_with_one_that_they_take(output, better):
    with pytest.raises(ValueError) as refused:
        model_name(output)
    assert str(refused.value).endswith(f"such as {better}")
    assert model_name(f"exports/{better}") == better


def test_what_a_cluster_needs_is_there(written):
    deployment, _, _ = yaml.safe_load_all((written("clicks") / "kubernetes.yaml").read_text())
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    ports = {port["name"] for port in container["ports"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] in ports
    assert container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"] >= 300
    # A refused version must not restart the server, which answers the status without a model.
    assert container["livenessProbe"]["httpGet"]["path"] == "/v1/models/clicks"
    memory = f"{memory_mebibytes((1000 + 64) << 20)}Mi"
    assert memory == "2816Mi"  # 512 + 2 * 1064, in steps of 256
    assert container["resources"] == {"requests": {"cpu": "1", "memory": memory}, "limits": {"memory": memory}}
    delay = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert 0 < delay < spec["terminationGracePeriodSeconds"]
    assert spec["securityContext"]["runAsNonRoot"] is True and spec["securityContext"]["runAsUser"] > 0
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["volumes"]}
    image, _, tag = container["image"].partition(":")
    assert image == "tensorflow/serving" and re.fullmatch(r"\d+\.\d+\.\d+", tag)


def test_a_larger_version_warns_of_files_that_are_there(written, tmp_path, monkeypatch):
    files = written("clicks", 100)
    (files / "kubernetes.yaml").write_text("# mine\nmemory: 1Gi\n")
    with open(tmp_path / "clicks/1/variables/variables.data-00000-of-00001", "r+b") as f:
        f.truncate(1000 << 20)
    said = []
    monkeypatch.setattr(deploy.logging, "warning", lambda text, *values: said.append(text % values))
    write_deploy(str(tmp_path / "clicks"), "clicks", str(tmp_path / "clicks/1"))
    assert (files / "kubernetes.yaml").read_text() == "# mine\nmemory: 1Gi\n"
    assert [text.partition(" gives")[0].rpartition("/")[2] for text in said] == [
        "docker-compose.yml",
        "kubernetes.yaml",
    ]
    assert "gives a server 1024 MiB of memory; this version needs 2816 MiB" in said[1]
