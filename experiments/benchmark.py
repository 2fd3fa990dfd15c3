"""What the library costs: the figure from start to end, its steady state, scaling over agents, share of matmul peak.

Everything is given as a ratio of two things timed in turn within one run, because a machine that others share is a
different machine every minute. Nothing is judged by a threshold.

    python -m experiments.benchmark --peer-python PATH
"""

import dataclasses
import importlib.util
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags, logging

import rlhf_jax
from experiments import benchmark_labelling, command_line, tables
from experiments import benchmark_process as process
from experiments import benchmark_program as program
from experiments.session import say
from rlhf_jax import parallel, run_folder, settings


@dataclasses.dataclass(frozen=True)
class Plan:
    """How thoroughly to measure.

    seeds: agents of each condition of the figure.
    agents: how many agents to scale over; each a power of two times the one before.
    steady: which of them to measure the steady state with.
    repeats: timings of each thing.
    sample_seconds: how long one timing of a small program should last.
    square: rows of the large matrix.
    answers: how many to give on the labelling page.
    assignments: settings beside the user's.
    peer_flags: of benchmark_peer.py.
    """

    seeds: int = 8
    agents: tuple[int, ...] = (8, 32, 128)
    steady: int = 32
    repeats: int = 7
    sample_seconds: float = 0.2
    square: int = 2048
    answers: int = 200
    assignments: tuple[str, ...] = ()
    peer_flags: tuple[str, ...] = ()


QUICK = Plan(
    seeds=1,
    agents=(2, 4),
    steady=2,
    repeats=2,
    sample_seconds=0.02,
    square=256,
    answers=3,
    assignments=("iterations=3", "labels.warmup=1"),
    peer_flags=tuple(["--timesteps", "4096", "--comparisons", "40", "--iterations", "2", "--episodes", "8"]),
)


def figure_table(figure: dict[str, Any]) -> list[str]:
    """Returns the part about the figure from start to end."""
    rows = [
        [
            f"figure, {figure['agents']} agents",
            *["wall s", "processor s", "per agent", "compile s", "cores", "peak MiB"],
        ]
    ]
    for name in ("cold", "warm"):
        run = figure[name]
        keys = ["wall_seconds", "processor_seconds", "processor_seconds_per_agent", "compile_seconds", "cores_busy"]
        rows.append([f"  {name}", *(f"{run[key]:.2f}" for key in keys), f"{run['peak_mib']:.0f}"])
    ratios = [f"{figure[key]:.2f}" for key in ("wall_cold_over_warm", "compile_cold_over_warm")]
    rows.append(["  cold ÷ warm", ratios[0], "", "", ratios[1]])
    return tables.columns(rows)


def steady_table(steady: dict[str, Any]) -> list[str]:
    """Returns the part about the steady state."""
    head = ["env steps/s", "per processor s", "wall ms per agent-iteration", "processor ms", "cores"]
    rows = [[f"steady state, {steady['agents']} agents", *head]]
    for name, label in (("preferences", "preferences"), ("true_reward", "true reward"), ("plain_ppo", "plain PPO")):
        row = steady[name]
        steps = [f"{row[key]:,.0f}" for key in ("env_steps_per_second", "env_steps_per_processor_second")]
        spent = [f"{1e3 * row[f'{clock}_seconds_per_agent_iteration']:.2f}" for clock in ("wall", "processor")]
        rows.append([f"  {label}", *steps, *spent, f"{row['cores_busy']:.2f}"])
    overheads = [
        f"{tables.ranged(steady[f'preference_overhead_over_{key}'])} × {label}"
        for key, label in (("true_reward", "true reward"), ("plain_ppo", "plain PPO"))
    ]
    return [*tables.columns(rows), f"  preferences cost, in {steady['overhead_clock']} time: {', '.join(overheads)}"]


