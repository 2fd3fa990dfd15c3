"""The benchmark: its arithmetic against numbers worked out by hand, and the whole of it once, with --quick."""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import rlhf_jax
from experiments import benchmark, benchmark_process, benchmark_program, tables, timing
from experiments.benchmark_program import Loop
from experiments.timing import Seconds

RATIOS = ("ratio", "share", "over")


def benchmark_run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "experiments.benchmark", *arguments]
    root = Path(__file__).parents[1]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


def numbers(value: object, path: str = "") -> Iterator[tuple[str, float]]:
    """Yields every number in a JSON value with the path to it; null, which stands for NaN, as NaN."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from numbers(part, f"{path}/{key}")
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        yield path, math.nan if value is None else value


def test_quick_run_writes_its_measurements_and_refuses_to_overwrite_them(environment, command_lines, tmp_path):
    out = tmp_path / "new" / "benchmark.json"
    done = benchmark_run(environment, "--quick", "--out", str(out))
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    assert record["complete"] and record["plan"]["quick"] and record["config"]["iterations"] == 3
    assert set(record["figure"]) >= {"agents", "cold", "warm", "compile_cold_over_warm", "wall_cold_over_warm"}
    assert [row["agents"] for row in record["scaling"]["sizes"]] == [2, 4]
    assert [(row["from"], row["to"]) for row in record["scaling"]["ratio_per_doubling"]] == [(2, 4)]
    assert set(record["matmul"]) == {"square", "ppo", "reward_fit"}
    # The warm-up is over and has asked its quarter of the labels.
    assert record["steady"]["from_iteration"] == 1 and record["steady"]["labels"] == 175
    assert "peer" not in record
    measured = {part: record[part] for part in ("figure", "steady", "scaling", "matmul")}
    for path, value in numbers(measured):
        assert math.isfinite(value), path
        assert value > 0 or "/returns/" in path, path
    ratios = [path for path, _ in numbers(measured) if any(word in path for word in RATIOS)]
    assert len(ratios) >= 15
    for word in ("figure, cold", "figure, warm", "compiling for 4 agents", "steady state", "scaling over", "matmul"):
        assert word in done.stderr
    assert done.stdout.startswith("figure, 4 agents") and done.stdout.endswith(f"{out}\n")

    written = out.read_text()
    again = {"module": "benchmark", "arguments": ["--quick", "--out", str(out)], "folder": str(tmp_path)}
    [(status, _, err)] = command_lines([again])
    assert (status, err) == (2, f"experiments.benchmark: --out {out} exists already; name another file\n")
    assert out.read_text() == written


def test_flops_of_a_forward_pass_are_two_for_every_weight():
    # 2 · (3 · 32 + 32 · 32 + 32 · 1)
    assert benchmark_program.forward_flops((3, 32, 32, 1)) == 2304
    assert benchmark_program.forward_flops((5, 7)) == 70


def test_loops_are_those_of_the_settings():
    env = rlhf_jax.make("Pendulum-v1")  # 3 observations, 1 action.
    config = rlhf_jax.Config(
        num_envs=8,
        rollout_length=200,
        ppo=rlhf_jax.PPOConfig(epochs=3, minibatches=4, hidden=(16, 8)),
        queries=rlhf_jax.QueryConfig(segment_length=25),
        reward=rlhf_jax.RewardConfig(members=5, hidden=(10,), fit_steps=6, batch_size=7),
    )
    ppo = benchmark_program.ppo_loop(env, config)
    assert ppo == Loop(batch=400, networks=((3, 16, 8, 1), (3, 16, 8, 1)), steps=12)
    # Two networks of 3·16 + 16·8 + 8·1 = 184 weights, 2 FLOPs each, 3 passes, 3 epochs of 1600 steps.
    assert ppo.flops == 2 * 184 * 2 * 3 * 3 * 1600 == 10_598_400
    fit = benchmark_program.fit_loop(env, config)
    assert fit == Loop(batch=350, networks=((4, 10, 1),), steps=30)
    # 4·10 + 10·1 = 50 weights, 2 FLOPs each, 3 passes, 6 steps of 5 members on 7 pairs of 25 steps.
    assert fit.flops == 50 * 2 * 3 * 6 * 5 * 7 * 2 * 25 == 3_150_000


def test_bare_matmuls_are_all_done():
    loop = Loop(batch=24, networks=((3, 5, 1), (3, 4, 2)), steps=7)
    before = benchmark_program.bare_matmuls(loop._replace(steps=0))()
    after = benchmark_program.bare_matmuls(loop)()
    for networks in (before, after):
        assert [[w.shape for w in weights] for weights in networks] == [[(3, 5), (5, 1)], [(3, 4), (4, 2)]]
    assert all((a != b).any() for i in range(2) for a, b in zip(before[i], after[i], strict=True))


@pytest.mark.parametrize(
    "iterations, warmup, expected",
    [(50, 4, 5), (3, 1, 1), (8, 4, 4), (9, 4, 4), (10, 4, 5), (5, 4, 1), (7, 4, 2)],
)
def test_a_timed_call_starts_past_the_warmup_and_ends_within_the_run(iterations, warmup, expected):
    config = rlhf_jax.Config(iterations=iterations, labels=rlhf_jax.LabelConfig(warmup=warmup))
    assert benchmark_program.iterations_per_call(config) == expected


def test_things_are_timed_in_turn():
    order = []
    calls = {name: lambda name=name: order.append(name) or time.sleep(0.01) for name in "AB"}
    samples = timing.in_turn(calls, repeats=3)
    assert "".join(order) == "ABABABAB"
    assert all(0.01 <= s.wall < 5.0 and 0.0 <= s.processor < 5.0 for s in samples["A"] + samples["B"])
    samples = timing.in_turn(calls, repeats=1, sample_seconds=0.05)
    assert len(order) > 8 + 2 * 3 and all(s.wall < 5.0 for s in samples["A"])


def test_typical_takes_the_median_of_each_clock():
    samples = [Seconds(1.0, 9.0), Seconds(2.0, 7.0), Seconds(9.0, 8.0)]
    assert timing.typical(samples) == Seconds(2.0, 8.0)
    assert timing.spread([3.0, 1.0, 2.0, 8.0]) == {"min": 1.0, "median": 2.5, "max": 8.0}


def test_a_child_is_measured_and_its_failure_is_told():
    work = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\nprint('done')"
    child = benchmark_process.run_child([sys.executable, "-c", work], dict(os.environ))
    assert child.stdout == "done\n"
    assert 0.2 <= child.processor < child.wall + 0.1
    assert 1.0 < child.peak_mib < 1e5
    with pytest.raises(benchmark_process.ChildFailed, match="ended with status 3"):
        benchmark_process.run_child([sys.executable, "-c", "raise SystemExit(3)"], dict(os.environ))


def test_the_peer_is_compared_with_one_of_our_agents(tmp_path, monkeypatch, capsys):
    python = tmp_path / "python"
    line = '{"peer": "imitation", "version": "1.0.1", "seed": %s, "cpu_seconds": %s, "return_mean": -150.0}'
    python.write_text(f"""#!/bin/sh
