"""Figures 1, 3 and 4 and Tables 1 and 2 of agents against naive statistics of synthetic rows."""

import itertools
from dataclasses import replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
import pytest
from caption_cases import assert_cut_above_its_caption
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.agent_words import describe_runs, geometry_words, last_values
from analysis.commands import agents as commands
from analysis.commands.cliff import Figure1
from analysis.commands.console import UsageError
from analysis.epoch_rows import COLUMNS
from analysis.exhibits import read_figures, read_tables
from analysis.figures.agents import figure1_agents, figure3, figure4
from analysis.figures.frames import frame, play
from analysis.figures.panels import mean_over_seeds
from analysis.figures.style import COLOURS, encode
from analysis.statistics import TOO_NARROW
from analysis.storage import RunFolder, RunFolderError

METRICS = (
    "eval_return",
    "head_equinorm",
    "head_equiangularity",
    "feature_equiangularity",
    "head_max_angle",
    "feature_max_angle",
    "within_class_variation",
)
PPO_PONG = {"env": "Pong", "observations": "image", "network": "cnn"}
PPO_BREAKOUT = {"env": "Breakout", "observations": "image", "network": "cnn"}
CARTPOLE = {"env": "CartPole-v1", "observations": "state", "network": "mlp"}
CARRACING = {"env": "CarRacing-v3", "observations": "image", "network": "cnn"}


def rows_of(
    heads: tuple[str, ...] = ("linear", "etf"), seeds: int = 3, epochs: int = 4, **changes: Any
) -> pd.DataFrame:
    """Rows with random metrics, other ones for every environment, head and seed."""
    rows = []
    for head, seed, epoch in itertools.product(heads, range(seeds), range(epochs + 1)):
        rng = np.random.default_rng([len(head), seed, epoch, len(changes.get("env", ""))])
        rows.append(
            dict.fromkeys(COLUMNS, 0.0)
            | {
                "algorithm": "ppo",
                "convention": "NoFrameskip-v4",
                "matched_entropy": "",
                "head": head,
                "feature": "rectified",
                "learning_rate": 2.5e-4,
                "seed": seed,
                "epoch": epoch,
                "steps": 10_000 * epoch,
                "eval_episodes": 10,
                "absent_classes": 0.0,
            }
            | dict(zip(METRICS, rng.uniform(0.1, 1, len(METRICS)).tolist(), strict=True))
            | changes
        )
    return pd.DataFrame(rows)


def panels(figure: Figure, title: str) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_title().endswith(title)]


def lines(axes: Axes, style: str) -> list[Any]:
    return [
        line for line in axes.get_lines() if line.get_linestyle() == style and len(line.get_xdata())
    ]


# --- Figures 1 and 4 -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pong_figure() -> tuple[pd.DataFrame, Figure]:
    rows = pd.concat([rows_of(**PPO_PONG), rows_of(**PPO_BREAKOUT)])
    return rows, figure1_agents(rows, "Pong", "")


@pytest.mark.parametrize(
    ("title", "head_column", "feature_column"),
    [
        ("(b) return", None, "eval_return"),
        ("(c) equinorm of W", "head_equinorm", None),
        ("(d) equiangularity", "head_equiangularity", "feature_equiangularity"),
        ("(e) maximal angle", "head_max_angle", "feature_max_angle"),
        ("(f) within-class variation", None, "within_class_variation"),
    ],
)
def test_figure_1_shows_medians_over_seeds_against_steps(
    pong_figure, title, head_column, feature_column
) -> None:
    rows, figure = pong_figure
    found = panels(figure, title)
    assert len(found) == 2
    for axes, head in zip(found, ("linear", "etf"), strict=True):
        own = rows[(rows["env"] == "Pong") & (rows["head"] == head)]
        solid, dashed = head_column or feature_column, feature_column if head_column else None
        for column, style in ((solid, "-"), (dashed, "--")):
            drawn = lines(axes, style)
            assert len(drawn) == (column is not None)
            for line in drawn:
                np.testing.assert_allclose(line.get_ydata(), own.groupby("epoch")[column].median())
                np.testing.assert_allclose(line.get_xdata(), 10_000 * np.arange(5))


