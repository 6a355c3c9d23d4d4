"""Checks that the operations of a graph compute, and that none runs Python, reads files or writes them.

Loading a SavedModel runs part of its graph, so saved_model.pb is read before it is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import DecodeError

from tfrs_dlrm.serving.runtime import protos
from tfrs_dlrm.serving.verification.subject import Subject
from tfrs_dlrm.serving.verification.verification_report import Failed


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_COMPUTE = _names(
    """
    Abs Add AddN AddV2 All Any ArgMax ArgMin AsString Assert BatchMatMul BatchMatMulV2 BatchMatMulV3 BiasAdd Bitcast
    BitwiseAnd BitwiseOr BitwiseXor BroadcastArgs BroadcastTo Bucketize Cast Ceil CheckNumerics CheckNumericsV2
    ClipByValue Concat ConcatV2 Const Cumprod Cumsum DenseBincount Dequantize DivNoNan DynamicPartition DynamicStitch
    Einsum Elu EnsureShape Equal Erf Exp ExpandDims Expm1 Fill Floor FloorDiv FloorMod FusedBatchNormV3 Gather GatherNd
    GatherV2 Greater GreaterEqual HashTableV2 Identity IdentityN If InvertPermutation IsFinite IsInf IsNan L2Loss
    LeakyRelu LeftShift Less LessEqual LinSpace Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr LookupTableFindV2
    LookupTableSizeV2 MatMul MatrixBandPart MatrixDiagV3 Max Maximum Mean Min Minimum Mod Mul MulNoNan Neg NoOp NotEqual
    OneHot OnesLike Pack Pad PadV2 ParallelDynamicStitch ParseExample ParseExampleV2 PartitionedCall Placeholder
    PlaceholderWithDefault Pow Prod RaggedGather RaggedRange RaggedTensorToTensor Range Rank ReadVariableOp RealDiv
    Reciprocal Relu Relu6 Reshape ResourceGather ResourceGatherNd Reverse ReverseSequence ReverseV2 RightShift Rint
    Round Rsqrt ScatterNd SegmentMax SegmentMean SegmentMin SegmentSum Select SelectV2 Selu Shape ShapeN Sigmoid Sign
    Size Slice Snapshot Softmax Softplus Softsign SparseReshape SparseSegmentMean SparseSegmentSqrtN SparseSegmentSum
    SparseToDense Split SplitV Sqrt Square SquaredDifference Squeeze StatefulPartitionedCall StatelessIf StatelessWhile
    StaticRegexFullMatch StaticRegexReplace StopGradient StridedSlice StringJoin StringLength StringLower StringSplit
    StringSplitV2 StringStrip StringToHashBucketFast StringToHashBucketStrong StringToNumber StringUpper Sub Substr Sum
    Tanh TensorListFromTensor TensorListGetItem TensorListReserve TensorListSetItem TensorListStack TensorScatterUpdate
    Tile TopKV2 Transpose TruncateDiv TruncateMod Unique UniqueV2 UniqueWithCounts Unpack UnsortedSegmentMax
    UnsortedSegmentMean UnsortedSegmentMin UnsortedSegmentSum VarHandleOp VariableShape Where While Xdivy Xlogy
    ZerosLike
    """
)
# Every SavedModel saves and restores itself, but no request may.
_RESTORE = _names(
    """
    AssignVariableOp DisableCopyOnRead InitializeTableFromTextFileV2 InitializeTableV2 LookupTableExportV2
    LookupTableImportV2 MergeV2Checkpoints MutableHashTableV2 RestoreV2 SaveV2 ShardedFilename VarIsInitializedOp
    """
)
_PYTHON = _names("PyFunc PyFuncStateless EagerPyFunc NumpyFunc")
_FILES = _names("ReadFile WriteFile MatchingFiles WholeFileReaderV2 TextLineReaderV2 TFRecordReaderV2 SaveSlices")


def check(subject: Subject) -> str:
    """Compares the operations of saved_model.pb with the operations that compute."""
    graph, outputs = _read(os.path.join(subject.path, "saved_model.pb"))
    requested = _reachable(graph, outputs)
    problems, count = [], 0
    for place, node in _nodes(graph):
        count += 1
        if node.op in _COMPUTE or node.op in subject.allowed:
            continue
        if node.op in _RESTORE and (place, node.name) not in requested:
            continue
        problems.append((node.op, node.name, place))
    if problems:
        raise Failed("; ".join(_explained(problems)))
    return f"{count} operations, all of kinds that compute; no Python, no files"


def _explained(problems: list[tuple[str, str, str]]) -> Iterator[str]:
    """Yields one sentence per kind of operation."""
    for op in sorted({op for op, _, _ in problems}):
        _, name, place = next(problem for problem in problems if problem[0] == op)
        where = f"operation {op} ({name!r}{f' in function {place!r}' if place else ''})"
        if op in _PYTHON:
            yield f"{where} calls Python, which TF Serving does not have: write it with operations of TensorFlow"
        elif op in _FILES:
            yield f"{where} reads or writes files: leave it out of the model's call"
        elif op in _RESTORE:
            yield f"{where} changes the model's variables or writes files while a request is answered: leave it out"
        else:
            yield f"{where} is not known to compute only: leave it out, or allow it with --allow_ops={op}"


def _read(file: str) -> tuple[Any, list[str]]:
    """Returns the GraphDef, and the tensors that the signatures return."""
    try:
        with open(file, "rb") as f:
            saved = protos.saved_model.SavedModel.FromString(f.read())
    except FileNotFoundError as e:
        raise Failed("saved_model.pb is missing: copy the bundle again or export the model again") from e
    except DecodeError as e:
        raise Failed(f"saved_model.pb is broken ({e}): copy the bundle again or export the model again") from e
    for meta_graph in saved.meta_graphs:
        if "serve" in meta_graph.meta_info_def.tags:
            signatures = meta_graph.signature_def.items()
            asked = [s for name, s in signatures if not name.startswith("__")]
            return meta_graph.graph_def, [output.name for s in asked for output in s.outputs.values()]
    raise Failed("saved_model.pb has no graph with the tag 'serve': it is cut off, or no SavedModel for serving")


def _nodes(graph: Any) -> Iterator[tuple[str, Any]]:
    """Yields all nodes, each with the name of its function, which is empty for nodes of the graph."""
    for node in graph.node:
        yield "", node
    for function in graph.library.function:
        for node in function.node_def:
            yield function.signature.name, node


def _reachable(graph: Any, outputs: list[str]) -> set[tuple[str, str]]:
    """Returns the nodes that a request may run, by function and name."""
    nodes = {node.name: node for node in graph.node}
    functions = {f.signature.name: f for f in graph.library.function}
    found: set[tuple[str, str]] = set()
    called: set[str] = set()

    def visit(place: str, node: Any) -> list[str]:
        found.add((place, node.name))
        names = [a.func.name for a in node.attr.values()] + [f.name for a in node.attr.values() for f in a.list.func]
        return [name for name in names if name in functions and name not in called]

    waiting, to_call = [name.split(":")[0] for name in outputs], []
    while waiting:
        name = waiting.pop()
        if ("", name) not in found and name in nodes:
            to_call += visit("", nodes[name])
            waiting += [i.lstrip("^").split(":")[0] for i in nodes[name].input]
    while to_call:
        name = to_call.pop()
        if name not in called:
            called.add(name)
            for node in functions[name].node_def:  # side effects run without being an input of anything
                to_call += visit(name, node)
    return found