def scaling_table(scaling: dict[str, Any]) -> list[str]:
    """Returns the part about ever more agents."""
    rows = [
        ["scaling", *["wall ms per iteration", "processor ms", "cores", "wall per doubling", "processor per doubling"]]
    ]
    for size, doubling in zip(scaling["sizes"], [None, *scaling["ratio_per_doubling"]], strict=True):
        spent = [f"{1e3 * size[f'{clock}_seconds_per_iteration']:.1f}" for clock in ("wall", "processor")]
        ratios = [tables.ranged(doubling[clock]) for clock in ("wall", "processor")] if doubling else []
        rows.append([f"  {size['agents']} agents", *spent, f"{size['cores_busy']:.2f}", *ratios])
    return tables.columns(rows)


def matmul_table(matmul: dict[str, Any]) -> list[str]:
    """Returns the part about the share of the matmul peak."""
    rows = [["matmuls, one device", "GFLOP/s bare", "GFLOP/s ours", "share"]]
    for name, label in (("ppo", "PPO update"), ("reward_fit", "reward fit")):
        row = matmul[name]
        rates = [f"{row[key]:.1f}" for key in ("matmul_gflops", "achieved_gflops")]
        rows.append([f"  {label}", *rates, tables.ranged(row["share"])])
    square = matmul["square"]
    rows.append([f"  {square['rows']} × {square['rows']}", f"{square['gflops']:.1f}"])
    return tables.columns(rows)


def peer_table(peer: dict[str, Any]) -> list[str]:
    """Returns the part about the peer."""
    first = peer["runs"][0]["peer"]
    rows = [[f"against {first['peer']} {first['version']}", "processor s per agent", "return"]]
    for name, label in (("ours", f"ours, cold, shared by {peer['agents']}"), ("peer", first["peer"])):
        spent = tables.ranged(peer[f"{name}_processor_seconds_per_agent"])
        rows.append([f"  {label}", spent, tables.ranged(peer[f"{name}_return"], 1)])
    rows.append(["  peer ÷ ours", tables.ranged(peer["processor_ratio"], 1)])
    return tables.columns(rows)


def table(record: dict[str, Any]) -> str:
    """Returns what was measured as text; in brackets is the range over repeats."""
    parts = {
        "figure": figure_table,
        "peer": peer_table,
        "steady": steady_table,
        "scaling": scaling_table,
        "matmul": matmul_table,
        "labelling": benchmark_labelling.table,
    }
    return "\n\n".join("\n".join(part(record[name])) for name, part in parts.items() if record.get(name))


def define_flags() -> None:
    """Declares the command line; not on import, because other experiments declare flags of the same names."""
    flags.DEFINE_string("out", None, "JSON file to write; results/benchmark/<time>.json if not given.")
    flags.DEFINE_integer("seeds", None, "Agents per condition of the figure; 8, or 1 with --quick.", lower_bound=1)
    flags.DEFINE_boolean("quick", False, "Only try everything out: the numbers that it gives mean nothing.")
    flags.DEFINE_string("peer-python", None, "Python that has imitation, to compare with; no comparison if not given.")
    flags.DEFINE_integer("peer-runs", 1, "Agents of the peer, each beside a cold figure of ours.", lower_bound=1)
    flags.DEFINE_multi_string("set", [], "A setting, such as ppo.learning_rate=3e-4; may be repeated.")


def settings_of(assignments: Sequence[str]) -> rlhf_jax.Config:
    """Returns the settings of the figure's agents with 700 labels; raises ValueError if they are wrong."""
    config = settings.override(rlhf_jax.Config(), assignments)
    labels = dataclasses.replace(config.labels, budget=process.LABELS, max_budget=process.MAX_LABELS)
    config = dataclasses.replace(config, use_true_reward=False, labels=labels)
    settings.validate(config, rlhf_jax.make(config.env))
    return config


def reserve(file: str | None) -> Path:
    """Makes the file that is to be written; raises ValueError if it exists already or cannot be made."""
    out = Path(file or f"results/benchmark/{time.strftime('%Y-%m-%d-%H%M%S')}.json")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.open("x").close()
    except FileExistsError:
        raise ValueError(f"--out {out} exists already; name another file") from None
    except OSError as error:
        raise ValueError(f"--out {out} cannot be written: {error.strerror}") from None
    return out


