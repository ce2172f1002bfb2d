"""The simulation of autoscaling: costs, arithmetic of the autoscaler, and small fleets."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from benchmarks.autoscaling.__main__ import _parser, _setting, main
from benchmarks.autoscaling.autoscaler import Autoscaler, Decision, Policy
from benchmarks.autoscaling.costs import MEASURED, StepCosts, measured
from benchmarks.autoscaling.fleet import Fleet, Outcome, Setting
from benchmarks.autoscaling.measure import measure
from benchmarks.autoscaling.replica import Size
from benchmarks.autoscaling.report import summary
from benchmarks.autoscaling.trace import Arrival, drawn, read

from support.server import running_server

CHART = Path(__file__).parents[2] / "charts" / "penstock"
SLOW = StepCosts(step=0.05, row=0.001, kv_token=0.0, prompt_token=0.0005)
SMALL = Size(kv_tokens=8192, batch=8, prefill=512, longest=2048)


def test_costs_are_near_what_was_measured() -> None:
    costs = measured()
    for step in json.loads(MEASURED.read_text())["steps"]:
        rows, *prompt = (int(part) for part in step["step"].split() if part.isdigit())
        seconds = costs.seconds(rows, rows * 576, prompt[0] if prompt else 0)
        assert seconds == pytest.approx(step["wall_us"] * 1e-6, rel=0.1), step


def test_a_file_without_steps_is_named(tmp_path: Path) -> None:
    path = tmp_path / "steps.json"
    path.write_text('{"steps": [{"step": "other", "wall_us": 1}]}')
    with pytest.raises(ValueError, match="holds 0 steps"):
        measured(path)


@pytest.mark.parametrize("text", ["[]", "{}", '{"steps": [{"step": "decode 1 rows"}]}', "no"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "steps.json"
    path.write_text(text)
    with pytest.raises(ValueError):
        measured(path)


@pytest.mark.full
def test_steps_of_a_real_server(tmp_path: Path) -> None:
    """They are measured, and what is simulated with them ends."""
    arguments = ("--device", "cpu", "--max-batch-size", "8")
    with running_server(tmp_path / "server", *arguments, env={"OMP_NUM_THREADS": "1"}) as server:
        found = measure(server.url, (1, 4, 8), (40, 200))
    kinds = [step["step"].split()[0] for step in found["steps"]]
    assert kinds == ["decode"] * 3 + ["mixed"] * 2
    assert all(step["wall_us"] > 0 for step in found["steps"])
    path = tmp_path / "steps.json"
    path.write_text(json.dumps(found))
    setting = Setting(policy=Policy(), size=SMALL)
    assert len(Fleet(setting, measured(path)).run(steady(20, 1.0)).served) == 20


# -- the autoscaler's arithmetic -----------------------------------------------------------------


def asked(policy: Policy, current: int, unready: int, queue: list[float], kv: list[float]) -> int:
    measures = {"queue_seconds": queue, "kv_use": kv, "batch_use": [0.0] * len(kv)}
    return Autoscaler(policy).decide(0.0, current, unready, measures).replicas


@pytest.mark.parametrize(
    ("current", "unready", "queue", "kv", "wanted"),
    [
        (2, 0, [4.0, 4.0], [0.1, 0.1], 4),  # twice the target: twice as many
        (2, 0, [2.1, 2.1], [0.1, 0.1], 2),  # within the tolerance
        (2, 0, [0.1, 0.1], [0.8, 0.4], 2),  # 0.6 of 0.8: ceil(1.5)
        (3, 0, [0.1] * 3, [0.2] * 3, 2),  # fewer, but one at a time
        (1, 0, [100.0], [0.1], 5),  # four pods in 15 s at most
        (4, 2, [4.0, 4.0], [0.1, 0.1], 4),  # those that start may be enough
        (4, 1, [8.0] * 3, [0.1] * 3, 8),  # and may not: bounded by the most
    ],
)
def test_hpa(current: int, unready: int, queue: list[float], kv: list[float], wanted: int) -> None:
    assert asked(Policy(), current, unready, queue, kv) == wanted


def test_keda_multiplies_the_pods_that_are_ready() -> None:
    policy = Policy(mode="keda")
    assert asked(policy, 2, 0, [4.0, 4.0], [0.1, 0.1]) == 4
    assert asked(policy, 4, 2, [4.0, 4.0], [0.1, 0.1]) == 4


def test_what_was_wanted_lately_holds_it_up() -> None:
    scaler = Autoscaler(Policy(stabilization=60.0, down_period=30.0))
    busy = {"queue_seconds": [4.0, 4.0], "kv_use": [0.1, 0.1], "batch_use": [0.0] * 2}
    idle = {"queue_seconds": [0.0] * 4, "kv_use": [0.0] * 4, "batch_use": [0.0] * 4}
    assert scaler.decide(0.0, 2, 0, busy) == Decision(4, "queue_seconds")
    counts = []
    current = 4
    for now in range(15, 166, 15):
        current = scaler.decide(float(now), current, 0, idle).replicas
        counts.append(current)
    assert counts == [4, 4, 4, 4, 3, 3, 2, 2, 1, 1, 1]


def test_nothing_known_changes_nothing() -> None:
    assert asked(Policy(), 3, 0, [], []) == 3
    assert asked(Policy(mode="none"), 3, 0, [99.0], [1.0]) == 3


# -- traces ---------------------------------------------------------------------------------------


def test_azures_columns_and_json_lines(tmp_path: Path) -> None:
    table = tmp_path / "trace.csv"
    table.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
    )
    first, second = read(table)
    assert (first.time, first.prompt, first.output) == (0.0, 374, 44)
    assert second.time == pytest.approx(4.314579) and second.group != first.group
    lines = tmp_path / "trace.jsonl"
    rows = [{"time": t, "prompt_tokens": 10, "output_tokens": 2, "session": "a"} for t in (5, 3)]
    lines.write_text("\n".join(map(json.dumps, rows)))
    assert [(a.time, a.shared) for a in read(lines, shared=0.5)] == [(0.0, 5), (2.0, 5)]
    lines.write_text('{"time": 1, "prompt_tokens": 3}')
    with pytest.raises(ValueError, match="record 1: .*output_tokens"):
        read(lines)


def test_drawn_arrivals_follow_the_rate() -> None:
    arrivals = drawn(4000, 1, 5, 4000, seed=3)
    early = sum(a.time < 400 for a in arrivals)
    middle = sum(1800 <= a.time < 2200 for a in arrivals)
    assert middle > 3 * early and arrivals == drawn(4000, 1, 5, 4000, seed=3)


# -- fleets ---------------------------------------------------------------------------------------


def steady(count: int, gap: float, prompt: int = 200, output: int = 20) -> list[Arrival]:
    return [Arrival(i * gap, prompt, output, i % 6, 128) for i in range(count)]


def fleet(
    arrivals: list[Arrival], first: int = 1, affinity: str = "none", **policy: object
) -> Outcome:
    setting = Setting(
        policy=Policy(**policy),  # type: ignore[arg-type]
        first=first,
        start_seconds=20.0,
        affinity=affinity,
        size=SMALL,
    )
    return Fleet(setting, SLOW).run(arrivals)


def test_everybody_is_served_in_order() -> None:
    outcome = fleet(steady(50, 1.0), mode="none")
    assert all(
        s.arrival.time <= s.admitted <= s.first_token <= s.ended  # type: ignore[operator]
        for s in outcome.served
    )
    assert len(outcome.served) == 50
    assert outcome.replica_seconds == pytest.approx(outcome.seconds)
    assert 0 < outcome.busy_seconds <= outcome.replica_seconds


def test_too_much_for_one_brings_more_and_they_go_again() -> None:
    busy = steady(600, 0.1)
    idle = [Arrival(60 + i * 5.0, 200, 20, 0, 0) for i in range(150)]
    outcome = fleet([*busy, *idle], stabilization=60.0, down_period=15.0, queue_seconds=0.5)
    counts = [look.replicas for look in outcome.looks]
    assert counts[0] == 1 and max(counts) >= 4 and counts[-1] == 1
    alone = fleet([*busy, *idle], mode="none")
    assert summary(outcome, 2.0)["ttft_p99"] < summary(alone, 2.0)["ttft_p99"]


def test_affinity_hits_more_prefixes() -> None:
    hits = {
        affinity: summary(fleet(steady(120, 0.1), 4, affinity, mode="none"), 2.0)["prefix_hits"]
        for affinity in ("prefix", "none")
    }
    assert hits["prefix"] > hits["none"]


def test_the_same_again() -> None:
    one, other = (summary(fleet(steady(60, 0.2)), 2.0) for _ in range(2))
    assert one == other


# -- the command ----------------------------------------------------------------------------------


def said(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["autoscaling", *map(str, arguments)])
    return main()


def test_one_mode_says_what_was_decided_and_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    trace, out = tmp_path / "trace.jsonl", tmp_path / "out.json"
    rows = [
        {"time": i * 0.01, "prompt_tokens": 400, "output_tokens": 60, "session": f"s{i % 5}"}
        for i in range(900)
    ]
    trace.write_text("\n".join(map(json.dumps, rows)))
    arguments = ("--trace", trace, "--shared", 0.5, "--batch-use", 0.02, "--start-seconds", 5)
    assert said(monkeypatch, *arguments, "--scale", 0.3, "--out", out) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^ +15 +1 -> +\d  batch_use 0\.\d\d, target 0\.02$", printed, re.M), printed
    run = json.loads(out.read_text())["runs"]["hpa"]
    assert run["figures"]["requests"] == 900 and run["figures"]["prefix_hits"] > 0.3
    assert run["changes"][0]["by"] == "batch_use" and run["setting"]["policy"]["batch_use"] == 0.02
    assert run["looks"][0]["replicas"] == 1


def test_several_modes_make_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--synthetic", "30:2:4:30", "--mode", "hpa", "keda", "none")
    assert said(monkeypatch, *arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| hpa", "| keda", "| none"]
    assert {line.count("|") for line in lines} == {9}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--synthetic", "900:2"), "SECONDS:LOW:HIGH:PERIOD, not '900:2'"),
        (("--synthetic", "60:2:4:0"), "period above 0"),
        (("--synthetic", "60:4:2:60"), "LOW at most HIGH"),
        (("--synthetic", "60:nan:2:60"), "LOW at most HIGH"),
        (("--synthetic", "90000000:1:900000:60"), "more than 10,000,000 arrivals"),
        (("--synthetic", "60:2:4:60", "--min", 4, "--max", 2), "--min 4 is more than --max 2"),
        (("--trace", "/nowhere.csv"), "/nowhere.csv"),
    ],
)
def test_what_cannot_be_simulated_is_named(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[object, ...],
    words: str,
) -> None:
    assert said(monkeypatch, *arguments) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--scale", "--kv-use", "--load-factor", "--min"])
def test_numbers_have_bounds(monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    with pytest.raises(SystemExit):
        said(monkeypatch, "--synthetic", "60:2:4:60", option, "0")


def test_defaults_are_the_charts() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    scaling, policy = values["autoscaling"], Policy()
    assert policy.targets == {
        "queue_seconds": scaling["queueSeconds"],
        "kv_use": scaling["kvUse"],
        "batch_use": scaling["batchUse"],
    }
    assert policy.stabilization == scaling["scaleDownStabilizationSeconds"]
    assert policy.down_period == values["drain"]["terminationGracePeriodSeconds"]
    assert Setting(policy=policy).load_factor == values["balancer"]["loadFactor"] / 100
    command = _parser().parse_args(["--synthetic", "1:1:1:1"])
    assert _setting(command, "hpa") == Setting(policy=policy)


def test_an_idle_fleet_goes_back_to_its_least() -> None:
    """Nobody has waited lately, because nobody came: that is a measure of 0, not none."""
    arrivals = [*steady(300, 0.1), Arrival(600.0, 200, 20, 0, 0)]
    for mode in ("hpa", "keda"):
        policy = {"stabilization": 60.0, "down_period": 15.0, "queue_seconds": 0.5}
        outcome = fleet(arrivals, mode=mode, **policy)
        counts = [look.replicas for look in outcome.looks]
        assert max(counts) > 1 and counts[-1] == 1, mode
