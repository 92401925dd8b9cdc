"""The report: its data against plain formulas, its structure parsed, the page in a browser."""

import html
import io
import json
import re
import shutil
import struct
import subprocess
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from analysis import collapse_view, report, trajectory
from analysis.claims import CLAIMS, Evidence, Result
from analysis.collapse_view import Track, view_data
from analysis.exhibits import (
    CAPTION_ROW,
    FigureWords,
    TableWords,
    read_figures,
    store_figure,
    store_table,
)
from analysis.figures.agents import figure3
from analysis.figures.style import encode
from analysis.metrics import snapshot_metrics
from analysis.snapshot import Snapshot
from analysis.storage import RunFolder, RunFolderError
from lpm import simplex_etf

ACTIONS = ("right", "left", "up", "down")
VOID = {"meta", "img", "br", "input", "link", "hr"}


def collapsing(
    num_classes: int = 4,
    dim: int = 16,
    steps: int = 5,
    per_class: int = 2,
    seed: int = 0,
    head: bool = True,
) -> list[Snapshot]:
    """Features that go in a straight line from noise to the vertices of an ETF, the head too."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(num_classes), per_class)
    target = simplex_etf(num_classes, dim, energy=1.0, rng=rng)
    noise = rng.standard_normal((len(labels), dim))
    rows = rng.standard_normal((num_classes, dim))
    return [
        Snapshot(
            3 * ((1 - t) * noise + t * target[labels]) + 7.0,
            labels,
            (1 - t) * rows + t * target if head else None,
            num_classes=num_classes,
            step=10 * i,
        )
        for i, t in enumerate(np.linspace(0, 1, steps))
    ]


# --- the data of the view -------------------------------------------------------------------------


def test_collapsed_features_and_head_are_the_tetrahedron() -> None:
    view = view_data("t", "c", ACTIONS, [Track("a", "A", collapsing())])
    vertices = np.array(view["reference"])
    np.testing.assert_allclose(vertices @ vertices.T, 4 / 3 * np.eye(4) - 1 / 3, atol=2e-4)
    (track,) = view["tracks"]
    np.testing.assert_allclose(track["points"][-1], vertices[track["labels"][-1]], atol=2e-4)
    np.testing.assert_allclose(track["head"][-1], vertices, atol=2e-4)
    assert track["numbers"][-1][view["numbers"].index("share in view")] == 1.0
    assert track["numbers"][0][view["numbers"].index("share in view")] < 0.9


def test_lengths_and_angles_in_view_are_those_in_all_dimensions_where_nothing_is_lost() -> None:
    rng = np.random.default_rng(3)
    basis = np.linalg.qr(rng.standard_normal((30, 3)))[0].T  # everything lives in 3 of 30 dims
    features, head = rng.standard_normal((12, 3)) @ basis, rng.standard_normal((4, 3)) @ basis
    labels = np.arange(12) % 4
    snapshots = [Snapshot(features, labels, head, num_classes=4, step=0)]
    (track,) = view_data("t", "c", ACTIONS, [Track("a", "A", snapshots)])["tracks"]
    centred = features - np.mean([features[labels == k].mean(0) for k in range(4)], axis=0)
    centred /= np.linalg.norm(centred, axis=1).mean()
    rows = head - head.mean(0)
    rows /= np.linalg.norm(rows, axis=1).mean()
    shown = np.concatenate([track["points"][0], track["head"][0]])
    every = np.concatenate([centred, rows])
    np.testing.assert_allclose(shown @ shown.T, every @ every.T, atol=1e-3)


def test_four_actions_are_seen_as_their_logits_see_them() -> None:
    for snapshot in collapsing(steps=3):
        (track,) = view_data("t", "c", ACTIONS, [Track("a", "A", [snapshot])])["tracks"]
        features, head = np.asarray(snapshot.features), np.asarray(snapshot.head)
        logits = features @ head.T
        logits -= logits.mean(axis=1, keepdims=True)  # what softmax sees
        centre = np.mean([logits[snapshot.labels == k].mean(0) for k in range(4)], axis=0)
        centred = features - np.mean([features[snapshot.labels == k].mean(0) for k in range(4)], 0)
        scale = np.linalg.norm(centred, axis=1).mean()
        scale *= np.linalg.norm(head - head.mean(0), axis=1).mean()
        shown = np.array(track["points"][0]) @ np.array(track["head"][0]).T
        np.testing.assert_allclose(shown, (logits - centre) / scale, atol=1e-3)


@pytest.mark.parametrize(
    ("num_classes", "head"), [(2, True), (3, True), (4, False), (6, True), (9, False)]
)
def test_shows_the_leading_principal_directions_for_any_number_of_actions(
    num_classes: int, head: bool
) -> None:
    snapshots = collapsing(num_classes, steps=3, head=head)
    names = [f"a{k}" for k in range(num_classes)]
    view = view_data("t", "c", names, [Track("a", "A", snapshots)])
    assert (view["reference"] is None) == (num_classes != 4)
    for i, snapshot in enumerate(snapshots):
        features = np.asarray(snapshot.features)
        means = np.stack([features[snapshot.labels == k].mean(0) for k in range(num_classes)])
        points = features - means.mean(0)
        scale = np.linalg.norm(points, axis=1).mean()
        anchors = [(means - means.mean(0)) / scale]
        if head:
            rows = np.asarray(snapshot.head) - np.asarray(snapshot.head).mean(0)
            anchors.append(rows / np.linalg.norm(rows, axis=1).mean())
        singular, directions = np.linalg.svd(np.concatenate(anchors))[1:]
        top = directions[:3][singular[:3] > 1e-6 * singular[0]]
        projected = points @ top.T / scale
        shown = np.array(view["tracks"][0]["points"][i])
        assert shown.shape == (len(features), 3)
        # The Gram matrix does not see how the axes are turned; at collapse the singular values
        # of an ETF coincide, and which three of K - 1 directions are shown is a free choice.
        if snapshot.step < 20 or num_classes <= 4:
            np.testing.assert_allclose(shown @ shown.T, projected @ projected.T, atol=2e-3)


def test_neighbouring_epochs_are_turned_to_move_least() -> None:
    (track,) = view_data("t", "c", ACTIONS, [Track("a", "A", collapsing(steps=120))])["tracks"]
    for name in ("points", "head"):
        moves = np.abs(np.diff(np.array(track[name]), axis=0)).max(axis=(1, 2))
        assert moves.max() < 0.05
    source, target = np.random.default_rng(1).standard_normal((2, 9, 3))
    best = np.linalg.norm(source @ collapse_view.procrustes(source, target) - target)
    for seed in range(200):
        turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))[0]
        assert np.linalg.norm(source @ turn - target) >= best


def test_tracks_of_one_view_share_their_orientation() -> None:
    tracks = [Track(str(seed), str(seed), collapsing(6, seed=seed)) for seed in (0, 1)]
    first, second = view_data("t", "c", [f"a{k}" for k in range(6)], tracks)["tracks"]
    turn = collapse_view.procrustes(second["head"][-1], first["head"][-1])
    np.testing.assert_allclose(turn, np.eye(3), atol=0.02)


def test_numbers_are_the_metrics_of_all_dimensions_and_undefined_is_none() -> None:
    snapshots = collapsing(2, steps=2)
    view = view_data("t", "c", ("a", "b"), [Track("a", "A", snapshots)])
    found = dict(zip(view["numbers"], view["tracks"][0]["numbers"][0], strict=True))
    expected = snapshot_metrics(snapshots[0])
    assert found["NC1"] == pytest.approx(expected.within_class_variation, rel=5e-3)
    assert found["cos(h − h_c, w)"] == pytest.approx(expected.head_feature_cosine, rel=5e-3)
    assert found["angle H"] is None  # two centred means are opposite for any features
    json.dumps(view, allow_nan=False)


def test_degenerate_snapshots_are_drawn_at_the_centre() -> None:
    snapshot = Snapshot(np.ones((4, 5)), [0, 1, 2, 3], np.ones((4, 5)), num_classes=4, step=0)
    (track,) = view_data("t", "c", ACTIONS, [Track("a", "A", [snapshot])])["tracks"]
    assert not np.any(track["points"])
    assert not np.any(track["head"])


def test_absent_actions_and_tensors_and_many_states() -> None:
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.standard_normal((5000, 8)).astype(np.float32))
    labels = torch.from_numpy(rng.integers(0, 3, 5000))
    snapshot = Snapshot(features, labels, torch.eye(4, 8), num_classes=4, step=3)
    view = view_data("t", "c", ACTIONS, [Track("a", "A", [snapshot])], max_points=50)
    (track,) = view["tracks"]
    assert np.array(track["points"]).shape == (1, 50, 3)
    assert np.isfinite(track["points"]).all()
    assert track["labels"][0][0] == int(labels[0])
    assert track["labels"][0][-1] == int(labels[-1])


@pytest.mark.parametrize(
    ("tracks", "message"),
    [
        ([], "at least one track"),
        ([Track("a", "A", [])], "'a' has no snapshot"),
        ([Track("a", "A", collapsing(3))], "4 action names"),
        ([Track("a", "A", collapsing()[:1] * 2)], "must increase, got"),
    ],
)
def test_views_that_make_no_sense_are_refused(tracks: list[Track], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        view_data("t", "c", ACTIONS, tracks)


def test_stored_rows_give_the_snapshots_back() -> None:
    snapshots = collapsing(steps=3)
    again = trajectory.rows_snapshots(trajectory.snapshot_rows(snapshots), 4)
    for one, other in zip(snapshots, again, strict=True):
        assert other.step == one.step
        np.testing.assert_array_equal(other.features, np.asarray(one.features, dtype=np.float32))
        np.testing.assert_array_equal(other.labels, one.labels)
        np.testing.assert_array_equal(other.head, np.asarray(one.head, dtype=np.float32))


def test_trajectory_of_the_cliff_is_stored_once(tmp_path: Path) -> None:
    folder = trajectory.cliff_folder(tmp_path, epochs=2, seed=5)
    gained: list[int] = []
    for arm in trajectory.cliff_arms(2):
        trajectory.run_trajectory(arm, 5, folder, gained.append)
    assert sum(gained) == 6
    paths = list(folder.path.glob("rows/*.parquet"))
    before = [path.stat().st_mtime_ns for path in paths]
    trajectory.run_trajectory(arm, 5, folder, gained.append)
    assert sum(gained) == 8
    assert [path.stat().st_mtime_ns for path in paths] == before
    config = json.loads((folder.path / "config.json").read_text())
    view = trajectory.read_view(folder.path, config)
    assert [track["name"] for track in view["tracks"]] == [
        "learned-controlled",
        "etf-controlled",
        "learned-paper",
    ]
    for track in view["tracks"]:
        assert track["steps"] == [0, 1, 2]
        assert sorted(track["labels"][0]) == [0, 0, 1, 1, 2, 2, 3, 3]
        assert track["points"][0] != track["points"][2]
        moved = np.abs(np.subtract(track["head"][0], track["head"][2])).max()
        assert (moved < 2e-4) == track["name"].startswith("etf")


# --- what the page is made from -------------------------------------------------------------------


def png(width: int, height: int) -> bytes:
    """A grey picture, written chunk by chunk."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    pixels = zlib.compress((b"\0" + b"\x80" * width) * height)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def fill(results: Path) -> None:
    """A results directory with something of everything, words that need escaping among it."""
    claims = RunFolder(results, "verify", {"experiment": "verify"})
    found = [Result(claim, Evidence(0.0, "a < b & c")) for claim in CLAIMS[:3]]
    claims.write_rows("claims", pd.DataFrame([result.as_row() for result in found]))
    figure = RunFolder(results, "figure1-cliff-100", {"experiment": "figure1-cliff"})
    words = FigureWords("Figure 1, 100 epochs", "What was run.", 'Curves end at "0.01".')
    store_figure(figure, "figure1-cliff-100", {"png": png(2560, 1312), "pdf": b"%PDF"}, words)
    table = pd.DataFrame(
        {
            "arm": ["etf", "<learned>"],
            "seeds": [20, 20],
            "last_return": [0.0123456, np.nan],
            "last_return_lower": [0.01, np.nan],
            "last_return_upper": [0.02, np.nan],
            "met": [True, False],
        }
    )
    store_table(figure, "expectations", table, TableWords("Expectations", "Set before."))
    plain = RunFolder(results, "figure-lpm", {"experiment": "figure-lpm"})
    plain.write("figures/figure-lpm.png", png(1200, 900))
    view = RunFolder(
        results,
        "collapse-view",
        {
            "experiment": "collapse-view",
            "title": "K = 4",
            "caption": "Made of </script> straight lines.",
            "unit": "epoch",
            "actions": list(ACTIONS),
            "tracks": [{"name": name, "label": f"{name} head"} for name in ("learned", "etf")],
        },
    )
    for seed, name in enumerate(("learned", "etf")):
        view.write_rows(name, trajectory.snapshot_rows(collapsing(seed=seed)))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    results = tmp_path_factory.mktemp("results")
    fill(results)
    return report.build_report(results, results / "report.html").read_text()


