"""Exactly solved finite MDPs: Ideal Cliff Walking, its Conditions 1 to 3, its environment.

Importing this package registers ``IdealCliffWalking-v0`` with Gymnasium.
"""

import gymnasium

from gridworld.chain import MarkovRewardProcess as MarkovRewardProcess
from gridworld.cliff import ACTION_MOVES as ACTION_MOVES
from gridworld.cliff import ACTION_NAMES as ACTION_NAMES
from gridworld.cliff import START_DISTRIBUTIONS as START_DISTRIBUTIONS
from gridworld.cliff import CliffLayout as CliffLayout
from gridworld.cliff import cliff_layout as cliff_layout
from gridworld.cliff import ideal_cliff_walking as ideal_cliff_walking
from gridworld.cliff import inner_start as inner_start
from gridworld.cliff import outer_start as outer_start
from gridworld.cliff import uniform_start as uniform_start
from gridworld.conditions import ClassBalance as ClassBalance
from gridworld.conditions import ConditionReport as ConditionReport
from gridworld.conditions import Coverage as Coverage
from gridworld.conditions import Uniformity as Uniformity
from gridworld.conditions import check_conditions as check_conditions
from gridworld.env import IdealCliffWalkingEnv as IdealCliffWalkingEnv
from gridworld.mdp import TabularMDP as TabularMDP
from gridworld.render import CliffPicture as CliffPicture
from gridworld.sampling import OnPolicy as OnPolicy
from gridworld.sampling import SamplingScheme as SamplingScheme
from gridworld.sampling import Sweep as Sweep

gymnasium.register(
    id="IdealCliffWalking-v0",
    entry_point="gridworld.env:IdealCliffWalkingEnv",
    max_episode_steps=200,
)
