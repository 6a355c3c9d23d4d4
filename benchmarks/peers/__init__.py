"""The same DLRM by several libraries.

Each class is made from (workload, optimizer, precision, weights) and has `step(i)`, which trains on batch i modulo the
number of batches and returns its loss, the mean over the examples, as a float. Adagrad is everywhere
w -= 0.01 * g / (sqrt(sum of g^2) + 1e-10), row-wise Adagrad the same with the mean of g^2 over a row of a table.
"""

# How the optimizers of Keras spell that epsilon: theirs is added below the root.
KERAS_EPSILON = 1e-20
LEARNING_RATE = 0.01

# Where each class is. Only a worker imports it: no two of these can share a process.
PEERS = {
    "ours": ("peers.ours", "Ours"),
    "PyTorch": ("peers.torch_dlrm", "TorchDLRM"),
    "TFRS Ranking": ("peers.tfrs_ranking", "TfrsRanking"),
    "Keras 3": ("peers.keras_rs_dlrm", "KerasRsDLRM"),
}
