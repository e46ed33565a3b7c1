"""A GPU that is pretended: tensors on a device of their own whose numbers are computed on the CPU.

Like a real one it refuses an operation on tensors of two devices and has none of `lib`'s branches for a CPU. It notes what the host
reads from it (`read`), sends it (`sent`), in which of both it waits until all that was launched is done (`waits`), and how many
operations it was given (`launched`), each of which is one kernel or a few. It has no speed, no other rounding and no bf16, so it replaces
no GPU: it shows that what runs on one is of one piece.
"""
from collections import Counter
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretended"
aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default}
BY_INDEX = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}   # torch sends the index
HOST_NEEDS = {"nonzero", "equal", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount", "repeat_interleave"}
STAGED = 2 ** 16    # bytes that a driver takes over before it returns; a larger copy from memory that is not pinned may wait
NO_KERNEL = {"alias", "as_strided", "detach", "empty", "empty_like", "empty_strided", "expand", "permute", "select", "slice", "split",
             "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unfold", "unsqueeze", "view", "_unsafe_view", "_reshape_alias"}


class OnDevice(torch.Tensor):
    """A tensor that says it lies on the pretended GPU; `there` is the CPU's tensor that holds its numbers."""

    @staticmethod
    def __new__(cls, there):
        return torch.Tensor._make_wrapper_subclass(cls, there.size(), strides=there.stride(), storage_offset=there.storage_offset(),
                                                   dtype=there.dtype, layout=there.layout, device=f"{NAME}:0")

    def __init__(self, there):
        self.there = there

    def __repr__(self):
        return f"OnDevice({self.there})"

    def __format__(self, spec):
        return format(self.item(), spec)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} on a tensor of a pretended GPU whose `with` is over")


class GPU(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.read, self.sent, self.waits, self.launched = [], [], [], Counter()     # shapes; operations by name

    def forget(self):
        for seen in (self.read, self.sent, self.waits, self.launched):
            seen.clear()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        there, here = ([x for x in tensors if isinstance(x, OnDevice) == on] for on in (True, False))
        asked = kwargs.get("device")
        if not there and (asked is None or torch.device(asked).type != NAME):
            return func(*args, **kwargs)
        arrays = [x for x in here if x.ndim]                               # a single number may come from the CPU
        name, refused = func.overloadpacket.__name__, arrays
        if func in COPIES:
            refused = []
        elif func in BY_INDEX:
            refused = [x for x in (args[0], *args[2:3]) if isinstance(x, torch.Tensor) and x.ndim and not isinstance(x, OnDevice)]
        if there and refused:
            raise RuntimeError(f"Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and cpu! "
                               f"({func}, {[tuple(x.shape) for x in refused]} on the cpu)")
        lands = not (there and func is aten._to_copy.default and asked is not None and torch.device(asked).type != NAME)
        if func is aten.copy_.default:
            lands = isinstance(args[0], OnDevice)
        masked = func in BY_INDEX and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
        if there and (not lands or name == "_local_scalar_dense"):
            self.read.append(tuple(there[0].shape))
            self.waits.append(self.read[-1])
        elif name in HOST_NEEDS or masked:                                 # how many there are, say
            self.waits.append(tuple(there[0].shape))
        elif lands and arrays:
            self.sent.append(tuple(arrays[0].shape))
            free = kwargs.get("non_blocking") or func is aten.copy_.default and len(args) > 2 and args[2]
            if not free or arrays[0].numel() * arrays[0].element_size() > STAGED:     # until all is done that was launched before
                self.waits.append(tuple(arrays[0].shape))
        if name not in NO_KERNEL:
            self.launched[name] += 1
        a, k = tree_map(lambda x: x.there if isinstance(x, OnDevice) else x, (args, kwargs))
        if asked is not None:
            k = k | {"device": torch.device("cpu")}
        out = func(*a, **{name: value for name, value in k.items() if name not in ("pin_memory", "non_blocking")})
        if func is aten.copy_.default:
            return args[0]
        if not lands:
            return out
        wrapped = tree_map(lambda x: OnDevice(x) if isinstance(x, torch.Tensor) else x, out)
        return return_and_correct_aliasing(func, args, kwargs, wrapped)


class _Sent(TorchFunctionMode):
    """torch.tensor(values, device=...) makes its tensor on the CPU and sends it; by itself it does so below every dispatcher."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and (device := kwargs.pop("device", None)) is not None:
            return func(*args, **kwargs).to(device)
        return func(*args, **kwargs)


class _Module:
    """What torch asks of a kind of device, as torch.cuda answers it."""

    def is_initialized(self): return True
    def is_available(self): return True
    def current_device(self): return 0
    def device_count(self): return 1
    def manual_seed_all(self, seed): ...
    def _is_in_bad_fork(self): return False
    def get_amp_supported_dtype(self): return [torch.bfloat16]


_registered = []


@contextmanager
def gpu():
    """A fresh GPU, by the device name "pretended", while the `with` lasts."""
    if not _registered:
        _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
        autocast = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
        autocast.fallback(torch.library.fallthrough_kernel)                # full precision: the CPU's numbers stay comparable
        _registered.append(autocast)
    torch.__future__.set_overwrite_module_params_on_conversion(True)       # a module's move makes new parameters
    try:
        with torch.autograd.set_multithreading_enabled(False), GPU() as device, _Sent():
            yield device
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
