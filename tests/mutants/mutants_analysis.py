"""Broken builds of `analysis`."""

from mutant import Mutant

_METRICS = "tests/analysis/test_metrics.py::"

ANALYSIS = (
    Mutant(
        "analysis/collapse_formulae.py",
        "values.std(correction=0) / values.mean()",
        "values.std() / values.mean()",
        f"{_METRICS}test_equals_the_naive_reference",
        "the sample's standard deviation instead of the population's",
    ),
    Mutant(
        "analysis/collapse_formulae.py",
        "(cosines + 1.0 / (len(rows) - 1)).abs()",
        "(cosines + 1.0 / len(rows)).abs()",
        f"{_METRICS}test_equals_the_naive_reference",
        "target -1/K instead of -1/(K-1)",
    ),
    Mutant(
        "analysis/collapse_result.py",
        'f.type in (float, "float")',
        'f.type in (float, "float", int, "int")',
        f"{_METRICS}test_reference_covers_every_field",
        "counts pass for metrics",
    ),
    Mutant(
        "analysis/collapse_geometry.py",
        "torch.linalg.vector_norm(rows, dim=1)",
        "torch.linalg.vector_norm(rows, ord=1, dim=1)",
        f"{_METRICS}test_rotation_changes_nothing",
        "sums of absolute values for lengths",
    ),
    Mutant(
        "analysis/collapse_geometry.py",
        "zero = rcond * max(float(squared.max()), trace_within)",
        "zero = rcond",
        f"{_METRICS}test_scaling_changes_nothing",
        "an absolute threshold for zero",
    ),
    Mutant(
        "analysis/collapse_second_pass.py",
        "centre = geometry.origin + geometry.centre",
        "centre = geometry.centre",
        f"{_METRICS}test_translation_changes_only_what_reads_the_raw_feature",
        "the network decides about features from which the first one is subtracted",
    ),
    Mutant(
        "analysis/collapse_geometry.py",
        "        centred = means - centre\n",
        "        centred = means\n",
        f"{_METRICS}test_order_of_samples_changes_nothing",
        "centred at the first sample",
    ),
    Mutant(
        "analysis/collapse_formulae.py",
        "return cosines[~torch.eye(len(rows), dtype=torch.bool)]",
        "return cosines.diagonal(1)",
        f"{_METRICS}test_numbering_of_actions_changes_nothing",
        "pairs of neighbouring numbers instead of all pairs",
    ),
    Mutant(
        "analysis/collapse_formulae.py",
        "rows = head[geometry.present]\n    # A row",
        "rows = head[: len(geometry.present)]\n    # A row",
        f"{_METRICS}test_actions_that_do_not_occur_are_left_out",
        "the first K' rows of the head instead of those of the actions present",
    ),
    Mutant(
        "analysis/collapse_second_pass.py",
        "return scores >= scores.amax(dim=1, keepdim=True) - _TIE * magnitude[:, None]",
        "return torch.nn.functional.one_hot(scores.argmax(dim=1), scores.shape[1])",
        f"{_METRICS}test_numbering_changes_nothing_when_decisions_tie",
        "ties go to the action with the smallest number",
    ),
    Mutant(
        "analysis/collapse_geometry.py",
        "variances=variation / n,",
        "variances=variation / (n - 1).clamp(min=1),",
        f"{_METRICS}test_repeating_all_data_changes_nothing",
        "the samples' variance instead of the population's",
    ),
    Mutant(
        "analysis/snapshot.py",
        'np.array(part, dtype=np.float64, order="C")',
        'np.array(part, order="C")',
        "tests/analysis/test_metrics_input.py::test_float32_gives_what_its_float64_copy_gives",
        "float32 features are summed in float32",
    ),
    Mutant(
        "analysis/collapse_first_pass.py",
        "share = counts.to(torch.float64) / (before + counts)",
        "share = counts / (before + counts)",
        "tests/analysis/test_metrics_input.py::test_chunks_change_nothing",
        "the quotient of two integer tensors is float32",
    ),
    Mutant(
        "analysis/collapse_first_pass.py",
        "stacked = between if root is None else torch.cat([root, between])",
        "stacked = between if root is None else root",
        "tests/analysis/test_metrics_stream.py::test_stream_equals_memory",
        "the scatter between the means of two batches is missing",
    ),
    Mutant(
        "analysis/collapse_first_pass.py",
        "[seen] + (origin - self.origin)",
        "[seen]",
        "tests/analysis/test_metrics_stream.py::test_merge_equals_one_pass_in_any_order",
        "two workers' origins are taken to be the same",
    ),
    Mutant(
        "analysis/collapse_first_pass.py",
        "self.variation[seen] += variation + weight * (step**2).sum(dim=1)",
        "self.variation[seen] += variation",
        "tests/analysis/test_metrics_stream.py::test_merge_equals_one_pass_in_any_order",
        "the distance of the means is missing from the merged variance",
    ),
    Mutant(
        "analysis/collapse_formulae.py",
        "    if len(head) == 2:\n",
        "    if len(head) == 1:\n",
        "tests/analysis/test_metrics_degenerate.py::test_two_actions_carry_no_angles",
        "the spread of one cosine passes for a measurement",
    ),
)
