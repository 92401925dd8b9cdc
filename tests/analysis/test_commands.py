"""The command line: output, exit codes and errors, in a process of its own where it matters."""

import json
import os
import signal
import subprocess
import sys
import time
from typing import get_args

import pytest

from analysis import __main__ as cli
from analysis.claims import CLAIMS, Evidence, Result, Verdict
from analysis.commands import theory
from analysis.commands.console import BEGINS_ANEW, CONTINUES, KEEPS_PARTS, progress_bars


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    return int(ended.value.code or 0)


@pytest.fixture
def quick_claims(monkeypatch) -> None:
    """Two claims that hold, computed in no time."""
    plain = [claim for claim in CLAIMS if claim.expected is Verdict.HOLDS]
    fake = [Result(claim, Evidence(0.0, "test")) for claim in plain[:2]]
    monkeypatch.setattr(theory, "run_verify", lambda seed, instances, only, rigorous: list(fake))


def test_verify_as_json(capsys) -> None:
    assert run("verify", "--json", "--instances", "2") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["claim"] for row in rows] == [claim.id for claim in CLAIMS]
    for row in rows:
        assert row["as_expected"]
        assert (row["verdict"] == "holds") == (row["residual"] <= row["tolerance"])
        assert row["hypotheses"]


@pytest.mark.usefixtures("quick_claims")
def test_verify_as_table(capsys) -> None:
    assert run("verify") == 0
    printed = capsys.readouterr().out
    assert "Eq. (1)" in printed
    assert "holds" in printed
    assert "0 verdicts not as committed" in printed


def test_one_claim_with_its_evidence(capsys) -> None:
    assert run("verify", "--claim", "eq-33") == 0
    printed = capsys.readouterr().out
    for expected in ("Eq. (33)", "typo", "24, not 0", "analysis.claims.theorem, line"):
        assert expected in printed


def test_claim_and_out_exclude_each_other(tmp_path, capsys) -> None:
    assert run("verify", "--claim", "eq-33", "--out", str(tmp_path)) == 2
    assert "leave out --claim" in capsys.readouterr().err


def test_rigorous_claims_name_their_flag(capsys) -> None:
    assert run("verify", "--claim", "rigorous-balanced") == 2
    assert "needs --rigorous" in capsys.readouterr().err


def test_unknown_claim_lists_the_known(capsys) -> None:
    assert run("verify", "--claim", "eq-99") == 2
    assert "unknown claim 'eq-99': choose from" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("residual", [1.0, float("nan")])
def test_a_failed_claim_sets_the_exit_code(monkeypatch, capsys, residual) -> None:
    failed = [Result(CLAIMS[0], Evidence(residual, "broken on purpose"))]
    monkeypatch.setattr(theory, "run_verify", lambda seed, instances, only, rigorous: failed)
    assert run("verify", "--json") == 1
    assert json.loads(capsys.readouterr().out)[0]["verdict"] == "fails"


@pytest.mark.usefixtures("quick_claims")
def test_verify_stores_rows_once(tmp_path) -> None:
    assert run("verify", "--out", str(tmp_path)) == 0
    assert run("verify", "--out", str(tmp_path)) == 0
    (folder,) = tmp_path.iterdir()
    assert (folder / "rows" / "claims.parquet").exists()
    assert len(json.loads((folder / "environment.json").read_text())["sessions"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("verify", "--instances", "0"), "--instances must be >= 1, got 0"),
        (("figure1", "--seeds", "1"), "--seeds must be >= 2 for a confidence band, got 1"),
        (("figure1", "--epochs", "0"), "--epochs must be >= 1, got 0"),
        (("figure1", "--workers", "0"), "--workers must be >= 1, got 0"),
        (("reproduce", "--seeds", "0"), "--seeds must be >= 2"),
        (("overlay-cliff", "--seeds", "1"), "--seeds must be >= 2 for a confidence band, got 1"),
        (("overlay-cliff", "--epochs", "0"), "--epochs must be >= 1, got 0"),
    ],
)
def test_senseless_options_are_refused_before_any_work(
    tmp_path, capsys, arguments, message
) -> None:
    out = () if arguments[0] == "verify" else ("--out", str(tmp_path))
    assert run(*arguments, *out) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_unwritable_output_is_an_error_with_a_remedy(tmp_path, capsys) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert run("figure1", "--epochs", "1", "--seeds", "2", "--out", str(blocked)) == 2
    said = capsys.readouterr().err
    assert "a file is where a folder has to be, choose another --out" in said
    assert str(blocked) in said


