"""Whether tensors fit a signature, where no small bundle shows it; test_rest.py has the other checks."""

import numpy as np
import pytest

from tfrs_dlrm.serving.bundle.manifest import BundleFeature, BundleManifest
from tfrs_dlrm.serving.protocol import InvalidRequest
from tfrs_dlrm.serving.runtime.signature import Signature, TensorInfo
from tfrs_dlrm.serving.server.request_checks import Limits, check

FLOAT, TEXT = np.dtype(np.float32), np.dtype(object)


def test_lists_of_the_context_and_their_weights_are_no_candidates():
    lists = TensorInfo("", TEXT, (None, None)), TensorInfo("", FLOAT, (None, None))
    inputs = {"tags": lists[0], "tags_weights": lists[1], "price": TensorInfo("", FLOAT, (None, None))}
    shared = {"price": False, "tags": True, "tags_weights": True}
    manifest = BundleManifest(features=tuple(BundleFeature(n, context=c) for n, c in shared.items()))
    given = {
        "tags": np.full([1, 2], b"a", object),
        "tags_weights": np.ones([1, 2], np.float32),
        "price": np.ones([1, 3], np.float32),
    }
    signature = Signature("tensorflow/serving/predict", inputs, {})
    assert check("rank", signature, given, manifest, Limits()) == 1
    none = {"tags": given["tags"][:, :0], "tags_weights": given["tags_weights"][:, :0]}
    assert check("rank", signature, given | none, manifest, Limits()) == 1
    with pytest.raises(InvalidRequest, match="'price' has no candidates"):
        check("rank", signature, given | {"price": given["price"][:, :0]}, manifest, Limits())
