"""The HTML report: one file, nothing executable, nothing loaded from elsewhere."""

from __future__ import annotations

from html.parser import HTMLParser

import made_reports as made
import pytest
from hostile_names import HOSTILE_NAMES

from edgecompress.report.forms import render
from edgecompress.report.names import plain

ALLOWED = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "section", "p", "ul", "li"}
ALLOWED |= {"div", "table", "thead", "tbody", "tr", "th", "td", "svg", "text", "rect"}


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def parse(html: str) -> Elements:
    elements = Elements()
    elements.feed(html)
    return elements


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_are_inert(name: str) -> None:
    for report in (made.compression((name,)), made.estimate(names=(name,)), made.inspection(name)):
        elements = parse(render(report, "html"))
        assert elements.tags <= ALLOWED
        assert not any(attribute.startswith("on") for attribute in elements.attributes)
        assert not elements.attributes & {"src", "href", "xlink:href", "style"}
        assert plain(name) in elements.text


def test_the_style_is_the_one_that_the_policy_allows() -> None:
    import base64
    import hashlib
    import re

    html = render(made.compression(), "html")
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    policy = re.search(r"style-src 'sha256-([^']+)'", html)
    assert style
    assert policy
    digest = hashlib.sha256(style[1].encode()).digest()
    assert base64.b64encode(digest).decode() == policy[1]
    assert "default-src 'none'" in html


def test_a_bar_for_every_layer() -> None:
    html = render(made.compression(("one", "two")), "html")
    assert html.count('class="bar"') == 3
    assert html.count('class="ghost"') == 3
