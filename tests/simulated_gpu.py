"""A CUDA device on a machine without one: every operation is checked as on a GPU and computed on the CPU.

``torch._subclasses.fake_tensor.FakeTensorMode`` applies torch's rules about devices but has no values, so code that
needs a number stops there. Here each tensor "on the GPU" holds its values in the CPU's memory. An operation first
runs under FakeTensorMode, which refuses mixed devices, and then on the values. Whole stages run this way, and their
results can be compared with the CPU's. What differs on a real GPU, such as rounding, speed, memory and kernels that a
device lacks, cannot be seen here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from unittest import mock

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

CUDA = torch.device("cuda", 0)
GPU = ("cuda", "meta")  # the tensors' device as named in C++ and in Python
NO_SHAPE = (  # the result's shape depends on values; FakeTensorMode has checked the devices already
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
)
BETWEEN = (
    "aten::_to_copy",
    "aten::copy_",
    "aten::_pin_memory",
    "aten::is_pinned",
    "aten::_has_compatible_shallow_copy_type",
)
INDEXING = ("aten::index", "aten::index_put_", "aten::index_put")


class OnGpu(torch.Tensor):
    """A tensor that reports the GPU as its device; in torch's C++ code its device is "meta"."""

    value: torch.Tensor

    @staticmethod
    def __new__(cls, value: torch.Tensor) -> OnGpu:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            value.size(),
            strides=value.stride(),
            storage_offset=value.storage_offset(),
            dtype=value.dtype,
            device="meta",
        )
        made.value = value
        return made

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = is_meta = property(lambda self: False)

    def get_device(self) -> int:
        return 0

    def numpy(self, *, force: bool = False):
        if force:
            return self.detach().cpu().numpy()
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, dtype=None):
        return self.numpy()

    def tolist(self) -> list:
        return self.cpu().tolist()

    def data_ptr(self) -> int:
        return self.value.data_ptr()

    def __deepcopy__(self, memo: dict) -> OnGpu:
        if id(self) not in memo:
            made = self.detach().clone().requires_grad_(self.requires_grad)
            made._is_param = getattr(self, "_is_param", False)
            memo[id(self)] = made
        return memo[id(self)]

    def __repr__(self, *, tensor_contents=None) -> str:
        return f"OnGpu({self.value!r})"

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        """Numbers of Python become a tensor of the CPU first; C++ would lose them on "meta"."""
        with torch._C.DisableTorchFunctionSubclass():
            if func is torch.Tensor.new_tensor:
                return torch.tensor(*args[1:], **({"dtype": args[0].dtype, "device": CUDA} | (kwargs or {})))
            if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
                args = (args[0], _listless(args[1]), *args[2:])
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})  # outside of the mode: a tensor that outlived it