def every_command() -> dict[str, type]:
    """Commands by their names on the command line."""
    found = {}
    for annotated in get_args(cli.Command):
        kind, *settings = get_args(annotated)
        (name,) = (setting.name for setting in settings if hasattr(setting, "name"))
        found[name] = kind
    return found


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("verify",), BEGINS_ANEW),
        (("figure1",), CONTINUES),
        (("figure1", "--env", "pong"), BEGINS_ANEW),
        (("figure3",), BEGINS_ANEW),
        (("figure4",), BEGINS_ANEW),
        (("figure-lpm",), KEEPS_PARTS),
        (("table1",), BEGINS_ANEW),
        (("table2",), BEGINS_ANEW),
        (("ablations",), KEEPS_PARTS),
        (("reproduce",), CONTINUES),
        (("probe", "runs"), BEGINS_ANEW),
        (("overlay", "runs"), BEGINS_ANEW),
        (("overlay-cliff",), KEEPS_PARTS),
        (("collapse-view",), KEEPS_PARTS),
        (("report",), BEGINS_ANEW),
        (("train",), "the same command with --resume continues from the last checkpoint"),
        (("sweep", "grid.toml"), CONTINUES),
    ],
)
def test_interruption_says_how_to_go_on(monkeypatch, capsys, arguments, hint) -> None:
    def interrupted(command: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(every_command()[arguments[0]], "run", interrupted)
    assert run(*arguments) == 130
    assert capsys.readouterr().err == f"stopped; {hint}\n"


@pytest.mark.usefixtures("quick_claims")
def test_paths_are_printed_as_they_are(tmp_path, capsys) -> None:
    out = tmp_path / "[red]:rocket:[" / ("long" * 40)
    assert run("verify", "--out", str(out)) == 0
    (folder,) = out.iterdir()
    assert f"rows: {folder}\n" in capsys.readouterr().err


def test_progress_takes_no_markup(capsys) -> None:
    with progress_bars() as progress:
        progress.add_task("ppo [/x] [red]", total=1)
    assert "ppo [/x] [red]" in capsys.readouterr().err


def test_a_damaged_configuration_among_results_is_named(tmp_path, capsys) -> None:
    recorded = tmp_path / "results" / "ablations-cliff-0" / "config.json"
    (recorded.parent / "rows").mkdir(parents=True)
    recorded.write_text('{"experiment": ')
    options = ("--results", str(tmp_path / "results"), "--out", str(tmp_path / "out"))
    assert run("ablations", *options) == 2
    said = capsys.readouterr().err
    assert f"error: {recorded} is missing or damaged" in said
    assert "restore it" in said


def test_unknown_environment_lists_the_known(capsys) -> None:
    assert run("figure1", "--env", "marslander") == 2
    assert "cliff" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("blow", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_run_leaves_no_process_and_resumes(tmp_path, blow, code) -> None:
    """Ctrl-C to the group, or kill -9 to the parent alone, while two workers train."""
    command = [sys.executable, "-m", "analysis", "figure1", "--epochs", "30", "--seeds", "2"]
    command += ["--workers", "2", "--out", str(tmp_path)]
    first = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("*/checkpoints/*.pt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    if blow == signal.SIGINT:
        os.killpg(first.pid, blow)
    else:
        first.kill()
    assert first.wait(timeout=60) == code
    deadline = time.monotonic() + 60
    while _alive(first.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not _alive(first.pid)
    subprocess.run(command, check=True, timeout=600)
    assert len(list(tmp_path.glob("*/rows/*.parquet"))) == 6
    assert list(tmp_path.glob("*/checkpoints/*")) == []


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_module_and_console_script_are_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "analysis", "--help"], capture_output=True, text=True, check=True
    )
    for command in ("verify", "figure1", "reproduce"):
        assert command in done.stdout
