"""Figures, drawn from stored rows only; the one place that imports matplotlib."""

from analysis.figures.benchmarks import figure_free_head_benchmark as figure_free_head_benchmark
from analysis.figures.benchmarks import figure_learning_curves as figure_learning_curves
from analysis.figures.cliff import Curve as Curve
from analysis.figures.cliff import figure1 as figure1
from analysis.figures.peeled import figure_lpm as figure_lpm
from analysis.figures.style import encode as encode
