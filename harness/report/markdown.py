"""The report as Markdown, for a repository page: report.md."""

from __future__ import annotations

from jinja2 import Environment, StrictUndefined

from harness.report import formats, text, words
from harness.report.answers import Answer
from harness.report.content import Content, Fact

_TEMPLATE = """\
# {{ c.title | md }}

{% if c.warnings %}
{% for warning in c.warnings %}
> **Note.** {{ warning | md }}
{% endfor %}

{% endif %}
## Answer

{% for sentence in c.summary %}
{{ sentence | md }}

{% endfor %}
## Results

{% for answer in c.answers %}
- {{ answer | listed }}
{% endfor %}

{% if c.drawings %}
## Figures

{% for drawing in c.drawings %}
![{{ drawing.name | replace("_", " ") }}](figures/{{ drawing.name }}.png)

{{ drawing.words | md }} Files: [SVG](figures/{{ drawing.name }}.svg), \
[data](figures/{{ drawing.name }}.csv).

{% endfor %}
{% endif %}
## Table

{{ table }}
The same as [LaTeX](table.tex); every metric recorded, in full precision, as [CSV](table.csv).

## Published figures

{% if c.published %}
{{ c.published | grid }}
{% endif %}
{{ c.published_note | md }}

{% if c.failed %}
## Failed runs

{{ c.failed | grid }}
{% endif %}
{% if c.unfinished %}
## Not finished

{{ c.unfinished | grid }}
{% endif %}
## Protocol

{% for fact in c.protocol %}
- {{ fact.name }}: {{ fact | value }}
{% endfor %}

{% if c.time %}
## Where the time went

{{ c.time | grid }}
{% endif %}
## Runs

{{ c.runs | grid }}
"""


def to_markdown(content: Content) -> str:
    """The whole page."""
    # Not HTML: every foreign word passes through text.markdown, which escapes for both.
    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= {
        "md": text.markdown,
        "grid": words.to_markdown,
        "listed": _listed,
        "value": _value,
    }
    page = environment.from_string(_TEMPLATE).render(
        c=content, table=formats.to_markdown(content.table)
    )
    return page.rstrip("\n") + "\n"


def _listed(answer: Answer) -> str:
    """A list's item on one metric, with an item below it for each point."""
    heading = f"**{text.markdown(answer.metric)}** {text.markdown(answer.aside)}"
    said = ["", *(text.markdown(sentence) for sentence in answer.said), ""]
    items = [f"  - {text.markdown(item)}" for item in answer.items]
    return "\n".join([heading, *(f"  {line}".rstrip() for line in said), *items])


def _value(fact: Fact) -> str:
    if not fact.code or fact.value == text.DASH:
        return text.markdown(fact.value)
    return ", ".join(text.markdown_code(part) for part in fact.value.split(", "))
