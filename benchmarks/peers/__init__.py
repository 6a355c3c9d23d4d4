"""The same DLRM by several libraries.

Each class is made from (workload, optimizer, precision, weights) and has `step(i)`, which trains on batch i modulo the
number of batches and returns its loss, the mean over the examples, as a float. Adagrad is everywhere
w -= rate * g / (sqrt(sum of g^2) + 1e-10), row-wise Adagrad the same with the mean of g^2 over a row of a table.
"""

# How the optimizers of Keras spell that epsilon: theirs is added below the root.
KERAS_EPSILON = 1e-20

# The first step of Adagrad moves every weight by the rate, whichever way the smallest of gradients points. At 0.01 that
# makes the losses chaotic: PyTorch with itself, all kernels moved by one rounding, is 7% off within 16 steps. At these
# rates all that compute the same agree to 1e-5.
LEARNING_RATE = {"sgd": 0.01, "adagrad": 1e-4, "rowwise": 1e-4}

# Where each class is. Only a worker imports it: no two of these can share a process.
PEERS = {
    "ours": ("peers.ours", "Ours"),
    "ours, ids sorted": ("peers.ours", "OursSorted"),
    "ours, kernels": ("peers.ours", "OursByKernels"),
    "PyTorch": ("peers.torch_dlrm", "TorchDLRM"),
    "FBGEMM": ("peers.fbgemm_dlrm", "FbgemmDLRM"),
    "TFRS Ranking": ("peers.tfrs_ranking", "TfrsRanking"),
    "Keras 3": ("peers.keras_rs_dlrm", "KerasRsDLRM"),
}
