"""Collapse metrics of features that arrive in batches, or lie on several machines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from analysis.collapse_first_pass import FirstPass, Moments
from analysis.collapse_formulae import evaluate
from analysis.collapse_geometry import DEFAULT_RCOND, Geometry, check_rcond, norms
from analysis.collapse_result import CollapseResult
from analysis.collapse_second_pass import SecondPass
from analysis.snapshot import (
    BIAS_ALONE,
    FeatureRows,
    check_bias,
    check_head,
    check_labels,
    check_num_classes,
    compute_device,
)

_STATE_VERSION = 1


class CollapseMetrics:
    """Collapse metrics of a stream of batches, mergeable across devices and processes.

    Feed every batch to :meth:`update`, combine workers with :meth:`merge`, read the result with
    :meth:`compute`. The nearest class mean of a sample is known only when all means are, so
    `ncc_agreement` takes a second pass over the same data with :meth:`update_agreement`; without
    it, it is NaN. Everything else takes one pass.

    Parameters
    ----------
    num_classes : int
        K, the size of the action space, at least 2.
    dim : int
        d, the length of a feature.
    device : torch.device or str, optional
        Where to accumulate; by default where the first features are. MPS has no float64: the CPU
        takes its place.
    scatter : bool, optional
        Whether to keep the (d, d) within-class scatter that `within_class_variation` needs when
        data are seen once. It costs 8 d² bytes and N d² multiplications; without it that one field
        is NaN.
    rcond : float, optional
        Squared lengths below this share of their scale are zero, in (0, 1) (conventions of
        :mod:`analysis.metrics`).
    chunk_rows : int, optional
        Rows turned into float64 at a time (:class:`analysis.snapshot.FeatureRows`).

    Raises
    ------
    TypeError
        If a size is no integer.
    ValueError
        If `num_classes` is below 2, `dim` below 1, or `rcond` outside (0, 1).

    Examples
    --------
    >>> import numpy as np
    >>> stream = CollapseMetrics(num_classes=3, dim=3)
    >>> stream.update(2.0 * np.eye(3), np.array([0, 1, 2]))
    >>> stream.update(2.0 * np.eye(3), np.array([0, 1, 2]))
    >>> result = stream.compute(head=np.eye(3))
    >>> round(result.feature_max_angle, 12), round(result.head_max_angle, 12)
    (0.0, 0.5)
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        device: torch.device | str | None = None,
        scatter: bool = True,
        rcond: float = DEFAULT_RCOND,
        chunk_rows: int | None = None,
    ) -> None:
        self.num_classes = check_num_classes(num_classes)
        if isinstance(dim, bool) or not isinstance(dim, int | np.integer):
            raise TypeError(f"dim must be an integer, got {dim!r}")
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}")
        self.dim = int(dim)
        self.rcond = check_rcond(rcond)
        self.chunk_rows = chunk_rows
        where = None if device is None else compute_device(torch.device(device))
        self._first = FirstPass(self.num_classes, self.dim, device=where, scatter=scatter)
        self._second: SecondPass | None = None

    def __repr__(self) -> str:
        pass_two = "" if self._second is None else f", second pass {self._second.seen}"
        return (
            f"CollapseMetrics(num_classes={self.num_classes}, dim={self.dim}, "
            f"num_samples={self.num_samples}{pass_two})"
        )

    @property
    def num_samples(self) -> int:
        """N, the number of samples seen in the first pass."""
        return self._first.num_samples

    @property
    def counts(self) -> NDArray[np.int64]:
        """(K,) int64 copy of the number of samples of each action."""
        return self._first.counts.cpu().numpy().copy()

    def update(self, features: ArrayLike | torch.Tensor, labels: ArrayLike | torch.Tensor) -> None:
        """Add a batch. A refused batch leaves the object as it was.

        Parameters
        ----------
        features : (B, d) array or tensor of float16, bfloat16, float32 or float64
            Not changed and not kept. B = 0 is allowed and adds nothing.
        labels : (B,) integer array or tensor
            In 0..K − 1.

        Raises
        ------
        RuntimeError
            After :meth:`update_agreement`, which holds the means fixed.
        TypeError, ValueError
            If shapes, types or labels do not fit, or a feature is not finite.
        """
        self._refuse_when_frozen("update")
        rows = self._rows(features)
        y = check_labels(labels, rows.num_samples, self.num_classes)
        if rows.num_samples == 0:
            return
        rows.require_finite()
        self._first.add(rows, y)

    def _rows(self, features: ArrayLike | torch.Tensor) -> FeatureRows:
        rows = FeatureRows(features, self.chunk_rows)
        if rows.dim != self.dim:
            raise ValueError(
                f"features have {rows.dim} columns, this object was built with dim={self.dim}"
            )
        return rows

    def merge(self, other: CollapseMetrics) -> CollapseMetrics:
        """Add what another object has seen, as if this one had seen it too.

        The result depends on the order of merging only by rounding.

        Parameters
        ----------
        other : CollapseMetrics
            With the same `num_classes`, `dim` and `scatter`, on any device; not changed.

        Returns
        -------
        CollapseMetrics
            This object, for chaining.

        Raises
        ------
        TypeError
            If `other` is something else.
        ValueError
            If the sizes differ.
        RuntimeError
            If either has begun its second pass: see :meth:`merge_agreement`.
        """
        self._require_alike(other)
        for one in (self, other):
            one._refuse_when_frozen("merge")
        self._first.merge(other._first)
        return self

    def _require_alike(self, other: object) -> None:
        if not isinstance(other, CollapseMetrics):
            raise TypeError(
                f"can only merge a CollapseMetrics, got {type(other).__name__}; a state_dict goes "
                f"through load_state_dict of a new object first"
            )
        if other is self:
            raise ValueError("merging an object with itself would count every sample twice")
        mine, theirs = self._first.kind, other._first.kind
        if mine != theirs:
            raise ValueError(
                f"cannot merge (num_classes, dim, scatter) = {theirs} into {mine}; "
                f"build both with the same"
            )

    # ------------------------------------------------------------------ second pass

    def update_agreement(
        self,
        features: ArrayLike | torch.Tensor,
        head: ArrayLike | torch.Tensor,
        bias: ArrayLike | torch.Tensor | None = None,
    ) -> None:
        """Second pass: hold decisions against the class means, which are fixed from now on.

        Call it for every batch that :meth:`update` was given, in any order and any batching. To
        split this pass over processes, first merge the first pass and hand its state to each, then
        collect with :meth:`merge_agreement`.

        Parameters
        ----------
        features : (B, d) array or tensor of float16, bfloat16, float32 or float64
            Samples of the first pass; labels are not needed.
        head : (K, d) array or tensor
            Action-selection layer, the same in every call.
        bias : (K,) array or tensor, optional
            Its bias, the same in every call.

        Raises
        ------
        RuntimeError
            If nothing was seen in a first pass.
        TypeError, ValueError
            If shapes or types do not fit, a value is not finite, or the head is another one than
            in the calls before (:meth:`reset_agreement` begins anew).
        """
        rows = self._rows(features)
        weight = check_head(head, self.num_classes, self.dim)
        shift = None if bias is None else check_bias(bias, self.num_classes)
        origin = self._first.origin
        if origin is None:
            raise RuntimeError("no class means yet: update with all data, then update_agreement")
        if self._second is not None:
            self._second.require_same_head(weight, shift)
        rows.require_finite()
        second = self._begin_second_pass(weight, shift)
        for _, chunk in rows.chunks():
            second.add(chunk.to(origin.device) - origin)

    def _begin_second_pass(
        self, head: torch.Tensor, bias: torch.Tensor | None, geometry: Geometry | None = None
    ) -> SecondPass:
        if self._second is None:
            geometry = geometry or self._geometry()
            self._second = SecondPass(geometry, head, bias, self._first.means.device)
        return self._second

    def _geometry(self) -> Geometry:
        return Geometry.of(self._first, self.rcond)

    def merge_agreement(self, other: CollapseMetrics) -> CollapseMetrics:
        """Add the second pass of another object that shares this one's first pass.

        Parameters
        ----------
        other : CollapseMetrics
            Begun from the same merged first pass (same counts, means equal up to rounding) with
            the same head; not changed. One without a second pass adds nothing.

        Returns
        -------
        CollapseMetrics
            This object, for chaining.

        Raises
        ------
        TypeError
            If `other` is something else.
        ValueError
            If sizes, counts, means or heads differ.
        """
        self._require_alike(other)
        ours, theirs = self._geometry(), other._geometry()
        gap = math.inf
        if np.array_equal(ours.counts, theirs.counts):
            moved = theirs.means + (theirs.origin - ours.origin)
            gap = float(norms(moved - ours.means).max())
        scale = math.sqrt(ours.trace_between + ours.trace_within)
        if gap > 1e-9 * scale:
            raise ValueError(
                f"the two second passes rest on different first passes: counts "
                f"{ours.counts.tolist()} and {theirs.counts.tolist()}, largest distance of class "
                f"means {gap:.3g} at scale {scale:.3g}; merge the first passes before the second"
            )
        if other._second is None:
            return self
        second = self._begin_second_pass(other._second.head, other._second.bias, ours)
        second.merge(other._second)
        return self

    def reset_agreement(self) -> None:
        """Forget the second pass, so that the first can go on or another head be measured."""
        self._second = None

    def _refuse_when_frozen(self, what: str) -> None:
        if self._second is not None:
            raise RuntimeError(
                f"cannot {what}: the class means are fixed since update_agreement (second pass: "
                f"{self._second.seen} of {self.num_samples} samples); finish the first pass before "
                f"the second, or call reset_agreement() first"
            )

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Return everything seen so far as CPU tensors and plain values.

        Returns
        -------
        dict
            To be pickled, sent to another process, or written with ``torch.save`` (it loads with
            ``weights_only=True``). Tensors are copies.
        """
        second = self._second
        tensors = self._first.sums() | {
            "head": None if second is None else second.head,
            "bias": None if second is None else second.bias,
            "agreeing": None if second is None else second.agreeing,
        }
        return {
            "version": _STATE_VERSION,
            "num_classes": self.num_classes,
            "dim": self.dim,
            "seen": 0 if second is None else second.seen,
        } | {name: None if t is None else t.cpu().clone() for name, t in tensors.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace what was seen by a state from :meth:`state_dict`.

        Parameters
        ----------
        state : mapping
            Of an object with the same `num_classes`, `dim` and `scatter`.

        Raises
        ------
        ValueError
            If it is of another version, incomplete, or of other sizes; nothing is changed then.
        """
        loaded = self._checked(state)
        self._first.replace(loaded)
        self._second = None
        if loaded["head"] is not None and loaded["agreeing"] is not None:
            second = self._begin_second_pass(loaded["head"], loaded["bias"])
            second.agreeing, second.seen = loaded["agreeing"], int(state["seen"])

    def _checked(self, state: Mapping[str, Any]) -> dict[str, torch.Tensor | None]:
        """Copy a state's tensors to where they belong, or refuse it."""
        expected = self.state_dict().keys()
        if missing := sorted(set(expected) - set(state)):
            raise ValueError(f"the state lacks {missing}; it must come from state_dict()")
        if state["version"] != _STATE_VERSION:
            raise ValueError(
                f"the state has version {state['version']}, this code reads {_STATE_VERSION}"
            )
        mine = self._first.kind
        theirs = (state["num_classes"], state["dim"], state["scatter"] is not None)
        if mine != theirs:
            raise ValueError(
                f"the state has (num_classes, dim, scatter) = {theirs}, this object {mine}; "
                f"build it with the same"
            )
        per_class, per_mean = (self.num_classes,), (self.num_classes, self.dim)
        shapes = {
            "counts": per_class,
            "origin": (self.dim,),
            "means": per_mean,
            "variation": per_class,
            "scatter": (self.dim, self.dim),
            "head": per_mean,
            "bias": per_class,
            "agreeing": (2,),
        }
        optional = {"origin", "scatter", "bias"}
        if state["head"] is None:
            optional |= {"head", "agreeing"}
        device = self._first.means.device
        loaded: dict[str, torch.Tensor | None] = {}
        for name, shape in shapes.items():
            value = state[name]
            if value is None and name in optional:
                loaded[name] = None
                continue
            if not isinstance(value, torch.Tensor) or tuple(value.shape) != shape:
                found = getattr(value, "shape", type(value).__name__)
                raise ValueError(f"the state's {name} is {found}, expected a tensor {shape}")
            dtype = torch.int64 if name == "counts" else torch.float64
            where = torch.device("cpu") if name in ("head", "bias") else device
            loaded[name] = value.to(device=where, dtype=dtype, copy=True)
        return loaded

    # ------------------------------------------------------------------ results

    def moments(self) -> Moments:
        """Mean and covariance of all features seen, whatever their labels.

        The covariance is the pooled scatter within classes plus the scatter of the class means
        about the mean, so it costs no pass of its own.

        Returns
        -------
        Moments

        Raises
        ------
        ValueError
            If nothing was seen, or the object was built with ``scatter=False``.
        """
        return self._first.moments()

    def compute(
        self,
        head: ArrayLike | torch.Tensor | None = None,
        bias: ArrayLike | torch.Tensor | None = None,
    ) -> CollapseResult:
        """Return the metrics of everything seen so far; more may be added afterwards.

        Parameters
        ----------
        head : (K, d) array or tensor, optional
            Action-selection layer. By default the one of the second pass; with neither, what needs
            a head is NaN.
        bias : (K,) array or tensor, optional
            Only agreement depends on it: after a second pass it must be that pass's.

        Returns
        -------
        CollapseResult

        Raises
        ------
        OverflowError
            If squared features do not fit into float64.
        TypeError, ValueError
            If nothing was seen, the head does not fit, it is not the one of the second pass, or a
            bias comes without a head.
        """
        geometry = self._geometry()
        weight = None if head is None else check_head(head, self.num_classes, self.dim)
        if bias is not None and weight is None:
            raise ValueError(BIAS_ALONE)
        shift = None if bias is None else check_bias(bias, self.num_classes)
        if self._second is not None:
            if weight is None:
                weight = self._second.head
            else:
                self._second.require_same_head(weight, shift)
        along = self._first.variance_along(geometry.axes)
        return evaluate(geometry, along, weight, self._second, self.rcond)
