"""Agents whose action head is learned or a frozen simplex ETF."""

from agents.heads import ETFHead as ETFHead
from agents.heads import LinearHead as LinearHead
from agents.networks import PopulationMLP as PopulationMLP
from agents.networks import project_to_ball as project_to_ball
from agents.policy import Policy as Policy
from agents.policy import PolicyOutput as PolicyOutput
from agents.tabular import TabularConfig as TabularConfig
from agents.tabular import TabularTrainer as TabularTrainer
