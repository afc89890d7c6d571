"""Read the operators and weights of a .tflite file into plain records."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from selfscan.errors import ModelMissing

_FLOAT_TYPES = {0: np.float32, 1: np.float16}
_INTEGER_TYPES = {2: np.int32, 4: np.int64}


@dataclass(frozen=True)
class Operator:
    """One operator: its kind (upper-case built-in name or custom name), tensors in and out, and options."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """Operators in file order, constants by tensor number (half precision already widened), outputs by name."""

    operators: tuple[Operator, ...]
    constants: dict[int, np.ndarray]
    inputs: tuple[int, ...]
    outputs: dict[str, int]

    def find_producer(self, tensor: int) -> Operator | None:
        """Return the operator that writes ``tensor``, or None for an input or a constant."""
        return next((o for o in self.operators if tensor in o.outputs), None)

    def producer(self, tensor: int) -> Operator:
        """Return the operator that writes ``tensor``; LookupError for an input or a constant."""
        operator = self.find_producer(tensor)
        if operator is None:
            raise LookupError(f"tensor {tensor}: expected an operator that writes it, found none")
        return operator

    def of_kind(self, kind: str) -> list[Operator]:
        """Return the operators of one kind, in file order."""
        return [o for o in self.operators if o.kind == kind]


def read_graph(path: str | Path) -> Graph:
    """Read the first subgraph of a .tflite file.

    Args:
        path: file of a float32 or float16 network.

    Returns:
        The graph; DEQUANTIZE operators are folded into float32 constants.

    Raises:
        ModelMissing: the file is not there or is not a .tflite file.
    """
    import tflite

    path = Path(path)
    if not path.is_file():
        raise ModelMissing(f"expected a .tflite network at {path}, found none; reinstall mediapipe>=0.10.14,<0.10.22")
    data = path.read_bytes()
    if data[4:8] != b"TFL3":
        raise ModelMissing(f"expected a .tflite network in {path.name}, got something else; reinstall mediapipe")
    model = tflite.Model.GetRootAsModel(data, 0)
    subgraph = model.Subgraphs(0)
    if subgraph is None:
        raise ModelMissing(f"expected a network in {path.name}, found none; reinstall mediapipe")
    tensors = [subgraph.Tensors(i) for i in range(subgraph.TensorsLength())]
    constants = {i: c for i, t in enumerate(tensors) if (c := _constant(model, t)) is not None}
    operators = []
    for i in range(subgraph.OperatorsLength()):
        operator = _operator(model, subgraph.Operators(i))
        if operator.kind == "DEQUANTIZE" and operator.inputs[0] in constants:
            constants[operator.outputs[0]] = constants.pop(operator.inputs[0])
        else:
            operators.append(operator)
    return Graph(
        operators=tuple(operators),
        constants=constants,
        inputs=tuple(subgraph.Inputs(i) for i in range(subgraph.InputsLength())),
        outputs={_name(tensors[i]): i for i in map(subgraph.Outputs, range(subgraph.OutputsLength()))},
    )


def _name(tensor) -> str:
    name = tensor.Name()
    return name.decode() if name else ""


def _shape(tensor) -> tuple[int, ...]:
    return tuple(int(tensor.Shape(i)) for i in range(tensor.ShapeLength()))


def _constant(model, tensor) -> np.ndarray | None:
    buffer = model.Buffers(tensor.Buffer())
    if buffer.DataLength() == 0:
        return None
    kind = tensor.Type()
    if kind in _INTEGER_TYPES:
        return buffer.DataAsNumpy().view(_INTEGER_TYPES[kind]).reshape(_shape(tensor)).copy()
    if kind not in _FLOAT_TYPES:
        raise ModelMissing(f"expected a float network, got tensors of type {kind}; install mediapipe>=0.10.14,<0.10.22")
    return buffer.DataAsNumpy().view(_FLOAT_TYPES[kind]).reshape(_shape(tensor)).astype(np.float32)


def _operator(model, operator) -> Operator:
    code = model.OperatorCodes(operator.OpcodeIndex())
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    custom = code.CustomCode()
    kind = custom.decode() if custom else _builtin_names()[number]
    options = _custom_options(operator) if custom else _builtin_options(kind, operator)
    inputs = tuple(int(i) for i in operator.InputsAsNumpy())
    return Operator(kind, inputs, tuple(int(i) for i in operator.OutputsAsNumpy()), options)


def _builtin_names() -> dict[int, str]:
    import tflite

    return {v: k for k, v in vars(tflite.BuiltinOperator).items() if isinstance(v, int)}


def _custom_options(operator) -> dict:
    from flatbuffers import flexbuffers

    if operator.CustomOptionsLength() < 3:
        return {}
    options = flexbuffers.Loads(bytes(operator.CustomOptionsAsNumpy()))
    if not isinstance(options, dict):
        raise ValueError(f"custom options: expected a table, got {type(options).__name__}")
    return options


def _builtin_options(kind: str, operator) -> dict:
    import tflite

    readers = {
        "CONV_2D": tflite.Conv2DOptions,
        "DEPTHWISE_CONV_2D": tflite.DepthwiseConv2DOptions,
        "MAX_POOL_2D": tflite.Pool2DOptions,
    }
    table = operator.BuiltinOptions()
    if kind not in readers or table is None:
        return {}
    reader = readers[kind]()
    reader.Init(table.Bytes, table.Pos)
    return {"stride": reader.StrideH(), "same": reader.Padding() == tflite.Padding.SAME}