def measure(
    config: rlhf_jax.Config, plan: Plan, peer: process.Peer | None, environment: dict[str, str]
) -> Iterator[tuple[str, Any]]:
    """Yields the name and the result of each part, as it is done.

    The programs that run in processes of their own come first, while this process is small and its device unused.
    """
    ours = process.Figure(plan.seeds, plan.assignments, environment)
    yield "figure", process.cold_and_warm(ours)
    if peer:
        yield "peer", process.against_peer(peer, ours)
    env = rlhf_jax.make(config.env)
    crowds = {}
    for num in plan.agents:
        say(f"compiling for {num} agents, and taking them past the warm-up")
        crowds[num] = program.Program(config, num, env=env).agents(config)
    steady = crowds[plan.steady]
    no_labels = dataclasses.replace(config.labels, budget=0)
    true_reward = steady.program.agents(dataclasses.replace(config, use_true_reward=True, labels=no_labels))
    say(f"steady state: {plan.steady} agents, {plan.repeats} repeats")
    yield "steady", program.steady_state(steady, true_reward, plan.repeats)
    say(f"scaling over {', '.join(map(str, plan.agents))} agents, {plan.repeats} repeats")
    yield "scaling", program.scaling(list(crowds.values()), plan.repeats)
    say(f"share of the matmul peak, {plan.repeats} repeats")
    yield "matmul", program.matmul_share(steady, plan.square, plan.repeats, plan.sample_seconds)
    if importlib.util.find_spec("uvicorn") is None:
        say('the labelling page is left out: it needs pip install -e ".[human]"')
        return
    say(f"the labelling page beside the training: {plan.answers} answers, {plan.repeats} repeats")
    yield "labelling", benchmark_labelling.measure(config, env, plan.answers, plan.repeats, plan.sample_seconds * 10)


def main(argv: list[str]) -> None:
    """Measures, writes what is known after each part, and reports."""
    logging.set_verbosity(logging.WARNING)  # JAX logs at INFO which devices it looked for and did not find.
    values = flags.FLAGS.flag_values_dict()
    environment = dict(os.environ)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # A GPU's memory is for the processes timed first.
    parallel.prepare_machine()
    plan = QUICK if values["quick"] else Plan()
    assignments = (*plan.assignments, *values["set"])
    plan = dataclasses.replace(plan, seeds=values["seeds"] or plan.seeds, assignments=assignments)
    try:
        if len(argv) > 1:
            raise ValueError(f"unknown argument {argv[1]!r}; flags begin with --, see --help")
        config = settings_of(assignments)
        peer = process.find_peer(values["peer-python"], values["peer-runs"], plan.peer_flags)
        out = reserve(values["out"])
    except ValueError as error:
        print(f"experiments.benchmark: {error}", file=sys.stderr)
        sys.exit(2)
    start = time.perf_counter()
    record: dict[str, Any] = {
        "device": run_folder.device(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "load_average": {"start": os.getloadavg()[0]},
        "plan": dataclasses.asdict(plan) | {"quick": values["quick"]},
        "config": settings.to_dict(config),
        "complete": False,
    }
    try:
        for name, part in measure(config, plan, peer, environment):
            record[name] = part
            run_folder.write_json(out, record)
    except (process.ChildFailed, KeyboardInterrupt) as error:
        known = out.stat().st_size > 0
        if not known:
            out.unlink()
        rest = f"what was measured before is in {out}" if known else "nothing was measured"
        print(f"experiments.benchmark: {str(error) or 'interrupted'}; {rest}", file=sys.stderr, flush=True)
        os._exit(1)  # Not sys.exit: JAX aborts if Python ends amid a compiled program that was interrupted.
    record["load_average"]["end"] = os.getloadavg()[0]
    run_folder.write_json(out, record | {"complete": True, "wall_seconds": time.perf_counter() - start})
    print(table(record))
    print(out)


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=command_line.flags_parser("benchmark"))
