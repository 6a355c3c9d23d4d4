"""PyTorch with the tables in FBGEMM's table-batched embeddings, on which TorchRec runs.

One operation looks up all tables. Its backward pass combines duplicate ids and takes the step of the rows, by the
exact optimizers of FBGEMM. Ids and offsets are prepared ahead, as its kernels take them. An id outside its table is an
error, as in the other libraries.
"""

import itertools

import numpy as np
import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import BoundsCheckMode, EmbeddingLocation
from fbgemm_gpu.split_table_batched_embeddings_ops_training import ComputeDevice, SplitTableBatchedEmbeddingBagsCodegen
from workloads import Batch, Weights, Workload

from peers import LEARNING_RATE
from peers.torch_dlrm import TorchDLRM

_OPTIMIZERS = {
    "sgd": EmbOptimType.EXACT_SGD,
    "adagrad": EmbOptimType.EXACT_ADAGRAD,
    "rowwise": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
}


class FbgemmDLRM(TorchDLRM):
    def _make_tables(self, workload: Workload, optimizer: str, weights: Weights) -> list[torch.optim.Optimizer]:
        self._tables = SplitTableBatchedEmbeddingBagsCodegen(
            [(rows, workload.dim, EmbeddingLocation.HOST, ComputeDevice.CPU) for rows in workload.rows],
            optimizer=_OPTIMIZERS[optimizer],
            learning_rate=LEARNING_RATE[optimizer],
            eps=1e-10,
            bounds_check_mode=BoundsCheckMode.FATAL,
        )
        for i, table in enumerate(self._tables.split_embedding_weights()):
            table.copy_(torch.from_numpy(weights.table(i)))
        return []

    def _tensors(self, batch: Batch) -> tuple:
        """Of ids and offsets one tensor each: those of all tables, one after the other."""
        size = len(batch.labels)
        splits = batch.splits or [np.arange(size + 1)] * len(batch.ids)
        begins = itertools.accumulate((len(ids) for ids in batch.ids), initial=0)
        offsets = [s[:-1] + begin for s, begin in zip(splits, begins, strict=False)]
        ids = np.concatenate(batch.ids)
        offsets = torch.from_numpy(np.concatenate([*offsets, [len(ids)]]))
        return torch.from_numpy(batch.dense), torch.from_numpy(ids).long(), offsets, torch.from_numpy(batch.labels)

    def _vectors(self, ids: torch.Tensor, offsets: torch.Tensor) -> list[torch.Tensor]:
        return [self._tables(ids, offsets)]
