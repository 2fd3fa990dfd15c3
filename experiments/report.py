"""Turns the folder of a run into one page of HTML, with figures and what they mean in words.

    python -m experiments.report results/pendulum/<time>
    python -m experiments.report results/pendulum/<time> --out report.html

The page needs no network and no other file. It is report.html in the run's folder, which is replaced each time, or a
new file. A run that is not finished has one too, about what it has done so far.
"""

from pathlib import Path

from absl import flags

from experiments import command_line, session
from experiments.reporting import page, record, sections
from experiments.reporting.record import RunRecord

flags.adopt_module_key_flags(command_line)
_OUT = flags.DEFINE_string("out", None, "The page, a new file; report.html in the run's folder if not given.")


def html(run: RunRecord) -> str:
    """Returns the page about a run."""
    return page.page(f"Report: {run.experiment}", about(run), sections.sections(run))


def about(run: RunRecord) -> list[str]:
    """Returns what was run, in words."""
    environments = dict.fromkeys(str(part.settings["env"]) for part in run.conditions if "env" in part.settings)
    longest = max(run.conditions, key=lambda part: part.points)
    text = f"{run.path.resolve().name}: {', '.join(environments) or 'an unknown environment'}, "
    text += f"{_count(len(run.conditions), 'condition')} × {_count(len(run.seeds), 'seed')}, "
    text += _count(longest.points, "iteration")
    settings = longest.settings
    # A fit acts in no environment, though its settings say in how many it could.
    if "return" in longest.metrics and "num_envs" in settings and "rollout_length" in settings:
        text += f" of {settings['num_envs'] * settings['rollout_length']:,} environment steps"
    return [f"{text}, on {run.device}."]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def main(path: str) -> None:
    """Reads the run, draws, and writes the page."""
    file = command_line.new_file(Path(_OUT.value)) if _OUT.value else Path(path, "report.html")
    with command_line.refusing():
        run = record.read(Path(path))
    session.say(f"drawing the report of {path}")
    text = html(run)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise command_line.BadInput(f"{file} cannot be written: {error.strerror}") from None
    print(file)


if __name__ == "__main__":
    command_line.run("report", main, "RUN")