[ "$1" = -c ] && exit 0
echo progress >&2
[ "$4" = --episodes=8 ] || exit 1
printf '{line}\\n' "$3" "$((100 + $3 * 20))"
""")
    python.chmod(0o755)
    ours = {"processor_seconds_per_agent": 2.5, "returns": {"true_reward": -140.0, "labels_700": -145.0}}
    monkeypatch.setattr(benchmark_process, "run_figure", lambda figure, cache: ours)
    peer = benchmark_process.find_peer(str(python), 2, ("--episodes=8",))
    result = benchmark_process.against_peer(peer, benchmark_process.Figure(8, (), dict(os.environ)))
    assert result["processor_ratio"] == {"min": 40.0, "median": 44.0, "max": 48.0}
    assert result["ours_return"]["median"] == -145.0 and result["peer_return"]["median"] == -150.0
    assert "\n".join(benchmark.peer_table(result)) == (
        "against imitation 1.0.1       processor s per agent  return\n"
        "  ours, cold, shared by 32                     2.50  -145.0\n"
        "  imitation                 110.00 [100.00, 120.00]  -150.0\n"
        "  peer ÷ ours                     44.0 [40.0, 48.0]"
    )
    assert "2 of 2: the peer, seed 1" in capsys.readouterr().err


def test_a_python_without_the_peer_is_refused(tmp_path):
    assert benchmark_process.find_peer(None, 1, ()) is None
    with pytest.raises(ValueError, match="cannot be run: No such file"):
        benchmark_process.find_peer(str(tmp_path / "python"), 1, ())
    lacking = tmp_path / "lacking"
    lacking.write_text("#!/bin/sh\nexit 1\n")
    lacking.chmod(0o755)
    with pytest.raises(ValueError, match="has no imitation"):
        benchmark_process.find_peer(str(lacking), 1, ())


def test_settings_are_those_of_the_figure_with_700_labels():
    config = benchmark.settings_of(["labels.budget=9", "use_true_reward=true", "iterations=60"])
    assert (config.labels.budget, config.labels.max_budget, config.iterations) == (700, 1400, 60)
    assert not config.use_true_reward
    with pytest.raises(ValueError, match=r"ppo\.epochs = 0"):
        benchmark.settings_of(["ppo.epochs=0"])


def test_tables_line_up():
    assert tables.columns([["name", "a", "bb"], ["  x", "100.0"], ["  longer", "1", "2.00"]]) == [
        "name          a    bb",
        "  x       100.0",
        "  longer      1  2.00",
    ]
    assert tables.ranged({"min": 1.474, "median": 1.5, "max": 2.0}) == "1.50 [1.47, 2.00]"
    assert tables.ranged({"min": -1.0, "median": -1.0, "max": -1.0}, 1) == "-1.0"
    assert tables.interval({"eval_return": [1.0, 2.0], "ci95": [1.04, 1.97]}) == "[1.0, 2.0]"
    assert tables.interval({"eval_return": [1.0], "ci95": [1.0, 1.0]}) == "–"
    better = {"improvement": 0.625, "improvement_ci95": (0.404, 0.8)}
    assert tables.probability({"eval_return": [1.0, 2.0]} | better, "improvement") == "0.62 [0.40, 0.80]"
    assert tables.probability({"eval_return": [1.0]} | better, "improvement") == "0.62"
    assert tables.probability({"eval_return": [1.0]} | dict.fromkeys(better), "improvement") == "–"
    run = {"wall_seconds": 30.0, "processor_seconds": 45.0, "processor_seconds_per_agent": 1.40625, "peak_mib": 900.4}
    cold = run | {"compile_seconds": 20.0, "cores_busy": 1.5}
    figure = {"agents": 32, "cold": cold, "warm": cold, "wall_cold_over_warm": 1.0, "compile_cold_over_warm": 1.0}
    assert benchmark.table({"device": "2 × cpu (cpu)", "figure": figure}) == (
        "figure, 32 agents  wall s  processor s  per agent  compile s  cores  peak MiB\n"
        "  cold              30.00        45.00       1.41      20.00   1.50       900\n"
        "  warm              30.00        45.00       1.41      20.00   1.50       900\n"
        "  cold ÷ warm        1.00                               1.00"
    )
