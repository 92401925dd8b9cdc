"""Deliberately broken builds, one edit each, and the test that must notice.

Every bug here is one that somebody could write: a sign, a factor, a transposed axis, weights
forgotten, a difference that cancels, float32 where float64 was meant. `test_mutants` checks that
each ``old`` still occurs exactly once in its file, that every property has a mutant, and (marked
slow) that each named test fails on its broken build. The builds are listed by room, those of `lpm`
in three parts.
"""

from mutants_agents import AGENTS
from mutants_analysis import ANALYSIS
from mutants_free_head import FREE_HEAD
from mutants_gridworld import GRIDWORLD
from mutants_lpm import LPM
from mutants_lpm_variants import VARIANTS

MUTANTS = LPM + VARIANTS + FREE_HEAD + GRIDWORLD + AGENTS + ANALYSIS
