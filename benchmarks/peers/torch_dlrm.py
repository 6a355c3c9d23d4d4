"""PyTorch, with the architecture of facebookresearch/dlrm: `EmbeddingBag(mode="sum", sparse=True)`, Linear, bmm.

Of the ways to write it these were the fastest on CPUs: int64 ids; offsets and the indices of the triangle made once;
`index_select` on the flattened products rather than indexing by two vectors (5%); the fused optimizers for the MLPs.
`torch.compile` of the dense half made no difference beyond the noise.
"""

import os

import torch
from workloads import Batch, Weights, Workload, batches

from peers import LEARNING_RATE


class RowWiseAdagrad(torch.optim.Optimizer):
    """What optim/rwsadagrad.py of facebookresearch/dlrm computes, for sparse gradients."""

    def __init__(self, tables: list[torch.nn.Parameter], lr: float, eps: float = 1e-10):
        super().__init__(tables, {"lr": lr, "eps": eps})
        for table in tables:
            self.state[table]["sum"] = torch.zeros(table.shape[0])

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for table in group["params"]:
                gradient, total = table.grad.coalesce(), self.state[table]["sum"]
                rows, values = gradient._indices()[0], gradient._values()
                total.index_add_(0, rows, values.square().mean(1))
                deviation = total[rows].sqrt_().add_(group["eps"])
                table.index_add_(0, rows, values.div_(deviation[:, None]), alpha=-group["lr"])


class TorchDLRM:
    def __init__(self, workload: Workload, optimizer: str, precision: str, weights: Weights):
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self._bf16 = precision == "bf16"
        self._bottom, self._top = _mlp(weights.mlp("bottom"), relu_last=True), _mlp(weights.mlp("top"), False)
        vectors = len(workload.rows) + 1
        self._shape = (-1, vectors, workload.dim)
        self._triangle = torch.tensor([i * vectors + j for i, j in workload.pairs])
        self._loss = torch.nn.BCEWithLogitsLoss()
        self._optimizers = [self._of_mlps(optimizer), *self._make_tables(workload, optimizer, weights)]
        self._batches = [self._tensors(b) for b in batches(workload)]

    def _of_mlps(self, name: str) -> torch.optim.Optimizer:
        make = torch.optim.SGD if name == "sgd" else torch.optim.Adagrad
        return make([*self._bottom.parameters(), *self._top.parameters()], LEARNING_RATE[name], fused=True)

    def _make_tables(self, workload: Workload, optimizer: str, weights: Weights) -> list[torch.optim.Optimizer]:
        """Makes the tables; returns what updates them, where the backward pass does not."""
        self._tables = [_bag(torch.from_numpy(weights.table(i))) for i in range(len(workload.rows))]
        of_tables = {"sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad, "rowwise": RowWiseAdagrad}
        return [of_tables[optimizer]([t.weight for t in self._tables], LEARNING_RATE[optimizer])]

    def _vectors(self, ids: list[torch.Tensor], offsets: list[torch.Tensor]) -> list[torch.Tensor]:
        """The vectors of one or more tables each, [B, tables * dim], in the order of the tables."""
        return [t(i, o) for t, i, o in zip(self._tables, ids, offsets, strict=True)]

    def _tensors(self, batch: Batch) -> tuple:
        """Dense features, ids and offsets as `_vectors` takes them, and labels."""
        ids = [torch.from_numpy(i).long() for i in batch.ids]
        if batch.splits is None:
            offsets = [torch.arange(len(batch.labels))] * len(ids)
        else:
            offsets = [torch.from_numpy(s[:-1]) for s in batch.splits]
        return torch.from_numpy(batch.dense), ids, offsets, torch.from_numpy(batch.labels)

    def _logits(self, dense: torch.Tensor, ids: list[torch.Tensor], offsets: list[torch.Tensor]) -> torch.Tensor:
        bottom = self._bottom(dense)
        vectors = [v.to(bottom.dtype) for v in self._vectors(ids, offsets)]
        stacked = torch.cat([bottom, *vectors], 1).view(self._shape)
        products = torch.bmm(stacked, stacked.transpose(1, 2)).flatten(1)
        return self._top(torch.cat([bottom, products.index_select(1, self._triangle)], 1))[:, 0]

    def step(self, i: int) -> float:
        dense, ids, offsets, labels = self._batches[i % len(self._batches)]
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._bf16):
            logits = self._logits(dense, ids, offsets)
        loss = self._loss(logits.float(), labels)
        loss.backward()
        for optimizer in self._optimizers:
            optimizer.step()
        return loss.item()


def _bag(values: torch.Tensor) -> torch.nn.EmbeddingBag:
    return torch.nn.EmbeddingBag.from_pretrained(values, freeze=False, mode="sum", sparse=True)


def _mlp(weights: list, relu_last: bool) -> torch.nn.Sequential:
    layers: list[torch.nn.Module] = []
    for number, (kernel, bias) in enumerate(weights):
        linear = torch.nn.utils.skip_init(torch.nn.Linear, *kernel.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(kernel.T))
            linear.bias.copy_(torch.from_numpy(bias))
        layers.append(linear)
        if relu_last or number < len(weights) - 1:
            layers.append(torch.nn.ReLU())
    return torch.nn.Sequential(*layers)