class Outline(HTMLParser):
    """Elements with their attributes, text by element id, and whether tags balance."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_page_is_well_formed_and_its_references_resolve(page: str) -> None:
    outline = Outline(page)
    ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in outline.elements:
        for name in ("aria-labelledby", "aria-describedby", "for"):
            assert attributes.get(name) is None or attributes[name] in ids
        href = attributes.get("href")
        assert href is None or (href[0] == "#" and href[1:] in ids)
    for tag in ("button", "input", "select"):
        assert outline.all(tag)
    for control in outline.all("input") + outline.all("select"):
        assert control["aria-label"]
    headings = [tag for tag, _ in outline.elements if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == "h1"
    assert set(headings[1:]) == {"h2"}


def test_page_needs_no_network(page: str) -> None:
    outline = Outline(page)
    for _, attributes in outline.elements:
        for name in ("src", "srcset", "data", "action", "poster", "xlink:href"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert not outline.all("link")
    code = re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)
    network = (r"url\(", r"@import", r"\bfetch\(", "XMLHttpRequest", "WebSocket", r"import\(")
    for reference in network:
        assert not re.search(reference, code), reference
    assert not re.search(r"(src|href)\s*=\s*[\"']?\s*(https?:)?//", code)
    (policy,) = [m for m in outline.all("meta") if "http-equiv" in m]
    assert "default-src 'none'" in str(policy["content"])


def test_every_figure_has_its_words(page: str) -> None:
    images = {image["alt"]: image for image in Outline(page).all("img")}
    assert 'Curves end at "0.01".' in images
    assert (images['Curves end at "0.01".']["width"], len(images)) == ("2560", 2)
    assert "No text alternative is stored with this figure." in images


def test_words_and_numbers_are_shown_escaped(page: str) -> None:
    assert "a &lt; b &amp; c" in page
    assert '<td>&lt;learned&gt;</td><td class="number">20</td>' in page
    assert '<td class="number">0.01235 [0.01, 0.02]</td><td class="yes">yes</td>' in page
    assert '<td class="number">—</td><td class="no">no</td>' in page
    assert '<th scope="col" class="number">last return</th><th scope="col">met</th>' in page
    assert "1 of 2 expectations" in page
    assert "3 claims of the paper checked: " in page
    (data,) = re.findall(r'<script type="application/json" data-view>(.*?)</script>', page, re.S)
    assert json.loads(data)["caption"] == "Made of </script> straight lines."


def test_what_is_missing_is_named_with_its_command(page: str) -> None:
    missing = page.split('<section id="missing"')[1].split("</section>", maxsplit=1)[0]
    lacking = ("figure3", "figure4", "table1", "table2", "figure1 --env pong", "overlay-cliff")
    for command in lacking:
        assert f"<code>action-collapse {command} --results DIR --out DIR</code>" in missing
    assert "<code>action-collapse overlay RUN --out DIR</code>" in missing
    for command in ("verify", "figure1 --env cliff", "figure-lpm", "collapse-view"):
        assert f"action-collapse {command} " not in missing


def test_same_folders_give_the_same_bytes_wherever_they_lie(tmp_path: Path, page: str) -> None:
    fill(tmp_path / "elsewhere")
    again = report.build_report(tmp_path / "elsewhere", tmp_path / "page.html")
    assert again.read_text() == page


def test_of_two_sessions_the_later_one_is_shown(tmp_path: Path) -> None:
    for name, time, title in (("b", "2020-01-01", "old"), ("a", "2021-01-01", "new")):
        folder = RunFolder(tmp_path, name, {"name": name})
        folder.write("environment.json", json.dumps({"sessions": [{"time": time}]}))
        words = FigureWords(title, "c", "a")
        store_figure(folder, "figure3", {"png": png(4, 3)}, words)
    found = report.collect(sorted(p.parent for p in tmp_path.glob("*/config.json")), "t")
    assert [figure.words.title for figure in found.figures if figure.words] == ["new"]
    assert [(run.name[0], run.shows) for run in found.runs] == [
        ("a", ("figure figure3",)),
        ("b", ()),
    ]


def test_exhibits_stand_in_the_order_a_reader_expects(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "run", {})
    names = ["figure10", "figure-lpm", "figure1-cliff-500", "figure3", "figure1-cliff-100"]
    for name in names:
        store_figure(folder, name, {"png": png(4, 3)}, FigureWords(name, "c", "a"))
    found = [figure.name for figure in report.collect([folder.path], "t").figures]
    assert found == ["figure1-cliff-100", "figure1-cliff-500", "figure3", "figure10", "figure-lpm"]


def test_overlays_stand_by_environment_head_and_epoch(tmp_path: Path) -> None:
    start = "Peeled model over"
    titles = [
        f"{start} Breakout: PPO, v5, ETF head, seed 0, epoch 5",
        f"{start} Breakout: PPO, v5, learned head, seed 0, epoch 5",
        f"{start} Breakout: PPO, v5, learned head, seed 0, epoch 10",
        f"{start} Ideal Cliff Walking, ETF head, norm control (ball), epoch 500",
        f"{start} Pong: PPO, v5, ETF head, seed 0, epoch 5",
    ]
    for title, digest in zip(titles, ("e1", "09", "a2", "03", "11"), strict=True):
        folder = RunFolder(tmp_path, "overlay", {"title": title})
        words = FigureWords(title, "c", "a")
        store_figure(folder, f"overlay-{digest}-x", {"png": png(4, 3)}, words)
    store_figure(folder, "table1", {"png": png(4, 3)}, FigureWords("t", "c", "a"))
    found = report.collect(sorted(tmp_path.iterdir()), "t").figures
    assert [figure.words.title for figure in found if figure.words] == [*titles, "t"]


def test_a_directory_without_run_folders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"no run folder in .* --out"):
        report.build_report(tmp_path, tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["{", "[]", '{"title": "t"}', '{"title": "t", "words": 1}'])
def test_damaged_words_are_named_with_the_remedy(tmp_path: Path, content: str) -> None:
    folder = RunFolder(tmp_path, "run", {})
    folder.write("figures/a.png", png(4, 3))
    folder.write("figures/a.json", content)
    with pytest.raises(RunFolderError, match=r"figures/a\.json .* delete it and make"):
        read_figures(folder.path)


@pytest.mark.parametrize("damage", [b"", png(4, 3)[:-1], b"no" + png(4, 3)[2:]])
def test_a_damaged_picture_is_named_with_the_remedy(tmp_path: Path, damage: bytes) -> None:
    folder = RunFolder(tmp_path, "figure3", {})
    with folder.session():
        store_figure(folder, "figure3", {"png": png(4, 3)}, FigureWords("t", "c", "a"))
        folder.write("figures/figure3.png", damage)
    with pytest.raises(RunFolderError, match=r"figure3\.png is no whole PNG: .* draw the figure"):
        report.collect([folder.path], "t")


def test_a_view_says_which_tracks_are_missing(tmp_path: Path) -> None:
    folder = trajectory.cliff_folder(tmp_path, epochs=1, seed=0)
    with folder.session():
        trajectory.run_trajectory(trajectory.cliff_arms(1)[0], 0, folder)
    config = json.loads((folder.path / "config.json").read_text())
    view = trajectory.read_view(folder.path, config)
    assert view["caption"].endswith(
        "Not trained yet: ETF head, norm control (ball); learned head, paper's settings."
    )
    assert len(view["tracks"]) == 1


def test_exhibits_without_words_or_png_are_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "run", {})
    with pytest.raises(ValueError, match="has no caption and no alternative"):
        store_figure(folder, "a", {"png": png(4, 3)}, FigureWords("t", " ", ""))
    with pytest.raises(ValueError, match="shows the png"):
        store_figure(folder, "a", {"pdf": b""}, FigureWords("t", "c", "a"))
    with pytest.raises(ValueError, match="'t' has no title"):
        store_table(folder, "t", pd.DataFrame(), TableWords("", "c"))
    assert not (folder.path / "figures").exists()


# --- in a browser ---------------------------------------------------------------------------------

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_BROWSER = next(filter(None, map(shutil.which, _BROWSERS)), None)
in_browser = pytest.mark.skipif(
    _BROWSER is None, reason=f"no browser on PATH: looked for {', '.join(_BROWSERS)}"
)

_COLLECT = """<script>
const root = parent.document.documentElement;
window.addEventListener("error", (event) => {
  root.dataset.errors = (root.dataset.errors || "") + event.message + "; ";
});
</script>"""
_PROBE = """<script>
const marks = () => [...document.querySelectorAll("[data-stage] svg")].map((picture) =>
  [...picture.querySelectorAll("[data-mark]")].map((mark) => mark.getAttribute("transform")));
