"""Pieces of SVG images: an empty one in light and dark, texts that XML can hold, and their widths."""

from __future__ import annotations

import unicodedata
from xml.etree import ElementTree as ET

STYLE = """
svg { font-family: "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
.paper, .box, .named { fill: #ffffff; }
.inner { fill: #eef0f3; }
.box, .inner, .named, .edge { stroke: #b3b8c0; }
.named { stroke-dasharray: 4 3; }
.edge, .curve { fill: none; }
.grid { stroke: #e3e6ea; }
.curve { stroke: #1f6feb; stroke-width: 1.5; }
.point { fill: #1f6feb; }
.rule, .letter { fill: #1f2328; font-size: 13px; }
.role, .count { fill: #667080; font-size: 11px; }
.count, .letter { font-weight: bold; }
@media (prefers-color-scheme: dark) {
  .paper, .box, .named { fill: #16181c; }
  .inner { fill: #262a31; }
  .box, .inner, .named, .edge { stroke: #565d68; }
  .grid { stroke: #30353d; }
  .curve { stroke: #6ea8fe; }
  .point { fill: #6ea8fe; }
  .rule, .letter { fill: #e6e8eb; }
  .role, .count { fill: #9aa3b0; }
}
"""


def blank(width: float, height: float, title: str) -> ET.Element:
    """An image of that size in px, which a reader of screens calls by its title."""
    size = {"width": number(width), "height": number(height)}
    view = f"0 0 {size['width']} {size['height']}"
    image = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "viewBox": view, **size})
    ET.SubElement(image, "title").text = legal(title)
    ET.SubElement(image, "style").text = STYLE
    ET.SubElement(image, "rect", {"class": "paper", **size})
    return image


def written(image: ET.Element) -> str:
    """The image as the text of a file."""
    ET.indent(image)
    return ET.tostring(image, encoding="unicode") + "\n"


def put_text(parent: ET.Element, text: str, x: float, y: float, kind: str) -> ET.Element:
    """Put a text into the image with the left end of its base line at x, y in px."""
    element = ET.SubElement(parent, "text", {"class": kind, "x": number(x), "y": number(y)})
    element.text = legal(text)
    return element


def number(value: float) -> str:
    """A length in px as it stands in an SVG file."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def legal(text: str) -> str:
    """The text without characters that XML cannot hold or that break a line."""
    return "".join("�" if _illegal(c) else " " if c.isspace() else c for c in text)


def _illegal(character: str) -> bool:
    category = unicodedata.category(character)
    return category in ("Cc", "Cs", "Cn") and not character.isspace()


def text_width(text: str, size: float) -> float:
    """The width in px by the widest of the common sans-serif fonts, so that no box is too small."""
    return size * sum(_advance(character) for character in text)


def _advance(character: str) -> float:
    if unicodedata.east_asian_width(character) in "WF":
        return 1.05
    if character in "mMwW@%":
        return 1.0
    if character in "ijlI.,:;|!' ()[]{}tfr/\\-":
        return 0.45
    if character in "+=<>~#^&":
        return 0.85
    return 0.8 if character.isupper() or not character.isascii() else 0.65
