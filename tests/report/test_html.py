"""Pages: whatever text goes in comes out as that text, in markup that is whole."""

from __future__ import annotations

from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrs.report.html import (
    Column,
    Html,
    Section,
    details,
    element,
    figure,
    join,
    legend,
    markup,
    page,
    paragraph,
    swatch,
    table,
)

NASTY = """<b>&"x' </td></script><!-- &amp; ]]> é 漢"""


class Reader(HTMLParser):
    """Reads as a browser does; complains where elements do not close in order."""

    VOID = ("br", "col", "hr", "img", "link", "meta")

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.texts, self.tags, self.attributes = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append(dict(attrs))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append(dict(attrs))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def whole_page(text=NASTY):
    columns = [Column(title=text), Column(title="px", numeric=True)]
    content = join(
        [
            table(columns, [(text, "1"), ("b", 2)], caption=text, foot=("sum", None)),
            details(text, paragraph(text)),
            figure(element("svg", element("title", text), viewBox="0 0 1 1", aria_label=text), text),
            legend([(swatch((1, 2, 3)), text)]),
        ]
    )
    sections = [Section(key="one", title=text, content=content), Section(key="two", title="Two", content=Html())]
    return page(title=text, lead=paragraph(text), sections=sections, foot=text, generator="ctrs test")


def test_text_comes_back_as_it_was():
    found = Reader(whole_page())
    # title, h1, contents, heading, lead, foot; caption, column, cell, summary, paragraph, svg title, figcaption
    assert found.texts.count(NASTY) == 13
    assert sum(NASTY in text for text in found.texts) == 14  # the legend has a blank before it
    assert "b" not in found.tags
    assert "script" not in found.tags
    assert {attributes["aria-label"] for attributes in found.attributes if "aria-label" in attributes} >= {NASTY}


@given(st.text())
def test_any_text_survives_an_element_and_an_attribute(text):
    written = element("td", text, title=text)
    found = Reader(written)
    allowed = "".join("\ufffd" if not _is_allowed(sign) else sign for sign in text)
    assert "".join(found.texts).replace("\r", "\n") == allowed.replace("\r", "\n")
    read = found.attributes[0]["title"]
    assert read.replace("\r", "\n") == allowed.replace("\r", "\n")
    ElementTree.fromstring(written)
    written.encode("utf-8")


def _is_allowed(sign):
    number = ord(sign)
    if sign in "\n\t\r":
        return True
    return not (number < 32 or 0x7F <= number < 0xA0 or 0xD800 <= number < 0xE000 or number in (0xFFFE, 0xFFFF))


def test_names_of_files_that_are_no_text_can_be_written():
    written = markup(b"scene\xff\x00.tif".decode("utf-8", "surrogateescape"))
    assert written.encode("utf-8").decode("utf-8") == "scene\ufffd\ufffd.tif"


def test_the_page_is_strict_markup_in_one_file():
    written = whole_page()
    assert written.startswith("<!DOCTYPE html>\n")
    root = ElementTree.fromstring(written)
    assert root.get("lang") == "en"
    assert next(meta.get("charset") for meta in root.iter("meta")) == "utf-8"
    assert not [tag for tag in root.iter() if tag.tag in ("script", "link", "iframe")]
    style = root.find("head/style").text
    assert "prefers-color-scheme: dark" in style
    assert "@media print" in style
    assert "url(" not in style
    assert "@import" not in style


def test_contents_lead_to_the_sections():
    root = ElementTree.fromstring(whole_page())
    assert [link.get("href") for link in root.iter("a")] == ["#one", "#two"]
    assert [section.get("id") for section in root.iter("section")] == ["one", "two"]


def test_tables_say_what_heads_what():
    root = ElementTree.fromstring(
        table([Column(title="class"), Column(title="px", numeric=True)], [("tree", 7)], caption="all", foot=("sum", 7))
    )
    heads = [(cell.text, cell.get("scope")) for cell in root.iter("th")]
    assert heads == [("class", "col"), ("px", "col"), ("tree", "row"), ("sum", "row")]
    assert [(cell.text, cell.get("class")) for cell in root.iter("td")] == [("7", "num"), ("7", "num")]
    assert root.get("aria-label") == root.find("table/caption").text == "all"


def test_a_row_has_a_cell_for_each_column():
    with pytest.raises(ValueError, match="zip"):
        table([Column(title="a")], [("1", "2")], caption="")


def test_attributes():
    written = element("rect", x=1.23456, y=2.0, stroke_width=3, class_="a", hidden=True, title=None, lang=False)
    assert written == '<rect x="1.23" y="2" stroke-width="3" class="a" hidden=""/>'
    assert element("path", element("title", "t"), d="M0 0") == '<path d="M0 0"><title>t</title></path>'
