"""Measure the features of any policy, and hold them against the layer-peeled model's optimum.

>>> import numpy as np, analysis, lpm
>>> rng = np.random.default_rng(0)
>>> head = lpm.simplex_etf(4, 8, energy=1.0, rng=rng)
>>> def policy(states):  # anything that shows features and logits; here they are the states
...     return states, states @ head.T
>>> actions = np.repeat(np.arange(4), 50)
>>> states = 5.0 * head[actions] + 0.01 * rng.standard_normal((200, 8))
>>> found = analysis.probe(policy, states, head=head, snapshot_size=200)
>>> found.collapse.feature_max_angle < 0.002  # from the simplex ETF's −1/3
True
>>> against = analysis.overlay(found.snapshot, rng=rng, head="fixed")
>>> against.comparisons["centred"].angle_error.value < 0.5  # degrees from the optimum
True
"""

from analysis.capture import HookedPolicy as HookedPolicy
from analysis.metrics import CollapseMetrics as CollapseMetrics
from analysis.metrics import CollapseResult as CollapseResult
from analysis.metrics import collapse_metrics as collapse_metrics
from analysis.metrics import snapshot_metrics as snapshot_metrics
from analysis.overlay import Across as Across
from analysis.overlay import Overlay as Overlay
from analysis.overlay import across as across
from analysis.overlay import overlay as overlay
from analysis.probe import ProbeResult as ProbeResult
from analysis.probe import probe as probe
from analysis.snapshot import Snapshot as Snapshot
