"""The layer-peeled model: solve it, certify the answer, compare with Theorem 1.

>>> import numpy as np, lpm
>>> head = lpm.simplex_etf(4, 16, energy=1.0, rng=np.random.default_rng(0))
>>> problem = lpm.PeeledProblem(head, labels=[0, 0, 0, 1, 2], weights=[1, 5, 1e-6, 2, 1e6],
...                             feature_energy=25.0)
>>> solution = lpm.solve(problem)
>>> certificate = lpm.certify(problem, solution.features)
>>> certificate.kkt_residual < 1e-12 and certificate.relative_gap < 1e-12
True
>>> bool(np.allclose(solution.features, 5.0 * head[problem.labels]))  # Eq. (27)
True
"""

from lpm.certificate import Certificate as Certificate
from lpm.certificate import certify as certify
from lpm.closed_form import log_multiplier_cross_entropy as log_multiplier_cross_entropy
from lpm.closed_form import log_multiplier_exponential as log_multiplier_exponential
from lpm.closed_form import optimal_log_odds as optimal_log_odds
from lpm.frames import etf_defect as etf_defect
from lpm.frames import gram as gram
from lpm.frames import simplex_etf as simplex_etf
from lpm.problem import PeeledProblem as PeeledProblem
from lpm.problem import log_softplus as log_softplus
from lpm.problem import sigmoid as sigmoid
from lpm.problem import softplus as softplus
from lpm.solution import Multipliers as Multipliers
from lpm.solution import Solution as Solution
from lpm.solution import Status as Status
from lpm.solvers import solve as solve
