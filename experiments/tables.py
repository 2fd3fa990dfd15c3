"""Text in columns."""

from collections.abc import Sequence
from typing import Any


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns rows as lines of text: the first column to the left, the others to the right, as wide as they need."""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    return [
        "  ".join(text.rjust(widths[i]) if i else text.ljust(widths[i]) for i, text in enumerate(row)).rstrip()
        for row in rows
    ]


def interval(row: dict[str, Any]) -> str:
    """Returns the 95 % interval of a condition's row, such as `[-150.0, -147.5]`; a dash for a single seed."""
    if len(row["eval_return"]) == 1:
        return "–"
    low, high = row["ci95"]
    return f"[{low:.1f}, {high:.1f}]"


def probability(row: dict[str, Any], key: str) -> str:
    """Returns a probability of a condition's row, such as `0.62 [0.41, 0.80]`, alone for a single seed, or a dash."""
    if row[key] is None:
        return "–"
    if len(row["eval_return"]) == 1:
        return f"{row[key]:.2f}"
    low, high = row[f"{key}_ci95"]
    return f"{row[key]:.2f} [{low:.2f}, {high:.2f}]"


def ranged(values: dict[str, float], digits: int = 2) -> str:
    """Returns the median with the least and the largest, such as `1.52 [1.47, 1.60]`, or alone if they are the same."""
    low, middle, high = (f"{values[key]:.{digits}f}" for key in ("min", "median", "max"))
    return middle if low == high else f"{middle} [{low}, {high}]"
