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
from lpm.enclosure import Enclosure as Enclosure
from lpm.expected_return import gradient_angle as gradient_angle
from lpm.expected_return import large_rho_angle as large_rho_angle
from lpm.expected_return import small_rho_cosine as small_rho_cosine
from lpm.expected_return import split_coefficients as split_coefficients
from lpm.expected_return import tie_pitchfork_rho as tie_pitchfork_rho
from lpm.expected_return_optimum import ExpectedReturnOptimum as ExpectedReturnOptimum
from lpm.expected_return_optimum import maximise_expected_return as maximise_expected_return
from lpm.frames import etf_defect as etf_defect
from lpm.frames import gram as gram
from lpm.frames import simplex_etf as simplex_etf
from lpm.free_head import FreeHeadProblem as FreeHeadProblem
from lpm.free_head import FreeHeadSolution as FreeHeadSolution
from lpm.free_head import FreeHeadStatus as FreeHeadStatus
from lpm.free_head import solve_free_head as solve_free_head
from lpm.free_head_closed_form import balanced_lower_bound as balanced_lower_bound
from lpm.free_head_closed_form import balanced_optimum as balanced_optimum
from lpm.free_head_closed_form import mse_diagonal as mse_diagonal
from lpm.free_head_closed_form import seli as seli
from lpm.free_head_closed_form import seli_step as seli_step
from lpm.free_head_closed_form import weight_decay_balanced as weight_decay_balanced
from lpm.free_head_closed_form import weight_decay_thresholds as weight_decay_thresholds
from lpm.free_head_fixed import average_norm_lengths as average_norm_lengths
from lpm.free_head_margins import class_margins as class_margins
from lpm.free_head_margins import cross_polytope as cross_polytope
from lpm.free_head_margins import icosahedron as icosahedron
from lpm.free_head_margins import regular_polygon as regular_polygon
from lpm.free_head_penalised import WeightDecayProblem as WeightDecayProblem
from lpm.free_head_penalised import WeightDecaySolution as WeightDecaySolution
from lpm.free_head_penalised import solve_weight_decay as solve_weight_decay
from lpm.free_head_transitions import minority_collapse_ratio as minority_collapse_ratio
from lpm.free_head_transitions import minority_vanishing_ratio as minority_vanishing_ratio
from lpm.free_head_transitions import vanishing_energy as vanishing_energy
from lpm.negative_weight import critical_rho_negative_weight as critical_rho_negative_weight
from lpm.orthant import largest_orthant_cosine as largest_orthant_cosine
from lpm.problem import PeeledProblem as PeeledProblem
from lpm.problem import log_softplus as log_softplus
from lpm.problem import sigmoid as sigmoid
from lpm.problem import softplus as softplus
from lpm.rigorous_fixed import enclose_fixed_head as enclose_fixed_head
from lpm.rigorous_free import enclose_free_head as enclose_free_head
from lpm.signed import SignedProblem as SignedProblem
from lpm.signed import SignedSolution as SignedSolution
from lpm.signed import solve_signed as solve_signed
from lpm.solution import Multipliers as Multipliers
from lpm.solution import Solution as Solution
from lpm.solution import Status as Status
from lpm.solvers import free_head_sdp as free_head_sdp
from lpm.solvers import solve as solve
from lpm.sphere import PointKind as PointKind
from lpm.sphere import SphereReport as SphereReport
from lpm.sphere import SphereSolution as SphereSolution
from lpm.sphere import classify_on_sphere as classify_on_sphere
from lpm.sphere import etf_pole_eigenvalues as etf_pole_eigenvalues
from lpm.sphere import solve_sphere as solve_sphere