@pytest.mark.parametrize("env", ["Pong", "Breakout", "CarRacing-v3"])
def test_figure_1_begins_with_a_frame_of_the_game(env: str) -> None:
    figure = figure1_agents(rows_of(env=env, observations="image", network="cnn"), env, "")
    (first,) = (axes for axes in figure.axes if axes.images)
    assert first.get_title() == f"(a) {env}"
    assert not first.axison
    np.testing.assert_array_equal(first.images[0].get_array(), frame(env))
    titles = {axes.get_title() for axes in figure.axes}
    assert sorted(title[:3] for title in titles) == ["(a)", "(b)", "(c)", "(d)", "(e)", "(f)"]
    drawn = FigureCanvasAgg(figure).get_renderer()
    end = first.get_tightbbox(drawn).x1
    assert all(axes.get_tightbbox(drawn).x0 > end for axes in figure.axes if axes is not first)


def test_figure_1_of_a_game_without_a_stored_frame_begins_with_the_return() -> None:
    figure = figure1_agents(rows_of(**{**PPO_PONG, "env": "Enduro"}), "Enduro", "")
    assert figure.axes[0].get_title() == "(b) return"
    assert not any(axes.images for axes in figure.axes)


@pytest.mark.parametrize(
    ("env", "package"), [("Pong", "ale_py"), ("Breakout", "ale_py"), ("CarRacing-v3", "Box2D")]
)
def test_stored_frames_are_what_the_game_shows(env: str, package: str) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    if package == "Box2D":
        import_module("agents.envs.car_racing")  # silences a warning of its types
    played, stored = play(env), (255 * frame(env)).round()
    assert played.shape == stored.shape
    # A console's picture is exact; how a polygon is filled may differ between SDL's versions.
    differing = np.mean(np.any(played != stored, axis=-1))
    assert differing <= (0.02 if env == "CarRacing-v3" else 0.0)
    assert len(np.unique(played.reshape(-1, 3), axis=0)) >= 5


@pytest.mark.parametrize("draw", [figure3, figure4, partial(figure1_agents, env="Pong")])
def test_captions_can_be_left_off_the_picture(draw) -> None:
    words = "What was run, in a caption of several lines. " * 15
    envs = {} if isinstance(draw, partial) else {"envs": ["Pong"]}
    assert_cut_above_its_caption(draw(rows_of(**PPO_PONG), caption=words, **envs), words)


def test_figure_4_shows_angles_of_both_environments() -> None:
    rows = pd.concat([rows_of(**PPO_PONG), rows_of(**PPO_BREAKOUT)])
    figure = figure4(rows, "")
    for env, (title, column) in itertools.product(
        ("Breakout", "Pong"),
        (("equiangularity", "equiangularity"), ("maximal angle", "max_angle")),
    ):
        for axes, head in zip(panels(figure, f"{env}: {title}"), ("linear", "etf"), strict=True):
            own = rows[(rows["env"] == env) & (rows["head"] == head)].groupby("epoch")
            for style, part in (("-", "head"), ("--", "feature")):
                (line,) = lines(axes, style)
                np.testing.assert_allclose(line.get_ydata(), own[f"{part}_{column}"].median())


def test_one_seed_is_a_line_without_a_band() -> None:
    figure = figure1_agents(rows_of(seeds=1, **PPO_PONG), "Pong", "")
    assert not any(axes.collections for axes in figure.axes)
    assert "1 seed, lr 0.00025" in " ".join(_legends(figure))
    banded = figure1_agents(rows_of(seeds=2, **PPO_PONG), "Pong", "")
    assert all(axes.collections for axes in banded.axes if not axes.images)
    assert "2 seeds" in " ".join(_legends(banded))


def test_a_missing_head_is_said_and_its_panels_stay() -> None:
    figure = figure1_agents(rows_of(heads=("linear",), **PPO_PONG), "Pong", "")
    learned, etf = panels(figure, "(e) maximal angle")
    assert len(learned.get_lines()) == 2
    assert not etf.get_lines()
    assert [text.get_text() for text in etf.texts] == ["not run"]
    assert "not run" in " ".join(_legends(figure))


def test_curves_with_matched_entropies_are_lines_of_their_own() -> None:
    rows = pd.concat([rows_of(**PPO_PONG), rows_of(**PPO_PONG, matched_entropy="0.99")])
    figure = figure1_agents(rows, "Pong", "")
    for axes in panels(figure, "(b) return"):
        assert len(axes.get_lines()) == 2
    words = describe_runs(rows)
    assert "PPO, CNN on images, NoFrameskip-v4: learned head" in words
    assert "PPO, CNN on images, NoFrameskip-v4, initial entropy 0.99 log K: learned head" in words