const say = (name, value) => { root.dataset[name] = JSON.stringify(value); };
const press = (selector) => document.querySelector(selector).click();
const slider = document.querySelector("[data-slider]");
const slideTo = (value) => {
  slider.value = value;
  slider.dispatchEvent(new Event("input"));
};
%s
say("done", true);
</script>"""


def browse(page: str, folder: Path, script: str, *flags: str, width: int = 1280) -> dict[str, Any]:
    """Open the page, run the script after its own, return what it said; no error is tolerated.

    The page lies in a frame, because a browser's own window has a least width above a phone's.
    """
    text = page.replace("<head>", "<head>" + _COLLECT, 1)
    text = text.replace("</body>", _PROBE % script + "</body>")
    frame = f'style="border:0;width:{width}px;height:844px" srcdoc="{html.escape(text)}"'
    path = folder / "page.html"
    path.write_text(f"<!doctype html><html><body><iframe {frame}></iframe></body></html>")
    command = [
        str(_BROWSER),
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        f"--user-data-dir={folder / 'profile'}",
        "--window-size=1400,900",
        "--virtual-time-budget=5000",
        *("--enable-logging=stderr", "--v=0"),
        *flags,
        "--dump-dom",
        path.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "CONSOLE" not in done.stderr, done.stderr
    (root,) = Outline(done.stdout).all("html")
    assert "data-errors" not in root, root["data-errors"]
    said = {
        name.removeprefix("data-"): json.loads(value)
        for name, value in root.items()
        if name.startswith("data-") and value is not None
    }
    assert said.pop("done", False), "the script on the page did not reach its end"
    return said


@in_browser
def test_slider_moves_the_points_onto_the_tetrahedron(page: str, tmp_path: Path) -> None:
    said = browse(
        page,
        tmp_path,
        """
        say("first", marks());
        say("labelbefore", document.querySelector("[data-stage] svg").getAttribute("aria-label"));
        slideTo(slider.max);
        say("last", marks());
        say("labelafter", document.querySelector("[data-stage] svg").getAttribute("aria-label"));
        say("text", slider.getAttribute("aria-valuetext"));
        slideTo(0);
        say("again", marks());
        """,
    )
    first, last = said["first"], said["last"]
    assert [len(picture) for picture in first] == [12, 12]
    assert said["again"] == first
    for before, after in zip(first, last, strict=True):
        positions = [re.findall(r"-?[\d.]+", mark)[:2] for mark in after]
        assert len({tuple(mark) for mark in positions}) == 4  # 8 features, 4 rows: 4 vertices
        assert len(set(before)) == 12
    assert last[0] == last[1]  # the same picture from the same side
    assert said["text"] == "epoch 40 of 40"
    assert "learned head, epoch 0: 8 features of 4 actions; angle H" in said["labelbefore"]
    assert "epoch 40" in said["labelafter"]
    assert "NC1 0.000, cos(h − h_c, w) 1.000, share in view 1.000" in said["labelafter"]


@in_browser
def test_play_turn_and_choice_work(page: str, tmp_path: Path) -> None:
    said = browse(
        page,
        tmp_path,
        """
        const start = marks();
        press("[data-turn]");
        const turned = marks();
        say("turned", turned.map((picture, i) => picture.join() !== start[i].join()));
        press("[data-reset]");
        say("reset", marks().join() === start.join());
        const key = new KeyboardEvent("keydown", { key: "ArrowLeft", cancelable: true });
        document.querySelector("[data-stage]").dispatchEvent(key);
        say("key", marks().join() === turned.join() && key.defaultPrevented);
        press("[data-reset]");
        const stage = document.querySelector("[data-stage]");
        stage.setPointerCapture = () => {};
        const point = (kind, x, y) =>
          stage.dispatchEvent(new PointerEvent(kind, { clientX: x, clientY: y }));
        point("pointermove", 90, 90);
        say("hover", marks().join() === start.join());
        point("pointerdown", 100, 100);
        point("pointermove", 140, 90);
        point("pointerup", 140, 90);
        const dragged = marks();
        say("dragged", dragged.map((picture, i) => picture.join() !== start[i].join()));
        point("pointermove", 200, 200);
        say("released", marks().join() === dragged.join());
        press("[data-reset]");
        const choice = document.querySelector("[data-track]");
        choice.value = "1";
        choice.dispatchEvent(new Event("change"));
        say("chosen", marks()[0].join() === marks()[1].join());
        say("head", document.querySelector("[data-numbers] .number").textContent);
        press("[data-play]");
        say("playing", document.querySelector("[data-play]").textContent);
        setTimeout(() => {
          say("end", [slider.value, document.querySelector("[data-play]").textContent]);
        }, 1500);
        """,
    )
    assert said["turned"] == [True, True]
    assert said["dragged"] == [True, True]
    for what in ("reset", "key", "hover", "released", "chosen"):
        assert said[what] is True, what
    assert said["head"] == "etf head, epoch 0"
    assert said["playing"] == "Pause"
    assert said["end"] == ["4", "Play"]


@in_browser
def test_less_motion_is_respected(page: str, tmp_path: Path) -> None:
    script = """
    press("[data-play]");
    setTimeout(() => say("at", slider.value), 1600);
    """
    assert browse(page, tmp_path, script)["at"] == "4"
    still = tmp_path / "still"
    still.mkdir()
    assert browse(page, still, script, "--force-prefers-reduced-motion")["at"] == "1"


@in_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_overflows(page: str, tmp_path: Path, width: int) -> None:
    said = browse(
        page,
        tmp_path,
        """
        document.querySelectorAll("details").forEach((one) => { one.open = true; });
        say("widths", [document.documentElement.scrollWidth, window.innerWidth]);
        const size = (one) => parseFloat(getComputedStyle(one).fontSize);
        say("small", Math.min(...[...document.querySelectorAll("main *")].filter((one) =>
          !one.closest("svg") && one.innerText).map(size)));
        const outside = (picture) => {
          const frame = picture.getBoundingClientRect();
          return [...picture.querySelectorAll("[data-mark]")].filter((mark) => {
            const box = mark.getBoundingClientRect();
            return box.left < frame.left || box.right > frame.right || box.top < frame.top ||
              box.bottom > frame.bottom;
          }).length;
        };
        say("outside", [...document.querySelectorAll("[data-stage] svg")].map(outside));
        """,
        width=width,
    )
    needed, offered = said["widths"]
    assert offered == width
    assert needed <= offered
    assert said["small"] >= 12
    assert said["outside"] == [0, 0]


@in_browser
@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_figures_are_as_large_as_drawn_and_scroll_by_themselves(tmp_path: Path, width: int) -> None:
    rows = pd.DataFrame(
        {
            "env": "CartPole-v1",
            "algorithm": [*"abcde"],
            "convention": "",
            "matched_entropy": "",
            "observations": "state",
            "network": "mlp",
            "feature": "rectified",
            "head": "etf",
            "learning_rate": 0.1,
            "seed": 0,
            "epoch": 0,
            "steps": 0,
            "eval_return": 1.0,
        }
    )
    drawn = figure3(rows, "What was run, in a caption of several lines. " * 20, ["CartPole-v1"])
    folder = RunFolder(tmp_path / "results", "figure3", {})
    words = FigureWords("Figure 3", "What was run.", "Five points.")
    store_figure(folder, "figure3", {"png": encode(drawn, "png")}, words)
    page = report.build_report(tmp_path / "results", tmp_path / "report.html").read_text()
    said = browse(
        page,
        tmp_path,
        """
        const picture = document.querySelector("figure img");
        const scroller = picture.closest("[tabindex='0']");
        const { width, height } = picture.getBoundingClientRect();
        say("picture", [width, height]);
        say("page", [document.documentElement.scrollWidth, window.innerWidth]);
        scroller.scrollLeft = 1e6;
        const frame = scroller.getBoundingClientRect();
        say("frame", [frame.left, frame.right]);
        say("end", picture.getBoundingClientRect().right);
        """,
        width=width,
    )
    per_inch = said["picture"][0] / drawn.get_figwidth()
    assert drawn.get_figwidth() == 17.5
    assert per_inch >= 96
    fonts = [text.get_fontsize() for text in drawn.axes[0].get_legend().get_texts()]
    assert min(fonts) / 72 * per_inch >= 10
    # The caption, which stands below as text, is cut off, and the rest is not distorted.
    row = int(Image.open(io.BytesIO(encode(drawn, "png"))).info[CAPTION_ROW])
    assert row < 160 * drawn.get_figheight() - 60
    assert said["picture"][1] == pytest.approx(row * per_inch / 160, abs=1)
    needed, offered = said["page"]
    assert needed <= offered == width
    left, right = said["frame"]
    assert 0 <= left < right <= width
    assert said["end"] == pytest.approx(right, abs=1)  # all of it can be scrolled into view


def test_a_picture_that_does_not_say_its_size_is_shown_pixel_for_pixel(page: str) -> None:
    (figure, _) = Outline(page).all("figure")
    assert figure["style"] == f"--inches: {2560 / 96:.4g}"
