"""One moment of one policy: its features, its labels and its action-selection layer.

A :class:`Snapshot` is what every producer hands over (the grid world, our agents, a foreign
network) and what every measurement takes. The ``check_*`` functions and :class:`FeatureRows` are
the boundary that :mod:`analysis.metrics` shares with it: the same data are refused with the same
words whichever door they come through.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

__all__ = ["Array", "FeatureRows", "Snapshot"]

Array: TypeAlias = NDArray[Any] | torch.Tensor

BIAS_ALONE = "a bias without a head decides nothing; pass the head as well"

_TORCH_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_TORCH_INTS = (
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
)
# Elements of one float64 chunk: 1 MiB stays in a core's cache, 128 MiB fills an accelerator.
_CHUNK_ELEMENTS_CPU = 1 << 17
_CHUNK_ELEMENTS_ACCELERATOR = 1 << 24


def _as_array(value: object, name: str) -> Array:
    """Strip a tensor of its graph, make anything else a NumPy array; copy neither."""
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided or value.is_quantized:
            raise TypeError(
                f"{name} is a {value.layout} tensor; pass a dense one ({name}.to_dense())"
            )
        return value.detach()
    if isinstance(value, torch.nn.Module):
        raise TypeError(
            f"{name} is a module ({type(value).__name__}), not an array; pass its tensor, "
            f"for a linear layer `module.weight` or `module.bias`"
        )
    return np.asarray(value)


def _require_floats(array: Array, name: str) -> None:
    if isinstance(array, torch.Tensor):
        known = array.dtype in _TORCH_FLOATS
    else:
        known = array.dtype.kind == "f" and array.dtype.itemsize <= 8
    if not known:
        raise TypeError(
            f"{name} must hold float16, bfloat16, float32 or float64 numbers, got {array.dtype}; "
            f"convert on purpose, for example with numpy.asarray({name}, dtype=float)"
        )


def compute_device(device: torch.device) -> torch.device:
    """Name the device to compute on: the same one, but the CPU for MPS, which has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