def test_a_missing_environment_is_an_error_with_the_command() -> None:
    rows = rows_of(**PPO_PONG)
    for draw in (
        lambda: figure1_agents(rows, "Breakout", ""),
        lambda: figure4(rows, ""),
        lambda: figure3(rows, "", ["Breakout"]),
        lambda: figure1_agents(rows_of(heads=("gaussian",), **PPO_BREAKOUT), "Breakout", ""),
    ):
        with pytest.raises(RunFolderError, match=r"no training run on Breakout .*train --env"):
            draw()


def test_settings_have_colours_of_their_own_in_both_rows() -> None:
    ram = {**PPO_PONG, "network": "mlp", "observations": "ram"}
    figure = figure1_agents(pd.concat([rows_of(**PPO_PONG), rows_of(**ram)]), "Pong", "")
    for axes in panels(figure, "(b) return"):
        assert [line.get_color() for line in axes.get_lines()] == list(COLOURS[:2])
    rates = pd.concat([rows_of(**PPO_PONG, algorithm=f"a{i}") for i in range(7)])
    with pytest.raises(RunFolderError, match="7 settings"):
        figure1_agents(rates, "Pong", "")


def test_two_runs_of_one_arm_are_refused() -> None:
    rows = pd.concat([rows_of(**PPO_PONG), rows_of(**PPO_PONG, learning_rate=1e-3)])
    with pytest.raises(ValueError, match="two rows of one epoch"):
        figure1_agents(rows, "Pong", "")


def test_undefined_metrics_leave_a_gap() -> None:
    rows = rows_of(**PPO_PONG)
    rows.loc[(rows["epoch"] == 2) & (rows["seed"] == 1), "feature_max_angle"] = np.nan
    for axes in panels(figure1_agents(rows, "Pong", ""), "(e) maximal angle"):
        (line,) = lines(axes, "--")
        assert np.isnan(line.get_ydata()).tolist() == [False, False, True, False, False]
    assert "Gaps" in geometry_words(rows, ["feature_max_angle"])
    assert "Gaps" not in geometry_words(rows, ["head_max_angle"])


# --- Figure 3 ------------------------------------------------------------------------------------


def test_panels_without_a_number_say_so() -> None:
    rows = rows_of(**PPO_PONG)
    rows[["head_equiangularity", "feature_equiangularity"]] = np.nan
    figure = figure1_agents(rows, "Pong", "")
    empty = [place for place in figure.axes if place.texts]
    assert [place.get_title() for place in empty] == ["(d) equiangularity"] * 2
    assert all("NaN" in place.texts[0].get_text() for place in empty)


def test_figure_3_shows_mean_lowest_and_highest_of_every_head() -> None:
    heads = ("linear", "etf", "orthogonal", "gaussian")
    rows = pd.concat([rows_of(heads=heads, seeds=4, **CARTPOLE), rows_of(**CARRACING)])
    figure = figure3(rows, "")
    cartpole, racing = figure.axes
    for axes, env, shown in ((cartpole, "CartPole-v1", heads), (racing, "CarRacing-v3", heads[:2])):
        assert (
            axes.get_title()
            == {
                "CartPole-v1": "CartPole-v1\nPPO, MLP on states",
                "CarRacing-v3": "CarRacing-v3\nPPO, CNN on images",
            }[env]
        )
        drawn = [line for line in axes.get_lines() if len(line.get_xdata())]
        assert len(drawn) == 3 * len(shown)
        for number, head in enumerate(shown):
            own = rows[(rows["env"] == env) & (rows["head"] == head)].groupby("epoch")
            returns = own["eval_return"]
            expected = (returns.mean(), returns.min(), returns.max())
            for line, values in zip(drawn[3 * number : 3 * number + 3], expected, strict=True):
                np.testing.assert_allclose(line.get_ydata(), values)
                assert line.get_color() == COLOURS[number]


def test_bands_of_means_are_those_of_a_naive_bootstrap() -> None:
    values = np.random.default_rng(1).normal(size=(6, 3))
    band = mean_over_seeds(values, np.random.default_rng(0), resamples=20_000)
    rng = np.random.default_rng(2)
    means = [values[rng.integers(0, 6, 6)].mean(axis=0) for _ in range(20_000)]
    np.testing.assert_allclose(band.centre, values.mean(axis=0))
    np.testing.assert_allclose(band.lower, np.quantile(means, 0.025, axis=0), atol=0.03)
    np.testing.assert_allclose(band.upper, np.quantile(means, 0.975, axis=0), atol=0.03)
    single = mean_over_seeds(values[:1], rng)
    np.testing.assert_array_equal(single.centre, values[0])
    assert np.isnan(single.lower).all()


