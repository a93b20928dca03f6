"""The bench runs, prints every figure and ratio, and every answer that it counts is a 200. It asserts no timing."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tenuto.bench import AGAIN, LARGE, SCENARIOS

NAMES = [scenario.name for scenario in SCENARIOS]
RATIOS = [
    "c32 / plain",
    "c128 / plain",
    "batch / copy",
    "hot32 / c32",
    "hot128 / c128",
    *(f"{name}{LARGE} / {name}" for name in AGAIN),
    "p50 of c1 / p50 of bare",
    "p99 at half load, ms",
]


def bench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tenuto.cli", "bench", "--data", str(folder), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, Path]:
    """One tiny run: what it printed, what it wrote, and the folder it worked in."""
    folder = tmp_path_factory.mktemp("bench")
    report = tmp_path_factory.mktemp("report") / "report.json"
    tiny = ("--seconds", "0.3", "--rounds", "1", "--accounts", "50", "--events-stored", "1000")
    done = bench(folder, *tiny, "--json", str(report))
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(report.read_text()), folder


@pytest.mark.parametrize("name", [*NAMES, *(name + LARGE for name in AGAIN)])
def test_every_figure_is_measured_and_printed(ran: tuple[str, Any, Path], name: str) -> None:
    printed, report, _ = ran
    figure = next(figure for figure in report["figures"] if figure["name"] == name)

    assert figure["rate"] > 0
    assert 0 < figure["p50_ms"] <= figure["p99_ms"]
    assert figure["failed"] == 0, figure["statuses"]
    assert f" {name} " in printed


@pytest.mark.parametrize("name", RATIOS)
def test_every_ratio_is_printed(ran: tuple[str, Any, Path], name: str) -> None:
    printed, report, _ = ran
    ratio = next(ratio for ratio in report["ratios"] if ratio["name"] == name)

    assert math.isfinite(ratio["value"])
    assert f" {name} " in printed


def test_the_machine_and_the_settings_are_printed(ran: tuple[str, Any, Path]) -> None:
    printed, report, _ = ran

    assert report["settings"]["fsync"] == report["settings"]["synchronous_commit"] == "on"
    for name in ("processor", "memory", "fsync", "Python", "PostgreSQL"):
        assert f"{name} {report['machine'][name]}" in printed
    for name, value in report["settings"].items():
        assert f"{name} {value}" in printed


def test_nothing_is_left_behind(ran: tuple[str, Any, Path]) -> None:
    assert list(ran[2].iterdir()) == []


def test_only_what_is_named_is_measured(tmp_path: Path) -> None:
    wrong = bench(tmp_path, "--only", "c32,c33")

    assert wrong.returncode == 1
    assert "c33" in wrong.stderr


@pytest.mark.parametrize(("paid", "kills"), [(0.1, 0), (0.0, 2)])
def test_renewals_are_counted_one_by_one_though_the_worker_is_killed(tmp_path: Path, paid: float, kills: int) -> None:
    folder, report = tmp_path / "data", tmp_path / "report.json"
    folder.mkdir()
    asked = ("--renewals", "400", "--companies", "3", "--paid", str(paid), "--kill", str(kills))
    done = bench(folder, *asked, "--json", str(report))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())

    wrong = {name: count for name, count in found["counts"].items() if name != "renewed"}
    assert (found["accounts"], found["counts"]["renewed"], found["kills"] > 0) == (400, 400, kills > 0)
    assert set(wrong.values()) == {0}, wrong
    assert (found["charged"], found["charged_twice"]) == (found["by_kind"]["card"], 0)
    assert (found["charged"] > 0) == (paid > 0)
    assert found["disagreeing"] == {}
    assert "Each account was renewed exactly once." in done.stdout
    assert list(folder.iterdir()) == []


def test_every_notification_arrives_once_though_one_webhook_hangs(tmp_path: Path) -> None:
    folder, report = tmp_path / "data", tmp_path / "report.json"
    folder.mkdir()
    done = bench(folder, "--webhooks", "400", "--seconds", "0.25", "--json", str(report))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())

    for stretch in (found["burst"], found["hanging"]):
        assert (stretch["lost"], stretch["duplicates"], stretch["forged"]) == (0, 0, 0)
        assert stretch["verified"] > 0
        assert 0 < stretch["p50_seconds"] <= stretch["p95_seconds"] <= stretch["most_seconds"]
    assert (found["burst"]["notifications"], found["webhooks"]) == (400, 20)
    assert 0 < found["hung_attempts"] < found["hanging"]["notifications"]
    assert "400 notifications to 20 webhooks" in done.stdout
    assert list(folder.iterdir()) == []


def test_what_listening_costs_is_measured_beside_silence(tmp_path: Path) -> None:
    folder, report = tmp_path / "data", tmp_path / "report.json"
    folder.mkdir()
    asked = ("--topics", "--seconds", "0.2", "--rounds", "1", "--accounts", "30")
    done = bench(folder, *asked, "--json", str(report))
    assert done.returncode == 0, done.stdout + done.stderr
    figures = {figure["name"]: figure for figure in json.loads(report.read_text())["figures"]}

    assert {name: figure["failed"] for name, figure in figures.items()} == {"silent": 0, "heard": 0, "sent": 0}
    assert all(figure["rate"] > 0 and math.isfinite(figure["ratio"]) for figure in figures.values())
    assert figures["sent"]["notifications"] > 0
    assert list(folder.iterdir()) == []