class FeatureRows:
    """Features read as float64 chunks of rows, so that no full float64 copy is ever made.

    Parameters
    ----------
    features : (N, d) array or tensor
        NumPy array (read-only and memory-mapped ones too) or torch tensor of float16, bfloat16,
        float32 or float64. It is neither copied nor written to.
    chunk_rows : int, optional
        Rows in one chunk. By default as many as make 1 MiB of float64 on a CPU, 128 MiB on an
        accelerator.

    Raises
    ------
    TypeError
        If the numbers are not of one of those types.
    ValueError
        If `features` is not a matrix with at least one column, or `chunk_rows` is below 1.
    """

    def __init__(self, features: ArrayLike | torch.Tensor, chunk_rows: int | None = None) -> None:
        array = _as_array(features, "features")
        if array.ndim != 2:
            remedy = {0: "", 1: "; a single sample is features[None, :]"}.get(
                array.ndim, "; flatten what follows the sample axis: features.reshape(len, -1)"
            )
            raise ValueError(f"features must have shape (N, d), got {tuple(array.shape)}{remedy}")
        _require_floats(array, "features")
        self.array = array
        self.num_samples, self.dim = int(array.shape[0]), int(array.shape[1])
        if self.dim == 0:
            raise ValueError(
                f"features have shape ({self.num_samples}, 0): no feature dimension to measure"
            )
        self.device = (
            compute_device(array.device) if isinstance(array, torch.Tensor) else torch.device("cpu")
        )
        if chunk_rows is None:
            on_cpu = self.device.type == "cpu"
            elements = _CHUNK_ELEMENTS_CPU if on_cpu else _CHUNK_ELEMENTS_ACCELERATOR
            chunk_rows = max(1, elements // self.dim)
        elif operator.index(chunk_rows) < 1:
            raise ValueError(f"chunk_rows must be at least 1, got {chunk_rows}")
        self.chunk_rows = operator.index(chunk_rows)

    def chunks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Slices of the sample axis and their (chunk, d) float64 tensors on :attr:`device`.

        The tensor may share memory with the input: read it, do not write to it.
        """
        for start in range(0, self.num_samples, self.chunk_rows):
            rows = slice(start, min(start + self.chunk_rows, self.num_samples))
            part = self.array[rows]
            if isinstance(part, torch.Tensor):
                yield rows, part.to(device=self.device, dtype=torch.float64)
            else:
                # A copy of one chunk: torch takes neither read-only, nor byte-swapped, nor
                # negatively strided arrays as they are, and would warn of the first.
                yield rows, torch.from_numpy(np.array(part, dtype=np.float64, order="C"))

    def require_finite(self) -> None:
        """Refuse NaN and infinity.

        Raises
        ------
        ValueError
            Naming how many values in how many rows are not finite, and the first such row.
        """
        # A NaN or an infinity survives a sum, and a sum costs a fifth of elementwise isfinite;
        # a sum that overflows on finite float64 is cleared by the elementwise look.
        if all(bool(torch.isfinite(chunk.sum())) for _, chunk in self.chunks()):
            return
        values, bad_rows, first = 0, 0, -1
        for rows, chunk in self.chunks():
            per_row = (~torch.isfinite(chunk)).sum(dim=1)
            hit = torch.nonzero(per_row)[:, 0]
            if len(hit):
                first = rows.start + int(hit[0]) if first < 0 else first
                values += int(per_row.sum())
                bad_rows += len(hit)
        if values:
            raise ValueError(
                f"features hold {values} non-finite values (NaN or infinity) in {bad_rows} of "
                f"{self.num_samples} rows, the first in row {first}; look for divergence there, "
                f"or drop these rows and say so"
            )


def check_num_classes(num_classes: object) -> int:
    """Return `num_classes` as an int of at least 2, or say why it cannot be.

    Raises
    ------
    TypeError
        If it is no integer.
    ValueError
        If it is below 2.
    """
    try:
        count = operator.index(cast(Any, num_classes))
    except TypeError:
        raise TypeError(
            f"num_classes must be an integer, got {num_classes!r} of type "
            f"{type(num_classes).__name__}"
        ) from None
    if count < 2:
        raise ValueError(
            f"num_classes is {count}: collapse is a statement about pairs of actions and needs at "
            f"least 2; pass num_classes=K, the size of the action space, if the labels show fewer"
        )
    return count


def _check_integers(
    values: ArrayLike | torch.Tensor, name: str, num_samples: int, which: str = ""
) -> torch.Tensor:
    """Return one integer a row as an (N,) int64 tensor on its own device."""
    array = _as_array(values, name)
    if array.ndim != 1:
        size = array.numel() if isinstance(array, torch.Tensor) else array.size
        remedy = f"; flatten it: {name}.reshape(-1)" if size == num_samples else ""
        raise ValueError(f"{name} must have shape (N,), got {tuple(array.shape)}{remedy}")
    if array.shape[0] != num_samples:
        one = name.removesuffix("s")
        raise ValueError(
            f"{num_samples} rows of features but {array.shape[0]} {name}; pass one {one} a row"
        )
    if isinstance(array, torch.Tensor):
        integers = array.dtype in _TORCH_INTS
    else:
        # numpy.asarray([]) is float64: an empty list is no mistake of type.
        integers = array.dtype.kind in "iu" or array.size == 0
    if not integers:
        raise TypeError(
            f"{name} must be integers{which and ' '}{which}, got {array.dtype}; if they are whole "
            f"numbers convert them on purpose: {name}.astype(int), or {name}.long() for a tensor"
        )
    if isinstance(array, torch.Tensor):
        return array.to(device=compute_device(array.device), dtype=torch.int64)
    return torch.from_numpy(np.array(array, dtype=np.int64))


def check_labels(
    labels: ArrayLike | torch.Tensor, num_samples: int, num_classes: int | None
) -> torch.Tensor:
    """Return labels as an (N,) int64 tensor on their own device.

    Raises
    ------
    TypeError
        If they are not of an integer type (whole floats included).
    ValueError
        If their shape is not (num_samples,), or one is negative or, with `num_classes` given, not
        below it; the message counts them and names the first row.
    """
    tensor = _check_integers(labels, "labels", num_samples, "in 0..K-1")
    if num_samples == 0:
        return tensor
    low, high = torch.stack([tensor.min(), tensor.max()]).tolist()
    if low < 0:
        bad = torch.nonzero(tensor < 0)[:, 0]
        raise ValueError(
            f"{len(bad)} of {num_samples} labels are negative, the first is "
            f"{int(tensor[bad[0]])} at row {int(bad[0])}; leave unlabelled samples out"
        )
    if num_classes is not None and high >= num_classes:
        bad = torch.nonzero(tensor >= num_classes)[:, 0]
        raise ValueError(
            f"{len(bad)} of {num_samples} labels are outside 0..{num_classes - 1}, the first is "
            f"{int(tensor[bad[0]])} at row {int(bad[0])}; relabel, or measure with at least "
            f"{high + 1} actions"
        )
    return tensor


def _require_finite(array: torch.Tensor, name: str) -> None:
    bad = torch.nonzero(~torch.isfinite(array.reshape(len(array), -1)).all(dim=1))[:, 0]
    if len(bad):
        raise ValueError(
            f"{name} holds NaN or infinity in {len(bad)} of {len(array)} rows, the first is row "
            f"{int(bad[0])}; the policy has diverged or was read while being written"
        )


def check_head(head: ArrayLike | torch.Tensor, num_classes: int | None, dim: int) -> torch.Tensor:
    """Return the action-selection layer as a (K, d) float64 copy on the CPU, rows being actions.

    Raises
    ------
    TypeError
        If it is not of a floating type, or is a module instead of its weight.
    ValueError
        If its shape is not (num_classes, dim), or a row is not finite.
    """
    array = _as_array(head, "head")
    expected = f"({'K' if num_classes is None else num_classes}, {dim})"
    shape = tuple(array.shape)
    if array.ndim != 2 or shape[1] != dim or (num_classes is not None and shape[0] != num_classes):
        transposed = array.ndim == 2 and shape[0] == dim and num_classes in (None, shape[1])
        remedy = "; its rows must be the actions: pass head.T" if transposed else ""
        raise ValueError(f"head has shape {shape}, expected {expected}{remedy}")
    _require_floats(array, "head")
    tensor = _small(array)
    _require_finite(tensor, "head")
    return tensor


def check_bias(bias: ArrayLike | torch.Tensor, num_classes: int) -> torch.Tensor:
    """Return the bias of the action-selection layer as a (K,) float64 copy on the CPU.

    Raises
    ------
    TypeError
        If it is not of a floating type.
    ValueError
        If its shape is not (num_classes,), or an entry is not finite.
    """
    array = _as_array(bias, "bias")
    if tuple(array.shape) != (num_classes,):
        raise ValueError(f"bias has shape {tuple(array.shape)}, expected ({num_classes},)")
    _require_floats(array, "bias")
    tensor = _small(array)
    _require_finite(tensor, "bias")
    return tensor


def _small(array: Array) -> torch.Tensor:
    """Copy something no larger than a head to float64 on the CPU."""
    if isinstance(array, torch.Tensor):
        return array.to(device="cpu").to(dtype=torch.float64, copy=True)
    return torch.from_numpy(np.array(array, dtype=np.float64, order="C"))


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Features, labels and action-selection layer of one policy at one step, validated.

    Parameters
    ----------
    features : (N, d) array or tensor of float16, bfloat16, float32 or float64
        Last-layer activations, one row a state.
    labels : (N,) integer array or tensor
        Optimal action of each state, in 0..K − 1. Not every action need occur.
    head : (K, d) array or tensor, optional
        Weights of the action-selection layer, rows being actions.
    bias : (K,) array or tensor, optional
        Its bias; only together with `head`.
    num_classes : int
        K, the size of the action space, at least 2.
    step : int
        When it was taken, in the unit the producer counts (updates, epochs, environment steps).
    tags : mapping of str to str, int or float, optional
        What else a stored row should carry (environment, algorithm, seed, ...).
    episodes : (N,) integer array or tensor, optional
        Which episode each state was visited in, any numbers. States of one episode resemble each
        other, and intervals are then from resampled episodes. Without them every state is taken
        for independent of the rest.

    Raises
    ------
    TypeError
        For numbers, labels or episodes of the wrong type, a step that is no integer, a tag of
        another type.
    ValueError
        For shapes that disagree, labels outside 0..K − 1, no sample at all, NaN or infinity
        anywhere, a bias without a head, a negative step, a tag named like a field of this class.

    Notes
    -----
    Arrays and tensors are kept as they are, not copied; lists become arrays. Two snapshots compare
    by identity, because arrays have no single truth value.
    """

    features: Array
    labels: Array
    head: Array | None = None
    bias: Array | None = None
    num_classes: int = field(kw_only=True)
    step: int = field(kw_only=True)
    tags: Mapping[str, str | int | float] = field(default_factory=dict, kw_only=True)
    episodes: Array | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        num_classes = check_num_classes(self.num_classes)
        rows = FeatureRows(self.features)
        if rows.num_samples == 0:
            raise ValueError(
                f"features have shape (0, {rows.dim}): a snapshot needs at least one sample"
            )
        check_labels(self.labels, rows.num_samples, num_classes)
        if self.head is not None:
            check_head(self.head, num_classes, rows.dim)
        if self.bias is not None:
            if self.head is None:
                raise ValueError(BIAS_ALONE)
            check_bias(self.bias, num_classes)
        if self.episodes is not None:
            _check_integers(self.episodes, "episodes", rows.num_samples)
        rows.require_finite()
        try:
            step = operator.index(self.step)
        except TypeError:
            raise TypeError(f"step must be an integer, got {self.step!r}") from None
        if step < 0:
            raise ValueError(f"step must not be negative, got {step}")
        settle = object.__setattr__  # the dataclass is frozen
        settle(self, "features", rows.array)
        settle(self, "labels", _as_array(self.labels, "labels"))
        episodes = None if self.episodes is None else _as_array(self.episodes, "episodes")
        settle(self, "episodes", episodes)
        settle(self, "head", None if self.head is None else _as_array(self.head, "head"))
        settle(self, "bias", None if self.bias is None else _as_array(self.bias, "bias"))
        settle(self, "num_classes", num_classes)
        settle(self, "step", step)
        settle(self, "tags", _checked_tags(self.tags))

    @property
    def num_samples(self) -> int:
        """N, the number of states."""
        return int(self.features.shape[0])

    @property
    def dim(self) -> int:
        """d, the length of a feature."""
        return int(self.features.shape[1])

    @property
    def counts(self) -> NDArray[np.int64]:
        """(K,) int64 number of states of each action, zeros included."""
        labels = check_labels(self.labels, self.num_samples, self.num_classes)
        return torch.bincount(labels, minlength=self.num_classes).cpu().numpy()


def _checked_tags(tags: Mapping[str, str | int | float]) -> dict[str, str | int | float]:
    """Check the tags and copy them into a plain dict, so that a snapshot can be pickled."""
    fields = set(Snapshot.__dataclass_fields__)
    for name, value in tags.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"tag names must be non-empty strings, got {name!r}")
        if name in fields:
            raise ValueError(f"tag {name!r} is the name of a snapshot's own field; rename it")
        if not isinstance(value, str | int | float):
            raise TypeError(
                f"tag {name!r} is a {type(value).__name__}; tags are str, int or float, so that "
                f"a row can be stored: use .item() on an array, str() on the rest"
            )
    return dict(tags)