class _Simulation(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if torch.is_inference_mode_enabled():  # which does not take operations apart that consist of others
            with self:
                if (made := func.decompose(*args, **(kwargs or {}))) is not NotImplemented:
                    return made
        return _run(func, args, kwargs or {})


def _run(func, args, kwargs):
    name = func._schema.name
    given = [x for x in _flat((args, kwargs)) if isinstance(x, torch.Tensor)]
    there = any(isinstance(x, OnGpu) for x in given)
    asked = torch.device(kwargs["device"]).type if kwargs.get("device") is not None else None
    out_there = there if asked is None else asked in GPU
    _check_generator(kwargs.get("generator"), out_there)
    if there and name in INDEXING:
        _check_indices(*args)
    elif there and name not in BETWEEN:
        _check_devices(func, args, kwargs)
    if asked in GPU:
        kwargs = kwargs | {"device": torch.device("cpu")}
    kwargs.pop("pin_memory", None) if name != "aten::is_pinned" else None
    with unset_fake_temporarily():
        if name == "aten::_pin_memory":
            if there:
                raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
            return args[0].clone()
        if name == "aten::is_pinned":
            return False
        value = func(*tree_map(_value, args), **tree_map(_value, kwargs))
    if func._schema.is_mutable:
        return _same_objects(func, value, args, kwargs)
    if name == "aten::_local_scalar_dense" or not out_there:
        return value
    views = any(returned.alias_info is not None for returned in func._schema.returns)
    inference = torch.is_inference_mode_enabled() and not (views and not args[0].is_inference())
    with torch.inference_mode(inference):  # a view has the type of its base
        return tree_map(lambda x: OnGpu(x) if isinstance(x, torch.Tensor) else x, value)


def _flat(tree) -> Iterator:
    if isinstance(tree, (list, tuple)):
        for part in tree:
            yield from _flat(part)
    elif isinstance(tree, dict):
        yield from _flat(list(tree.values()))
    else:
        yield tree


def _listless(index):
    if isinstance(index, tuple):
        return tuple(_listless(part) for part in index)
    return torch.as_tensor(index) if isinstance(index, (list, range)) else index


def _value(x):
    return x.value if isinstance(x, OnGpu) else x


def _same_objects(func, value, args, kwargs):
    """Return the arguments themselves for an in-place operation, as torch does."""
    if not func._schema.returns:
        return value
    written = [
        kwargs.get(a.name, args[i] if i < len(args) else None)
        for i, a in enumerate(func._schema.arguments)
        if a.alias_info is not None and a.alias_info.is_write
    ]
    return written[0] if len(func._schema.returns) == 1 else tuple(written)


def _check_generator(generator, there: bool) -> None:
    if generator is None:
        return
    have, want = ("cuda" if generator._cdata in _there else "cpu"), ("cuda" if there else "cpu")
    if have != want:
        raise RuntimeError(f"Expected a '{want}' device type for generator but found '{have}'")


def _check_indices(indexed, indices, values=None, *_) -> None:
    """Handle boolean indices, for which FakeTensorMode needs the CUDA driver."""
    there = isinstance(indexed, OnGpu)
    if not there and any(isinstance(index, OnGpu) for index in indices):
        raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
    if values is not None and isinstance(values, OnGpu) != there and values.ndim:
        raise RuntimeError("Expected all tensors to be on the same device, got values on another than the tensor's")


def _check_devices(func, args, kwargs) -> None:
    """Run the operation under FakeTensorMode on tensors without values, which checks that its devices agree.

    The result does not depend on shapes, except for single numbers, so each case is checked once.
    """
    case = (func, kwargs.get("device"), *_case((args, kwargs)))
    if case in _checked:
        return
    mode = _checker()
    known: dict[int, FakeTensor] = {}

    def fake(x):
        if not isinstance(x, torch.Tensor):
            return x
        if id(x) not in known:
            plain = _value(x)
            with unset_fake_temporarily():
                meta = torch.empty_strided(plain.size(), plain.stride(), dtype=plain.dtype, device="meta")
            known[id(x)] = FakeTensor(mode, meta, CUDA if isinstance(x, OnGpu) else torch.device("cpu"))
        return known[id(x)]

    kwargs = {k: v for k, v in kwargs.items() if k != "generator"}
    if kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "meta":
        kwargs["device"] = CUDA
    args, kwargs = tree_map(fake, args), tree_map(fake, kwargs)
    with unset_fake_temporarily(), mode, contextlib.suppress(*NO_SHAPE):
        try:
            func(*args, **kwargs)
        except torch.AcceleratorError:  # a few operations call the driver even here
            if len({x.fake_device for x in known.values() if x.ndim}) > 1:
                raise RuntimeError(f"Expected all tensors to be on the same device in {func}") from None
    _checked.add(case)


_checked: set[tuple] = set()


def _case(tree) -> Iterator:
    for x in _flat(tree):
        yield (isinstance(x, OnGpu), x.ndim == 0) if isinstance(x, torch.Tensor) else None


@cache
def _checker() -> FakeTensorMode:
    return FakeTensorMode(allow_non_fake_inputs=False)


class _GpuGenerator(torch.Generator):
    """A generator of random numbers on the GPU."""

    device = CUDA


_there: dict[int, _GpuGenerator] = {}  # by what C++ calls them, since Python's object does not come back from there


class _Generator:
    """Stands for ``torch.Generator``."""

    def __new__(cls, device="cpu"):
        if torch.device(device).type == "cpu":
            return _GpuGenerator.__base__()
        made = _GpuGenerator()
        return _there.setdefault(made._cdata, made)


@contextlib.contextmanager
def simulated_gpu() -> Iterator[torch.device]:
    """Context in which torch has one simulated CUDA device; yields that device."""
    from selfscan.face.facemesh import load_facemesh

    answers = {
        "is_available": True,
        "is_bf16_supported": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_name": "simulated GPU",
        "is_current_stream_capturing": False,
        "max_memory_allocated": 0,
        "synchronize": None,
        "empty_cache": None,
        "set_device": None,
        "reset_peak_memory_stats": None,
        "manual_seed_all": None,
    }
    _checker()
    with contextlib.ExitStack() as stack:
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))  # torch then needs no driver
        for name, answer in answers.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, lambda *_, _answer=answer, **__: _answer))
        stack.enter_context(mock.patch.object(torch, "Generator", _Generator))
        stack.enter_context(mock.patch.object(torch.accelerator, "current_accelerator", lambda *_, **__: None))
        overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrites)
        stack.callback(load_facemesh.cache_clear)
        stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
        stack.callback(setattr, torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
        stack.enter_context(_Simulation())
        stack.callback(_there.clear)
        yield CUDA
