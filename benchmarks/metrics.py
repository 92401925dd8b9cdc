"""One pass of the streaming metrics against the textbook implementation in torch.

The textbook's passes: class means by masks, features minus their class mean written out as a
matrix, its (d, d) covariance, the pseudo-inverse of the (d, d) between-class covariance. It runs
twice: in float64, the precision of the streamed result, and in the features' own float32.
"""

import math
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from analysis.metrics import CollapseMetrics, CollapseResult
from benchmarks.harness import interleaved

SAMPLES, DIM, CLASSES, BATCH = 10**6, 512, 18, 8192
ROUNDS = 2
COMPARED = (
    "head_equinorm",
    "head_equiangularity",
    "head_max_angle",
    "feature_equinorm",
    "feature_equiangularity",
    "feature_max_angle",
    "within_class_variation",
    "variance_ratio",
)


def _batch(centres: torch.Tensor, index: int, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Batch `index` of a rectified mixture; the same wherever it is drawn."""
    generator = torch.Generator().manual_seed(index)
    labels = torch.randint(len(centres), (rows,), generator=generator)
    noise = torch.randn(rows, centres.shape[1], generator=generator)
    return torch.relu(centres[labels] + 0.5 * noise), labels


def _centres() -> torch.Tensor:
    return torch.randn(CLASSES, DIM, generator=torch.Generator().manual_seed(2**31))


def _data() -> tuple[torch.Tensor, torch.Tensor]:
    features, labels = torch.empty(SAMPLES, DIM), torch.empty(SAMPLES, dtype=torch.int64)
    centres = _centres()
    for index, start in enumerate(range(0, SAMPLES, BATCH)):
        rows = slice(start, min(start + BATCH, SAMPLES))
        features[rows], labels[rows] = _batch(centres, index, rows.stop - start)
    return features, labels


def _stream(features: torch.Tensor, labels: torch.Tensor, head: torch.Tensor) -> CollapseResult:
    metrics = CollapseMetrics(CLASSES, DIM)
    for start in range(0, len(features), BATCH):
        metrics.update(features[start : start + BATCH], labels[start : start + BATCH])
    return metrics.compute(head=head)


def _frame(rows: Any, library: Any) -> tuple[float, float, float]:
    """Equinorm, equiangularity and maximal angle of the rows, in NumPy or torch."""
    norms = library.linalg.norm(rows, axis=1)
    unit = rows / norms[:, None]
    cosines = (unit @ unit.T)[~np.eye(len(rows), dtype=bool)]
    spread = ((norms - norms.mean()) ** 2).mean() ** 0.5 / norms.mean()
    angle = ((cosines - cosines.mean()) ** 2).mean() ** 0.5
    return float(spread), float(angle), float(abs(cosines + 1 / (len(rows) - 1)).mean())


def textbook(features: torch.Tensor, labels: torch.Tensor, head: torch.Tensor) -> dict[str, float]:
    """Straightforward multi-pass torch, in the precision of `features`."""
    means = torch.stack([features[labels == k].mean(dim=0) for k in range(len(head))])
    centred = means - means.mean(dim=0)
    residuals = features - means[labels]
    within = residuals.T @ residuals / len(features)
    between = centred.T @ centred / len(head)
    inverse = torch.linalg.pinv(between, rcond=1e-6, hermitian=True)
    values = (
        *_frame(head.to(features.dtype), torch),
        *_frame(centred, torch),
        float(torch.trace(within @ inverse)) / len(head),
        float(torch.trace(within) / torch.trace(between)),
    )
    return dict(zip(COMPARED, values, strict=True))


def reference(features: torch.Tensor, labels: torch.Tensor, head: torch.Tensor) -> dict[str, float]:
    """float64 NumPy, one class at a time so that no (N, d) float64 copy is made."""
    own: list[NDArray[np.float64]] = []
    within = np.zeros((DIM, DIM))
    y = labels.numpy()
    for k in range(CLASSES):
        rows = features.numpy()[y == k].astype(np.float64)
        own.append(rows.mean(axis=0))
        rows -= own[-1]
        within += rows.T @ rows
    within /= len(y)
    centred = np.stack(own) - np.mean(own, axis=0)
    between = centred.T @ centred / CLASSES
    values = (
        *_frame(head.numpy().astype(np.float64), np),
        *_frame(centred, np),
        float(np.trace(within @ np.linalg.pinv(between, rcond=1e-12, hermitian=True))) / CLASSES,
        float(np.trace(within) / np.trace(between)),
    )
    return dict(zip(COMPARED, values, strict=True))


def _errors(found: dict[str, float], expected: dict[str, float]) -> dict[str, float]:
    """Relative error of each compared metric."""
    return {name: abs(found[name] / expected[name] - 1.0) for name in COMPARED}


def _peak_memory(samples: int) -> dict[str, float]:
    """Peak resident memory of a fresh process that streams `samples` generated states."""
    script = f"from benchmarks.metrics import _report_memory; _report_memory({samples})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    before, after = map(float, done.stdout.split())
    return {"samples": samples, "before_mib": before, "peak_mib": after}


def _report_memory(samples: int) -> None:
    """Print the peak resident memory in MiB before and after the stream."""
    torch.set_num_threads(1)
    metrics, centres = CollapseMetrics(CLASSES, DIM), _centres()
    kib = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]
    for index, start in enumerate(range(0, samples, BATCH)):
        metrics.update(*_batch(centres, index, min(BATCH, samples - start)))
    metrics.compute(head=centres)
    kib.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    print(*(value / 1024 for value in kib))


def run() -> dict[str, Any]:
    """N = 10⁶ states, d = 512, K = 18, float32: speed, accuracy and memory."""
    memory = [_peak_memory(samples) for samples in (SAMPLES // 10, SAMPLES)]
    start = time.perf_counter()
    features, labels = _data()
    generated = time.perf_counter() - start
    head = _centres()
    expected = reference(features, labels, head)
    ours = {name: float(getattr(_stream(features, labels, head), name)) for name in COMPARED}
    assert not any(math.isnan(value) for value in ours.values())

    def against(dtype: torch.dtype) -> dict[str, Any]:
        found: dict[str, float] = {}

        def peer() -> None:
            found.update(textbook(features.to(dtype), labels, head))

        timing = interleaved(lambda: _stream(features, labels, head), peer, ROUNDS)
        return {**timing, "peer_relative_errors": _errors(found, expected)}

    return {
        "question": f"CollapseMetrics in one pass (batches of {BATCH}) against multi-pass torch, "
        f"N=10⁶, d={DIM}, K={CLASSES}, float32 features in memory, one thread",
        "peer": "class means by masks, materialised residuals, (d, d) covariance, (d, d) pinv",
        "float64": against(torch.float64),
        "float32": against(torch.float32),
        "ours_relative_errors": _errors(ours, expected),
        "reference": expected,
        "peak_memory": memory,
        "generating_s": generated,
    }
