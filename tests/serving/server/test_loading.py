"""What a server refuses to load of a real bundle, and what it takes."""

import shutil
from pathlib import Path

import pytest
import verification_bundles
from cases import matrix

from tfrs_dlrm.serving.server.loading import load


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return verification_bundles.export(tmp_path_factory.mktemp("loaded"))[0]


@pytest.fixture
def bundle(exported, tmp_path):
    path = Path(shutil.copytree(exported, tmp_path / "clicks/1"))
    (path / "assets.extra/tf_serving_warmup_requests").unlink()  # takes most of the time
    verification_bundles.seal(path)
    return path


FLIPPED = ("flipped_byte", "variables.data-00000-of-00001 was changed: its CRC32C")


# `sealed` damages come with a manifest whose checksums fit them.
@pytest.mark.parametrize(
    ("damage", "words"),
    matrix(
        [
            FLIPPED,
            ("no_vocabulary", "assets/site.txt is missing"),
            (
                "no_manifest",
                "bundle.json is missing, and tfrs-dlrm exported this version with it: copy the version again",
            ),
            ("broken_manifest", "not valid JSON"),
            ("no_reference", "bundle.json does not list assets.extra/reference.jsonl"),
            ("swapped_vocabulary", "scores differ from the training side's"),  # sealed
            ("calls_python", "scores differ from the training side's"),  # sealed: another graph
        ],
        fast=[FLIPPED],
    ),
)
def test_a_damaged_bundle_is_refused_with_its_cause(bundle, damage, words):
    getattr(verification_bundles, damage)(bundle)
    with pytest.raises(ValueError) as refused:
        load(str(bundle), threads=1)
    assert words in str(refused.value) and str(bundle) in str(refused.value)


def test_a_manifest_of_an_earlier_export_has_sha256_only(bundle):
    def forget(manifest):
        for listed in manifest["files"].values():
            del listed["crc32c"]

    verification_bundles.change_manifest(bundle, forget)
    model, manifest = load(str(bundle), threads=1)
    with model:
        assert manifest.name == "clicks" and "rank" in model.signatures
    verification_bundles.flipped_byte(bundle)
    with pytest.raises(ValueError, match=r"was changed: its SHA-256"):
        load(str(bundle), threads=1)
