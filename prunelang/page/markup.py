"""HTML, with everything escaped that is not markup of our own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Markup:
    """Text that is markup already."""

    text: str


Content = str | Markup


def tag(name: str, *content: Content, **attributes: str) -> Markup:
    """An element. Attributes in Python's spelling: `class_`, `aria_label`."""
    given = "".join(f' {k.rstrip("_").replace("_", "-")}="{escape(v)}"' for k, v in attributes.items())
    return Markup(f"<{name}{given}>{''.join(map(plain, content))}</{name}>")


def plain(content: Content) -> str:
    """As it goes into the page."""
    return content.text if isinstance(content, Markup) else escape(content)


def joined(parts: Iterable[Content], between: str = "\n") -> Markup:
    return Markup(between.join(map(plain, parts)))


def table(
    head: Sequence[str], rows: Iterable[Sequence[Content]], caption: str, right: frozenset[int] = frozenset()
) -> Markup:
    """A table with a caption, a header for each column, and the first cell of each row as its header."""
    titles = joined((tag("th", h, scope="col", **_side(i, right)) for i, h in enumerate(head)), "")
    body = (tag("tr", joined((_cell(i, c, right) for i, c in enumerate(cells)), "")) for cells in rows)
    whole = tag("table", tag("caption", caption), tag("thead", tag("tr", titles)), tag("tbody", joined(body)))
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _cell(at: int, content: Content, right: frozenset[int]) -> Markup:
    if at == 0:
        return tag("th", content, scope="row")
    return tag("td", content, **_side(at, right))


def _side(at: int, right: frozenset[int]) -> dict[str, str]:
    return {"class_": "n"} if at in right else {}


def section(title: str, *content: Content) -> Markup:
    anchor = "".join(c if c.isalnum() else "-" for c in title.lower())
    return tag("section", tag("h2", title, id=anchor), *content, aria_labelledby=anchor)


def pairs(rows: Iterable[tuple[Content, Content]]) -> Markup:
    """A list of terms and what they are."""
    return tag("dl", joined(joined((tag("dt", a), tag("dd", b)), "") for a, b in rows))
