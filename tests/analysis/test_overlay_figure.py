"""The overlay's figure: every number is drawn, bytes are stable."""

import dataclasses

import matplotlib.image
import numpy as np
import pytest
from caption_cases import assert_cut_above_its_caption
from matplotlib.figure import Figure

import lpm
from analysis.figures.overlay import figure_overlay
from analysis.figures.style import encode
from analysis.overlay import Overlay, overlay
from analysis.snapshot import Snapshot


@pytest.fixture(scope="module")
def found() -> Overlay:
    rng = np.random.default_rng(0)
    head = lpm.simplex_etf(4, 6, 1.0, rng)
    labels = np.repeat([0, 1, 3], 10)  # action 2 does not occur
    features = 2.0 * head[labels] + 0.3 * rng.standard_normal((30, 6))
    snapshot = Snapshot(features, labels, head, num_classes=4, step=0)
    return overlay(snapshot, rng=rng, bootstrap=20)


def texts(figure: Figure) -> list[str]:
    return [t.get_text() for axes in figure.axes for t in axes.texts] + [
        t.get_text() for t in figure.texts
    ]


def test_all_matrices_terms_and_names_are_drawn(found) -> None:
    figure = figure_overlay(found, "what was run", ("right", "left", "up", "down"))
    maps = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    expected = [
        getattr(comparison, what)
        for what in ("predicted", "observed", "difference")
        for comparison in found.comparisons.values()
    ]
    assert len(maps) == len(expected) == 12
    for drawn, matrix in zip(maps, expected, strict=True):
        np.testing.assert_array_equal(drawn, matrix)
    shown = texts(figure)
    assert "what was run" in shown
    for term in found.terms.values():
        assert f"{term.value:.2e}" in shown
    first = next(axes for axes in figure.axes if axes.images)
    assert [label.get_text() for label in first.get_xticklabels()] == ["right", "left", "down"]


def test_what_two_actions_do_not_tell_is_said() -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.standard_normal((40, 6)), np.arange(40) % 2
    snapshot = Snapshot(features, labels, lpm.simplex_etf(2, 6), num_classes=2, step=0)
    shown = texts(figure_overlay(overlay(snapshot, rng=rng, bootstrap=20), ""))
    assert shown.count("no angle to compare") == 1
    assert not any("nan" in text for text in shown)


def test_the_caption_can_be_left_off_the_picture(found) -> None:
    words = "What was run, in a caption of several lines. " * 10
    assert_cut_above_its_caption(figure_overlay(found, words), words)


def test_bytes_are_stable_and_a_picture(found, tmp_path) -> None:
    once, again = (encode(figure_overlay(found, "caption"), "png") for _ in range(2))
    assert once == again
    path = tmp_path / "overlay.png"
    path.write_bytes(once)
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[:2] == (1760, 2160)
    assert pixels[..., :3].std() > 0.05


def test_what_was_measured_is_said(found) -> None:
    figure = figure_overlay(found, "caption")
    (headline,) = [text for text in texts(figure) if text.startswith("Peeled model")]
    assert "measured $E_H$ = " in headline
    assert "n = 30 states, 10 an action" in headline
    bars = next(axes for axes in figure.axes if axes.get_xlabel())
    assert bars.get_xlabel() == f"loss above the optimum in nats, {found.gap.value:.3e} in all"
    notes = " ".join(next(text for text in texts(figure) if text.startswith("–")).split())
    assert notes == f"– {found.notes[0]}"


def test_a_given_energy_and_reasons_are_said(found) -> None:
    reasons = {"intervals": "too few"}
    changed = dataclasses.replace(
        found, energy_source="given", notes=(), reasons=reasons, counts=np.array([9, 2, 19])
    )
    shown = texts(figure_overlay(changed, "caption"))
    (headline,) = [text for text in shown if text.startswith("Peeled model")]
    assert "given $E_H$ = " in headline
    assert "measured" not in headline
    assert "n = 30 states, 2 to 19 an action" in headline
    assert "– no intervals: too few" in shown
