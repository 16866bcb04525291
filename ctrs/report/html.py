"""Web pages that stand in one file: elements that escape what they hold, tables, sections, the page around them."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources

_VOID = {"br", "circle", "col", "hr", "image", "img", "line", "link", "meta", "path", "polyline", "rect", "use"}
"""Elements without content; those of SVG are closed in the start tag, which HTML allows in the others as well."""


_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Characters that no page may hold, escaped or not; file names may."""


class Html(str):
    """Markup. Any other text is escaped where it enters an element, so that data never becomes markup."""

    __slots__ = ()


Content = str | int | None
"""What an element holds: markup, text that is escaped, a whole number, or nothing."""


def markup(content: Content) -> Html:
    """Return content as markup: text escaped, nothing as empty.

    >>> markup("<b> & co")
    '&lt;b&gt; &amp; co'
    """
    if isinstance(content, Html):
        return content
    text = "" if content is None else str(content)
    return Html(html.escape(_FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)))


def join(parts: Iterable[Content], separator: str = "") -> Html:
    """Return contents one after the other."""
    return Html(separator.join(markup(part) for part in parts))


def element(tag: str, *contents: Content, **attributes: str | int | float | bool | None) -> Html:
    """Return an element of HTML or SVG.

    Args:
        tag: Its name.
        contents: What it holds; text is escaped.
        attributes: Values are escaped; a trailing underscore is dropped from names, others become hyphens. None and
            False leave an attribute out, True gives it an empty value.

    >>> element("td", "a < b", class_="num", data_x=None)
    '<td class="num">a &lt; b</td>'
    """
    parts = [tag]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        name = key.rstrip("_").replace("_", "-")
        parts.append(f'{name}="{"" if value is True else markup(_attribute(value))}"')
    start = " ".join(parts)
    if tag in _VOID and not contents:
        return Html(f"<{start}/>")
    return Html(f"<{start}>{join(contents)}</{tag}>")


def _attribute(value: str | float) -> str:
    """Write numbers short: two decimals are a hundredth of a pixel."""
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table.

    Args:
        title: Its heading.
        numeric: Figures, aligned right.
    """

    title: str
    numeric: bool = False


def table(
    columns: Sequence[Column],
    rows: Iterable[Sequence[Content]],
    *,
    caption: str,
    foot: Sequence[Content] | None = None,
    is_dense: bool = False,
) -> Html:
    """Return a table whose first cells head their rows.

    Args:
        columns: From left to right.
        rows: A cell for each column.
        caption: What it shows.
        foot: A last row that sums up.
        is_dense: Small type, for many columns.
    """
    head = join(
        element("th", column.title, scope="col", class_="num" if column.numeric else None) for column in columns
    )
    body = join((_row(columns, row) for row in rows), "\n")
    parts = [element("caption", caption), element("thead", element("tr", head)), element("tbody", body)]
    if foot is not None:
        parts.append(element("tfoot", _row(columns, foot)))
    # Scrolls on its own where it is wider than the page; reachable by keyboard for that.
    kind = "wide dense" if is_dense else "wide"
    return element("div", element("table", *parts), class_=kind, role="region", aria_label=caption, tabindex=0)


def _row(columns: Sequence[Column], cells: Sequence[Content]) -> Html:
    found = []
    for number, (column, cell) in enumerate(zip(columns, cells, strict=True)):
        kind = "num" if column.numeric else None
        found.append(element("td", cell, class_=kind) if number else element("th", cell, scope="row", class_=kind))
    return element("tr", *found)


def paragraph(*contents: Content, class_: str | None = None) -> Html:
    """Return a paragraph."""
    return element("p", *contents, class_=class_)


def details(summary: Content, *contents: Content, is_open: bool = False) -> Html:
    """Return a part that is folded away until somebody opens it."""
    return element("details", element("summary", summary), *contents, open=is_open)


def figure(content: Html, caption: Content, *, class_: str | None = None) -> Html:
    """Return a picture with its caption."""
    return element("figure", content, element("figcaption", caption), class_=class_)


def swatch(color: tuple[int, int, int]) -> Html:
    """Return a small square in a colour."""
    return element("span", class_="swatch", style=f"background:{css_color(color)}")


def legend(entries: Iterable[tuple[Html, str]]) -> Html:
    """Return signs with their meanings in a row."""
    return element("ul", *(element("li", sign, "\N{NO-BREAK SPACE}", name) for sign, name in entries), class_="legend")


def css_color(color: tuple[int, int, int]) -> str:
    """Return a colour for style sheets.

    >>> css_color((255, 0, 16))
    '#ff0010'
    """
    return "#{:02x}{:02x}{:02x}".format(*color)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a page.

    Args:
        key: Anchor: letters, digits and hyphens.
        title: Heading, also in the table of contents.
        content: What stands under it.
    """

    key: str
    title: str
    content: Html


def page(*, title: str, lead: Html, sections: Sequence[Section], foot: Content, generator: str) -> str:
    """Return a page that needs no other file, script or network.

    Args:
        title: Of the page.
        lead: What stands first, before the table of contents.
        sections: In order.
        foot: Last line.
        generator: Program that made the page.
    """
    style = resources.files("ctrs.report").joinpath("page.css").read_text(encoding="utf-8")
    contents = element(
        "nav",
        element("h2", "Contents"),
        element("ol", *(element("li", element("a", part.title, href=f"#{part.key}")) for part in sections)),
        aria_label="Contents",
    )
    parts = [
        element("section", element("h2", part.title), part.content, id=part.key, aria_label=part.title)
        for part in sections
    ]
    head = join(
        [
            element("meta", charset="utf-8"),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="color-scheme", content="light dark"),
            element("meta", name="generator", content=generator),
            element("title", title),
            element("style", Html(style)),
        ],
        "\n",
    )
    body = element(
        "body",
        element("header", element("h1", title), lead),
        element("div", contents, element("main", join(parts, "\n")), class_="columns"),
        element("footer", paragraph(foot)),
    )
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n{body}\n</html>\n'
