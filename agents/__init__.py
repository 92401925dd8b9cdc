"""Agents whose action head is learned or a frozen simplex ETF."""

from agents.a2c import A2C as A2C
from agents.a3c import A3C as A3C
from agents.config import EnvConfig as EnvConfig
from agents.config import HeadConfig as HeadConfig
from agents.config import TrainConfig as TrainConfig
from agents.heads import ETFHead as ETFHead
from agents.heads import FrozenGaussianHead as FrozenGaussianHead
from agents.heads import FrozenOrthogonalHead as FrozenOrthogonalHead
from agents.heads import LinearHead as LinearHead
from agents.networks import PopulationMLP as PopulationMLP
from agents.networks import project_to_ball as project_to_ball
from agents.policy import Policy as Policy
from agents.policy import PolicyOutput as PolicyOutput
from agents.ppo import PPO as PPO
from agents.presets import preset as preset
from agents.reinforce import Reinforce as Reinforce
from agents.tabular import TabularConfig as TabularConfig
from agents.tabular import TabularTrainer as TabularTrainer
from agents.training import Trainer as Trainer
from agents.trpo import TRPO as TRPO