def test_equal_curves_have_equal_bands() -> None:
    rows = rows_of(("linear",), 9, **PPO_PONG)
    rows["feature_equiangularity"] = rows["head_equiangularity"]
    both = pd.concat([rows, rows.assign(head="etf")])
    (returns,) = figure3(both, "", ["Pong"]).axes
    assert len({_outline(band) for band in returns.collections}) == 1
    places = panels(figure1_agents(both, "Pong", ""), "(d) equiangularity")
    assert len({_outline(band) for place in places for band in place.collections}) == 1


def _outline(band: Any) -> bytes:
    (path,) = band.get_paths()
    return path.vertices.tobytes()


# --- words ---------------------------------------------------------------------------------------


def test_captions_give_seeds_and_budget_of_the_rows() -> None:
    rows = pd.concat([rows_of(("linear",), 3, **PPO_PONG), rows_of(("etf",), 1, **PPO_PONG)])
    assert describe_runs(rows).startswith(
        "Pong: PPO, CNN on images, NoFrameskip-v4: learned head, 3 seeds, lr 0.00025; ETF head, "
        "1 seed, lr 0.00025; 40,000 agent steps in 4 epochs, 10 evaluation episodes a point, 0.4 % "
        "of the paper's 100 epochs × 100,000 steps; the paper's Table 1 ends at 19.8 (learned) and "
        "20.9 (ETF)."
    )
    ram = describe_runs(rows.assign(network="mlp", observations="ram"))
    assert "0.1 % of the paper's 500 epochs × 100,000 steps" in ram
    assert "paper's 100 epochs" in describe_runs(rows_of(**(CARRACING | {"network": "mlp"})))
    assert "Table 1 ends" not in describe_runs(rows.assign(convention="v5"))
    assert "the paper prints no number of steps" in describe_runs(rows_of(**CARTPOLE))
    assert describe_runs(rows).endswith(TOO_NARROW)
    for seeds in (1, 5):  # no band, and one that is wide enough
        assert TOO_NARROW not in describe_runs(rows_of(seeds=seeds, **CARTPOLE))
    rows["absent_classes"] = rows["seed"].astype(float)
    assert "(0 to 2 of them after the last epoch)" in geometry_words(rows, [])
    assert "shortest of its runs" not in geometry_words(rows, [])
    shorter = rows[(rows["seed"] < 2) | (rows["epoch"] < 3)]
    assert "shortest of its runs" in geometry_words(shorter, [])


# --- commands ------------------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path):
    """A run of both heads on every environment, Pong with ε-greedy exploration too."""
    folder = tmp_path / "results"
    settings = [PPO_PONG, PPO_BREAKOUT, CARTPOLE, CARRACING, {**PPO_PONG, "epsilon": 0.1}]
    for number, setting in enumerate(settings):
        run = RunFolder(folder, "train", {"experiment": "train", "number": number})
        run.write_rows("epochs", rows_of(seeds=2, epochs=2, **setting))
    return folder


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (commands.Figure3, "figure3"),
        (commands.Table1, "table1"),
        (commands.Table2, "table2"),
    ],
)
def test_commands_store_exhibits_that_are_the_same_every_time(
    results, tmp_path, command, name
) -> None:
    contents = []
    for out in (tmp_path / "a", tmp_path / "b"):
        assert command(results=(results,), out=out).run() == 0
        (folder,) = out.iterdir()
        kept = [
            path
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name not in ("environment.json", ".lock")
        ]
        contents.append({path.relative_to(out): path.read_bytes() for path in kept})
        if name.startswith("figure"):
            (figure,) = read_figures(folder)
            assert figure.name == name
            assert figure.words is not None
            assert "2 seeds" in figure.words.caption
        else:
            tables = read_tables(folder)
            table = next(table for table in tables if table.name == name)
            assert (table.rows["n"] == 2).any()
            assert all(TOO_NARROW in table.words.caption for table in tables)
            assert "iqm is the mean" in table.words.caption
            assert "a dash where" in table.words.caption
    assert contents[0] == contents[1]


