"""What a report says about a run, section by section."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import figures
from experiments.captions import minus
from experiments.reporting import reward_figures, reward_verdicts, run_verdicts, verdicts
from experiments.reporting.page import Bullets, Part, Picture, Section, Table, Verdicts
from experiments.reporting.record import ConditionRecord, RunRecord
from experiments.reporting.verdicts import Verdict

_CURVES = 7  # in one figure, as many as there are colours
_PANELS = 9  # of the reliability diagram in one figure
_JUDGED = {
    "accuracy": ("accuracy", 2),
    "teacher_accuracy": ("… of a possible", 2),
    "log_likelihood": ("log-likelihood, nats", 2),
    "teacher_log_likelihood": ("… of a possible", 2),
    "calibration_error": ("calibration error", 3),
    "correlation": ("correlation per step, Pearson's", 2),
    "rank_correlation": ("… Spearman's", 2),
    "segment_correlation": ("correlation per segment, Pearson's", 2),
    "segment_rank_correlation": ("… Spearman's", 2),
    "epic": ("EPIC distance", 2),
    "dard": ("DARD distance", 2),
    "spread": ("spread of the ensemble", 2),
}


def sections(run: RunRecord) -> list[Section]:
    """Returns everything that can be said about a run."""
    judged = {condition.name: run_verdicts.judge(condition, run) for condition in run.conditions}
    parts = [Section("In short", [*_state(run), Bullets(_overview(judged))]), Section("Returns", list(_returns(run)))]
    if any(condition.learns_reward for condition in run.conditions):
        parts.append(Section("Learnt rewards", list(_rewards(run))))
    parts += [Section(f"Condition {part.name}", list(_condition(part, judged[part.name]))) for part in run.conditions]
    return [*parts, Section("How to read this", [Bullets(_glossary())])]


def _state(run: RunRecord) -> Iterator[Part]:
    if run.experiment == "human":
        yield (
            "People answered. The teacher that the learnt reward is compared with below is none of them, but the "
            "synthetic one of the settings, who goes by the true reward. Where people want something else, a reward "
            "that is right looks wrong."
        )
    if run.finished:
        return
    done = min(condition.points for condition in run.conditions)
    totals = [int(c.settings.get("iterations", c.settings.get("epochs", 0))) for c in run.conditions]
    of = f" of {max(totals)}" if all(totals) else ""
    yield f"This run is not finished: it has done {done}{of} iterations, and there is no evaluation yet."


def _overview(judged: Mapping[str, dict[str, Verdict | None]]) -> list[tuple[str, str]]:
    lines = []
    for name, found in judged.items():
        briefs = [verdict.brief for verdict in found.values() if verdict is not None and verdict.brief]
        lines.append((name, ("; ".join(briefs) or "nothing was recorded") + "."))
    return lines


def _returns(run: RunRecord) -> Iterator[Part]:
    curves = {condition.name: condition.metrics.get("return") for condition in run.conditions}
    if all(values is None for values in curves.values()):
        yield "The run recorded no returns."
    caption = "True return of an episode in training, where the policy explores: interquartile mean of the seeds"
    yield from _curves("True return", "true return of an episode", curves, run.optimum, caption)
    rows = []
    for condition in run.conditions:
        values, in_training = run_verdicts.final_returns(condition)
        if values is not None and np.isfinite(values).all():
            rows.append(_return_row(condition, values, in_training))
    if rows:
        header = ["condition", "labels", "IQM, 95 % interval", "mean", "worst seed", "policy"]
        yield Table(f"True return at the end, of {len(run.seeds)} seeds; IQM is the interquartile mean", header, rows)


def _return_row(condition: ConditionRecord, values: np.ndarray, in_training: bool) -> list[str]:
    labels = condition.metrics.get("labels")
    return [
        condition.name,
        "–" if labels is None or np.isnan(labels[:, -1]).any() else f"{labels[:, -1].max():.0f}",
        verdicts.with_interval(values),
        minus(f"{values.mean():.1f}"),
        minus(f"{values.min():.1f}"),
        "exploring" if in_training or condition.explores else "deterministic",
    ]


def _rewards(run: RunRecord) -> Iterator[Part]:
    learnt = [condition for condition in run.conditions if condition.learns_reward]
    accuracies = {condition.name: condition.metrics.get("heldout_accuracy") for condition in learnt}
    curves = {condition.name: accuracies.get(condition.name) for condition in run.conditions}
    caption = "Accuracy on pairs of new rollouts, before they are learnt from: interquartile mean of the seeds"
    yield from _curves("Held-out accuracy", "accuracy", curves, None, caption)
    bins = {condition.name: condition.reliability for condition in learnt if condition.reliability is not None}
    for group in _groups(list(bins), _PANELS):
        yield _drawn(
            reward_figures.reliability_diagram,
            {name: bins[name] for name in group},
            title="Reliability",
            alt=f"Mean answer against predicted probability, for {', '.join(group)}.",
            caption="How often the teacher prefers a clip, a tie counting half, where the learnt reward says that it "
            "does with a certain probability. On the diagonal a probability can be taken at its word; in the right "
            "half it is over-confident below, under-confident above. The larger a mark, the more pairs; thin lines are "
            "single seeds. A pair counts in both orders, so the halves mirror each other.",
        )
    if all(values is None for values in curves.values()) and not bins:
        yield "The run recorded nothing that conditions can be compared by, such as held-out accuracy or reliability."


def _condition(condition: ConditionRecord, found: dict[str, Verdict | None]) -> Iterator[Part]:
    if condition.settings.get("use_true_reward"):
        yield "This condition is given the true reward, so there is no learnt reward to judge."
    yield Verdicts([verdict for verdict in found.values() if verdict is not None])
    absent = [topic for topic, verdict in found.items() if verdict is None]
    if absent:
        images = " Of images no distance is taken." if "Distance" in absent else ""
        yield f"Left out, because the run did not record what is needed: {', '.join(absent).lower()}.{images}"
    if condition.learns_reward:
        yield from _condition_figures(condition)
        yield from _judgement_table(condition)


def _condition_figures(condition: ConditionRecord) -> Iterator[Part]:
    metric, iterations = condition.metrics.get, np.arange(1, condition.points + 1)
    pairs = {"accuracy": "accuracy", "log-likelihood": "log_likelihood"}
    panels = {
        words: (condition.metrics[f"heldout_{key}"], condition.metrics[f"teacher_{key}"])
        for words, key in pairs.items()
        if f"heldout_{key}" in condition.metrics and f"teacher_{key}" in condition.metrics
    }
    if panels:
        yield _drawn(
            reward_figures.held_out,
            iterations,
            panels,
            title=f"Held-out pairs: {condition.name}",
            alt=f"Curves of held-out {' and '.join(panels)} over the iterations, beside what is possible.",
            caption="On pairs of each new rollout, before it is learnt from. Possible is what a perfect model of this "
            "teacher would reach on the same pairs. Lines are interquartile means of the seeds, bands 95 % intervals.",
        )
    alarm = run_verdicts.alarm(condition)
    if alarm is not None:
        yield _drawn(
            reward_figures.proxy_and_truth,
            iterations,
            proxy=metric("predicted_return"),
            truth=metric("return"),
            alarm=alarm,
            title=f"Proxy and truth: {condition.name}",
            alt=f"The true return, and below it the proxy; {alarm.any(1).sum()} of {len(alarm)} seeds give the alarm.",
            caption="Each on a scale of its own. Preferences tell neither scale nor offset, and every fit moves the "
            "learnt reward's, so that the level of the proxy means nothing, only where it goes. "
            + ("Hatched where seeds give the alarm." if alarm.any() else "No seed gives the alarm."),
        )
    plane = run_verdicts.plane(condition)
    if plane is not None:
        yield _drawn(
            reward_figures.reward_maps,
            plane,
            condition.reward_map,
            title=f"Reward of doing nothing: {condition.name}",
            alt=f"Heat maps of the true and the learnt reward over {plane.across.label} and {plane.up.label}.",
            caption="Action zero in every state. Preferences tell neither scale nor offset, so the learnt reward of "
            "each seed is brought to the true scale by least squares, and then the mean is taken. Lines join equal "
            "rewards.",
        )


def _judgement_table(condition: ConditionRecord) -> Iterator[Part]:
    judgement = condition.judgement
    states = [name for name in reward_verdicts.STATES if any(key.startswith(f"{name}.") for key in judgement)]
    rows = []
    for metric, (words, digits) in _JUDGED.items():
        cells = [judgement.get(f"{name}.{metric}") for name in states]
        if any(values is not None for values in cells):
            rows.append([words, *("–" if values is None else verdicts.over_seeds(values, digits) for values in cells)])
    if rows:
        caption = "The learnt reward at the end, by the states it is judged on: median of the seeds, least and largest"
        yield Table(caption, ["", *(reward_verdicts.STATES[name] for name in states)], rows)


def _glossary() -> list[tuple[str, str]]:
    return [
        (
            "numbers",
            "the median of the seeds, with the least and the largest in brackets; a return is the interquartile mean, "
            f"with its 95 % bootstrap interval. The end of training is its last {verdicts.TAIL} iterations.",
        ),
        ("possible", "what a model that knows the teacher perfectly would reach: less than 1 if the teacher errs."),
        (
            "proxy",
            "the return that the learnt reward gives the policy. The alarm is raised where it rose and the true return "
            f"fell since its best, over windows of {verdicts.WINDOW} iterations, by more than noise and more than a "
            "tenth of their ranges.",
        ),
        ("EPIC and DARD", "distances that ignore scale, offset and potential shaping, which change no optimal policy."),
        (
            "correlation",
            "with the true reward, over steps or over sums of segments; shaping that does no harm lowers it.",
        ),
    ]


def _curves(
    title: str, ylabel: str, curves: Mapping[str, np.ndarray | None], optimum: float | None, caption: str
) -> Iterator[Picture]:
    """Yields as many figures as the conditions need; one that is None is not drawn, so that all keep their looks."""
    for group in _groups(list(curves), _CURVES):
        shown = {name: values for name in group if (values := curves[name]) is not None}
        if not shown:
            continue
        points = max(values.shape[1] for values in shown.values())
        padded = {
            name: np.pad(values, ((0, 0), (0, points - values.shape[1])), constant_values=np.nan)
            for name, values in shown.items()
        }
        yield _drawn(
            figures.learning_curves,
            np.arange(1, points + 1),
            {name: padded.get(name) for name in group},
            optimum=optimum,
            title=title,
            xlabel="iteration",
            ylabel=ylabel,
            alt=f"Curves over the iterations, for {', '.join(shown)}.",
            caption=f"{caption}, with a 95 % bootstrap band.",
        )


def _drawn(draw: Callable[..., None], *args: Any, alt: str, caption: str, **named: Any) -> Picture:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "figure.png")
        draw(file, *args, **named)
        return Picture(file.read_bytes(), alt, caption)


def _groups(names: Sequence[str], size: int) -> list[Sequence[str]]:
    return [names[i : i + size] for i in range(0, len(names), size)]
