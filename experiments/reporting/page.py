"""One page of HTML that needs nothing else: no network, no other file, no script."""

import base64
import dataclasses
import html
from collections.abc import Sequence

from experiments.reporting.verdicts import Verdict


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure. `alt` says what it shows to who cannot see it, `caption` how it is to be read."""

    png: bytes
    alt: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of text under a header; the first column names the row."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Bullets:
    """A list of (name, text)."""

    items: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Verdicts:
    """What is meant, topic by topic."""

    verdicts: Sequence[Verdict]


Part = str | Picture | Table | Bullets | Verdicts


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading and what stands under it; a text is a paragraph."""

    title: str
    parts: Sequence[Part]


_STYLE = """
:root {
  color-scheme: light dark;
  --page: #fcfcfe; --card: #ffffff; --ink: #212938; --muted: #596377; --line: #dce0e8;
  --link: #2d548c; --look: #9a4a05; --look-soft: #fdf0e3;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12161e; --card: #1b212c; --ink: #e8ebf1; --muted: #a3adbd; --line: #2d3544;
    --link: #8fb4ea; --look: #f7b273; --look-soft: #38291b;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 2rem 1.25rem 4rem; background: var(--page); color: var(--ink); }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 0.5rem; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 0.75rem; padding-top: 1rem; border-top: 1px solid var(--line); }
p, li, dd { max-width: 46rem; overflow-wrap: anywhere; }
a { color: var(--link); }
nav ul { padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; }
.about, figcaption, caption { color: var(--muted); font-size: 0.9rem; }
dl { margin: 0; }
dt { font-weight: 600; margin-top: 0.9rem; }
dd { margin: 0.1rem 0 0; }
.look { background: var(--look-soft); border-left: 3px solid var(--look); padding: 0.1rem 0.75rem 0.5rem;
  margin-top: 0.9rem; max-width: 47.5rem; }
.look dt { margin-top: 0.3rem; }
.look b { color: var(--look); font-size: 0.85rem; margin-left: 0.5rem; }
figure { margin: 1.5rem 0; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line);
  border-radius: 8px; padding: 8px; }
figcaption { max-width: 46rem; margin-top: 0.4rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; font-size: 0.92rem; }
caption { text-align: left; padding-bottom: 0.4rem; }
th, td { padding: 0.3rem 0.9rem 0.3rem 0; text-align: right; white-space: nowrap; }
tr { border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; }
thead th { color: var(--muted); font-weight: 600; }
tbody th { font-weight: 500; }
"""


def page(title: str, about: Sequence[str], sections: Sequence[Section]) -> str:
    """Returns the HTML of a page.

    Args:
      title: of the page.
      about: paragraphs under it.
      sections: what follows, in this order; each is reached by a link at the top.
    """
    links = "".join(f'<li><a href="#section-{i}">{_text(part.title)}</a></li>' for i, part in enumerate(sections))
    body = "\n".join(
        f'<section aria-labelledby="section-{i}">\n<h2 id="section-{i}">{_text(section.title)}</h2>\n'
        + "\n".join(map(_part, section.parts))
        + "\n</section>"
        for i, section in enumerate(sections)
    )
    paragraphs = "\n".join(f'<p class="about">{_text(text)}</p>' for text in about)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(title)}</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>{_text(title)}</h1>
{paragraphs}
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main>
{body}
</main>
</body>
</html>
"""


def _text(text: str) -> str:
    """Returns text as HTML; a number is not parted from its %."""
    return html.escape(text).replace(" %", "&nbsp;%")


def _part(part: Part) -> str:
    match part:
        case Picture():
            return _picture(part)
        case Table():
            return _table(part)
        case Bullets():
            items = "".join(f"<li><strong>{_text(name)}</strong>: {_text(text)}</li>" for name, text in part.items)
            return f"<ul>{items}</ul>"
        case Verdicts():
            return f"<dl>\n{''.join(map(_verdict, part.verdicts))}</dl>"
    return f"<p>{_text(part)}</p>"


def _verdict(verdict: Verdict) -> str:
    name, text = _text(verdict.topic), _text(verdict.text)
    if verdict.notable:
        return f'<div class="look"><dt>{name}<b>worth a look</b></dt><dd>{text}</dd></div>\n'
    return f"<div><dt>{name}</dt><dd>{text}</dd></div>\n"


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode()
    # The size stands at a fixed place of every PNG. Smaller, the text in a picture is as large as that around it.
    width, height = (int.from_bytes(picture.png[i : i + 4], "big") * 4 // 5 for i in (16, 20))
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{_text(picture.alt)}" width="{width}" '
        f'height="{height}"><figcaption>{_text(picture.caption)}</figcaption></figure>'
    )


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{_text(text)}</th>' for text in table.header)
    rows = "".join(
        f'<tr><th scope="row">{_text(row[0])}</th>{"".join(f"<td>{_text(text)}</td>" for text in row[1:])}</tr>\n'
        for row in table.rows
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{_text(table.caption)}"><table>'
        f"<caption>{_text(table.caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>"
    )