PICTURE = b"\x89PNG\r\n\x1a\n picture IEND\xaeB`\x82"


@pytest.fixture
def quick_pictures(monkeypatch) -> None:
    """Figures are drawn and not encoded, which is most of the time."""
    monkeypatch.setattr(commands, "pictures", lambda figure: {"png": PICTURE})


@pytest.mark.usefixtures("quick_pictures")
@pytest.mark.parametrize(
    ("command", "name"), [(Figure1(env="pong"), "figure1-pong"), (commands.Figure4(), "figure4")]
)
def test_geometry_of_agents_is_drawn_not_trained(results, tmp_path, command, name) -> None:
    out = tmp_path / "out"
    assert replace(command, results=(results,), out=out).run() == 0
    (folder,) = out.iterdir()
    (figure,) = read_figures(folder)
    assert figure.name == name
    assert figure.words is not None
    assert "greedy actions" in figure.words.caption
    assert ("(a): the game" in figure.words.caption) == (name == "figure1-pong")
    assert not (folder / "rows").exists()


def test_table_2_has_the_settings_that_explored(results, tmp_path) -> None:
    commands.Table2(results=(results,), out=tmp_path / "out").run()
    (folder,) = (tmp_path / "out").iterdir()
    (table,) = read_tables(folder)
    assert set(table.rows["env"]) == {"Pong"}
    assert set(table.rows["epsilon"]) == {0.0, 0.1}
    with pytest.raises(UsageError, match="--set epsilon"):
        commands.Table2(results=(_without_exploration(results),), out=tmp_path / "none").run()


@pytest.mark.usefixtures("quick_pictures")
def test_other_rows_are_another_folder(results, tmp_path) -> None:
    out = tmp_path / "out"
    commands.Figure3(env=("CartPole-v1",), results=(results,), out=out).run()
    commands.Figure3(results=(results,), out=out).run()
    assert len(list(out.iterdir())) == 2


def _without_exploration(results):
    return next(
        path.parent.parent
        for path in sorted(results.rglob("epochs.parquet"))
        if (pd.read_parquet(path)["epsilon"] == 0).all()
    )


def _legends(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_the_order_of_rows_does_not_change_a_byte() -> None:
    rows = rows_of(**PPO_PONG)
    shuffled = rows.sample(frac=1, random_state=0)
    first, second = (encode(figure4(own, "", ["Pong"]), "png") for own in (rows, shuffled))
    assert first == second


def test_the_alternative_says_what_the_curve_shows_where_it_ends() -> None:
    rows = rows_of(("linear",), 3, **CARTPOLE)
    rows["eval_return"] = rows["epoch"] * rows["seed"].map({0: 0.0, 1: 10.0, 2: 80.0})
    shorter = rows[(rows["seed"] < 2) | (rows["epoch"] < 3)]
    said = last_values(shorter, {"eval_return": "return"}, "mean")
    assert said.startswith("Where the curves end, means over seeds.")
    assert said.endswith("learned head (3 seeds): return 60.")
    assert last_values(shorter, {"eval_return": "return"}).endswith("(3 seeds): return 20.")


@pytest.mark.parametrize("command", [commands.Figure3, commands.Figure4])
def test_unknown_environments_are_refused_with_the_known(tmp_path, command) -> None:
    with pytest.raises(UsageError, match=r"one or more of .*Pong.*, got Pnog"):
        command(env=("Pnog",), results=(tmp_path,), out=tmp_path / "out").run()


def test_runs_of_other_heads_alone_are_said(tmp_path) -> None:
    run = RunFolder(tmp_path / "results", "train", {"experiment": "train"})
    run.write_rows("epochs", rows_of(("gaussian",), 2, epochs=2, **PPO_PONG))
    with pytest.raises(UsageError, match=r"only the heads gaussian: train some with --head linear"):
        commands.Figure4(results=(tmp_path / "results",), out=tmp_path / "out").run()


@pytest.mark.usefixtures("quick_pictures")
def test_figures_of_other_environments_have_a_name_of_their_own(results, tmp_path) -> None:
    for env in (("CartPole-v1",), commands.FIGURE3_ENVS):
        assert commands.Figure3(env=env, results=(results,), out=tmp_path / "out").run() == 0
    names = {
        figure.name for folder in (tmp_path / "out").iterdir() for figure in read_figures(folder)
    }
    assert names == {"figure3", "figure3-CartPole-v1"}
