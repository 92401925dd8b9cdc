"""Vectorised environments for a population of agents, through Gymnasium and ale-py."""

from agents.envs.base import Environments as Environments
from agents.envs.base import Step as Step
from agents.envs.make import make_environments as make_environments
