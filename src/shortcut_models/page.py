"""Pieces of a page of HTML: one file, no script, nothing fetched. All text is escaped here."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple


class Html(NamedTuple):
    """Markup, as opposed to text that is still to be escaped."""

    markup: str


class Section(NamedTuple):
    """A part of the page with a heading of its own, which the contents list."""

    title: str
    parts: Sequence[Html]


def page(title: str, subtitle: str, sections: Sequence[Section], foot: str) -> str:
    """The whole document."""
    names = [f"part-{number}" for number in range(1, len(sections) + 1)]
    links = "".join(
        f'<a href="#{name}">{escape(section.title)}</a>' for name, section in zip(names, sections, strict=True)
    )
    bodies = "".join(
        f'<section id="{name}"><h2>{escape(section.title)}</h2>{"".join(part.markup for part in section.parts)}'
        "</section>"
        for name, section in zip(names, sections, strict=True)
    )
    return DOCUMENT.format(
        title=escape(title), subtitle=escape(subtitle), style=STYLE, links=links, bodies=bodies, foot=escape(foot)
    )


def text(words: str) -> Html:
    """A paragraph."""
    return Html(f"<p>{escape(words)}</p>")


def heading(words: str) -> Html:
    """A heading within a section."""
    return Html(f"<h3>{escape(words)}</h3>")


def code(words: str) -> Html:
    """A command, to be copied."""
    return Html(f"<pre><code>{escape(words)}</code></pre>")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = False) -> Html:
    """A table; with `numbers`, all columns but the first are set flush right."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    kind = ' class="numbers"' if numbers else ""
    return Html(f'<div class="wide"><table{kind}><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>')


def facts(pairs: Sequence[tuple[str, str]]) -> Html:
    """Names and what they stand for."""
    rows = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in pairs)
    return Html(f'<div class="wide"><table class="facts"><tbody>{rows}</tbody></table></div>')


def beside(parts: Sequence[tuple[str, Html]]) -> Html:
    """Parts under headings of their own, next to each other where there is room."""
    inside = "".join(f"<div><h3>{escape(title)}</h3>{part.markup}</div>" for title, part in parts)
    return Html(f'<div class="beside">{inside}</div>')


def folded(words: str, parts: Sequence[Html]) -> Html:
    """Parts that show when they are asked for."""
    inside = "".join(part.markup for part in parts)
    return Html(f"<details><summary>{escape(words)}</summary>{inside}</details>")


def picture(path: Path, title: str, how: str) -> Html:
    """A PNG, which becomes part of the page, and how to read it."""
    content = path.read_bytes()
    data = base64.b64encode(content).decode("ascii")
    # The header says how wide it is; 150 of its pixels are an inch, which is 96 of CSS's.
    width = round(int.from_bytes(content[16:20], "big") * 96 / 150)
    words = f"<strong>{escape(title)}.</strong> {escape(how)}"
    image = f'<img alt="{escape(title)}" width="{width}" src="data:image/png;base64,{data}">'
    return Html(f"<figure>{image}<figcaption>{words}</figcaption></figure>")


DOCUMENT = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{title}</h1><p>{subtitle}</p><nav>{links}</nav></header>
<main>{bodies}</main>
<footer><p>{foot}</p></footer>
</body>
</html>
"""

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --back: #ffffff; --tint: #f3f5f7;
  --link: #0058a8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --soft: #9aa4af; --line: #3a424c; --back: #14181d;
  --tint: #1e242b; --link: #7db8f0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 68rem; background: var(--back); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { margin: 0; font-size: 1.7rem; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 .6rem; padding-bottom: .2rem; border-bottom: 1px solid var(--line); font-size: 1.25rem; }
h3 { margin: 1.5rem 0 .4rem; font-size: 1rem; }
header p, footer p, figcaption, summary { color: var(--soft); }
header p { margin: .2rem 0 .8rem; }
p { max-width: 48rem; }
nav { display: flex; flex-wrap: wrap; gap: 0 1.2rem; }
nav a { color: var(--link); }
figure { margin: 1.5rem 0; break-inside: avoid; }
img { max-width: 100%; height: auto; padding: 6px; background: #ffffff; border: 1px solid var(--line);
  border-radius: 4px; }
figcaption { max-width: 48rem; margin-top: .3rem; font-size: .9rem; }
figcaption strong { color: var(--ink); }
.wide { overflow-x: auto; }
.beside { columns: 19rem; }
.beside div { break-inside: avoid; }
.beside h3 { margin-top: .4rem; }
table { margin: .5rem 0; border-collapse: collapse; font-size: .9rem; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { background: var(--tint); }
tbody th { font-weight: normal; white-space: nowrap; }
td { overflow-wrap: anywhere; }
.numbers td, .numbers th:not(:first-child) { text-align: right; font-variant-numeric: tabular-nums; }
.facts th { color: var(--soft); }
pre { margin: .5rem 0; padding: .6rem .8rem; background: var(--tint); border-radius: 4px; overflow-x: auto;
  font-size: .85rem; white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: .5rem 0; }
summary { cursor: pointer; font-size: .9rem; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); font-size: .85rem; }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } nav { display: none; }
  h2, h3 { break-after: avoid; } tr { break-inside: avoid; } .wide { overflow: visible; } }
"""
