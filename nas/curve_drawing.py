"""The curve of a trial as a small SVG image: a plot for every quantity, over the same steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as ET

from nas.vector_image import blank, number, put_text, written

WIDTH, HEIGHT = 232.0, 120.0  # px of the field of one plot
LEFT, RIGHT, TOP, BOTTOM = 62.0, 26.0, 30.0, 26.0  # px around it
MOST_IN_A_ROW = 3
MOST_QUANTITIES = 12
MOST_MARKED = 40  # points of a curve that are marked singly
TICKS = 4
SMALL = 11.0  # px


def curve_svg(curve: Sequence[Mapping[str, float]], units: Mapping[str, str]) -> str:
    """A standalone SVG file of a curve: rows of numbers by quantity, each with its "step".

    Quantities with a unit come first, in the order of `units`; of many, the first 12 are drawn.
    Numbers that are not finite are left out.
    """
    names = list(dict.fromkeys(name for row in curve for name in row if name != "step"))
    first = [name for name in units if name in names]
    shown = [*first, *(name for name in names if name not in first)][:MOST_QUANTITIES]
    columns, rows = min(len(shown), MOST_IN_A_ROW), math.ceil(len(shown) / MOST_IN_A_ROW)
    wide, high = LEFT + WIDTH + RIGHT, TOP + HEIGHT + BOTTOM
    image = blank(max(columns, 1) * wide, max(rows, 1) * high, "Curve of a trial")
    for index, name in enumerate(shown):
        row, column = divmod(index, MOST_IN_A_ROW)
        place = f"translate({number(column * wide + LEFT)} {number(row * high + TOP)})"
        field = ET.SubElement(image, "g", {"transform": place})
        unit = f" ({units[name]})" if units.get(name, "1") not in ("", "1") else ""
        put_text(field, name + unit, 0, -12, "rule")
        points = [(row["step"], row[name]) for row in curve if name in row]
        _plot(field, [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)])
    return written(image)


def ticks(low: float, high: float, most: int = TICKS) -> list[float]:
    """Round numbers, at most `most` + 1 of them, from below `low` to above `high`."""
    spread = high - low or abs(high) or 1.0
    unit = 10.0 ** math.floor(math.log10(spread / most))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10, 20) if spread / (m * unit) <= most - 1)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, max(last, first + 1) + 1)]


def _plot(field: ET.Element, points: list[tuple[float, float]]) -> None:
    """Axes, grid and line of one quantity, in a field of WIDTH x HEIGHT px."""
    if not points:
        put_text(field, "no finite number", 0, HEIGHT / 2, "role")
        return
    xs, ys = [x for x, _ in points], [y for _, y in points]
    levels = ticks(min(ys), max(ys))
    left, right = min(xs), max(xs)

    def across(x: float) -> float:
        return WIDTH / 2 if right == left else (x - left) / (right - left) * WIDTH

    def down(y: float) -> float:
        return HEIGHT * (1 - (y - levels[0]) / (levels[-1] - levels[0]))

    for level in levels:
        line = {"x1": "0", "x2": number(WIDTH), "y1": number(down(level)), "y2": number(down(level))}
        ET.SubElement(field, "line", {"class": "grid", **line})
        _label(field, level, -6, down(level) + SMALL * 0.35, "end")
    for x in dict.fromkeys((left, right)):
        _label(field, x, across(x), HEIGHT + 16, "middle")
    middle = put_text(field, "step", WIDTH / 2, HEIGHT + 16, "role") if right > left else None
    if middle is not None:
        middle.set("text-anchor", "middle")
    path = " ".join(f"{number(across(x))},{number(down(y))}" for x, y in points)
    ET.SubElement(field, "polyline", {"class": "curve", "points": path})
    for x, y in points if len(points) <= MOST_MARKED else points[-1:]:
        circle = {"cx": number(across(x)), "cy": number(down(y)), "r": "2.5"}
        mark = ET.SubElement(field, "circle", {"class": "point", **circle})
        ET.SubElement(mark, "title").text = f"step {x:.10g}: {y:.6g}"


def _label(field: ET.Element, value: float, x: float, y: float, anchor: str) -> None:
    text = f"{value:.4g}" if abs(value) < 1e5 else f"{value:.2e}"
    put_text(field, text, x, y, "role").set("text-anchor", anchor)
