"""Stand-ins for a GPU: another device that computes here, and a graph that replays here."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
# What a GPU lets a tensor of the CPU take part in.
CROSSING = {
    *(aten.copy_.default, aten._to_copy.default),
    *(aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default),
}


class Elsewhere(torch.Tensor):
    """A tensor that says it is on the device meta; its values are `held` on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held):
        how = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        how |= {"dtype": held.dtype, "device": "meta"}
        return torch.Tensor._make_wrapper_subclass(cls, held.shape, **how)

    def __init__(self, held):
        self.held = held

    data = property(lambda self: Elsewhere(self.held), lambda self, new: self.__init__(new.held))

    def tolist(self):
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} on another device, outside of OtherDevice")


def tensors_in(values):
    return [t for t in tree_leaves(values) if isinstance(t, torch.Tensor)]


def held(tensor):
    """The values of a tensor elsewhere; all others as they are."""
    return tensor.held if isinstance(tensor, Elsewhere) else tensor


class OtherDevice(TorchDispatchMode):
    """Within it the device meta computes; CPU tensors beside those there raise, as on a GPU.

    capturing: the graph that records what is done there, if one does. What would have to wait for
    the device, or for the CPU, then raises, as on a GPU.
    """

    def __init__(self):
        super().__init__()
        self.capturing = None

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = tensors_in((args, kwargs))
        there = [t for t in tensors if isinstance(t, Elsewhere)]
        stray = [t for t in tensors if not isinstance(t, Elsewhere) and t.dim() > 0]
        if there and stray and func not in CROSSING:
            raise RuntimeError(f"{func}: expected all tensors on one device, found meta and cpu")
        goes_to = kwargs.get("device")
        if goes_to is not None:
            kwargs["device"] = "cpu"
        stays = bool(there) if goes_to is None else str(goes_to) == "meta"
        changed = args[0] if args else None
        args, kwargs = tree_map(held, args), tree_map(held, kwargs)
        if self.capturing is not None and (there or stays):
            waits = stray or not stays or func is aten._local_scalar_dense.default
            out = self.capturing.record(func, args, kwargs, waits)
        else:
            out = func(*args, **kwargs)
        if func._schema.is_mutable:
            in_place = func._schema.name.endswith("_") and isinstance(out, torch.Tensor)
            return changed if in_place else out
        return (
            tree_map(lambda t: Elsewhere(t) if isinstance(t, torch.Tensor) else t, out)
            if stays
            else out
        )


class StandInGraph:
    """As train.CudaGraph, for OtherDevice: records all operations there, and replays them on the
    same memory. The capture leaves all values as they were.

    spoil: called before each operation in a capture with how many there were; may raise.
    """

    def __init__(self, device: OtherDevice, spoil=lambda n: None):
        self.device, self.spoil = device, spoil
        self.operations, self.before = [], {}

    def warm_up(self, call):
        call()

    def capture(self, call):
        self.operations, self.before = [], {}
        self.device.capturing = self
        try:
            call()
        finally:
            self.device.capturing = None
            for storage, value in self.before.values():
                storage.copy_(value)

    def record(self, func, args, kwargs, waits):
        self.spoil(len(self.operations))
        if waits:
            raise RuntimeError(f"{func}: operation not permitted when stream is capturing")
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                for storage in (t.untyped_storage() for t in tensors_in(value)):
                    self.before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        out = func(*args, **kwargs)
        self.operations.append((func, args, kwargs, out))
        return out

    @torch.no_grad()
    def replay(self):
        for func, args, kwargs, out in self.operations:
            again = func(*args, **kwargs)
            for old, new in zip(tensors_in(out), tensors_in(again), strict=True):
                if old.data_ptr() != new.data_ptr():  # in place, and views, are there already
                    old.copy_(new)
