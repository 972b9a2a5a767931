"""Curves as images: every quantity with its unit, every point in its field, for any numbers."""

from __future__ import annotations

import math
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from nas.curve_drawing import HEIGHT, WIDTH, curve_svg, ticks

SVG = "{http://www.w3.org/2000/svg}"
UNITS = {"accuracy": "%", "loss": "nats", "params": "1"}


def rows(**columns: list[float]) -> list[dict[str, float]]:
    length = len(next(iter(columns.values())))
    return [{"step": i + 1.0, **{k: v[i] for k, v in columns.items()}} for i in range(length)]


def points(image: ET.Element) -> list[list[tuple[float, float]]]:
    lines = [line.get("points", "").split() for line in image.iter(f"{SVG}polyline")]
    return [[(float(x), float(y)) for x, y in (p.split(",") for p in line)] for line in lines]


def texts(image: ET.Element) -> list[str]:
    return [t.text or "" for t in image.iter(f"{SVG}text")]


def test_every_quantity_has_its_plot_with_its_unit() -> None:
    curve = rows(train_loss=[3.0, 2.0], params=[5.0, 5.0], loss=[4.0, 1.0], accuracy=[20.0, 90.0])
    image = ET.fromstring(curve_svg(curve, UNITS))
    titles = [t.text for t in image.iter(f"{SVG}text") if t.get("class") == "rule"]
    assert titles == ["accuracy (%)", "loss (nats)", "params", "train_loss"]
    assert len(points(image)) == 4


@pytest.mark.parametrize(
    "values",
    [[1.0, 2.0, 3.0], [-5e-9, 5e-9], [1e12, 2e12, -1e12], [0.1, 0.1], [0.0], [1e6, 1.000001e6]],
)
def test_points_lie_within_their_field_in_the_order_of_their_values(values: list[float]) -> None:
    (line,) = points(ET.fromstring(curve_svg(rows(loss=values), UNITS)))
    assert all(0 <= x <= WIDTH and -0.01 <= y <= HEIGHT + 0.01 for x, y in line)
    heights = [-y for _, y in line]
    assert sorted(range(len(values)), key=values.__getitem__) == sorted(
        range(len(values)), key=heights.__getitem__
    )
    assert [x for x, _ in line] == sorted(x for x, _ in line)


def test_numbers_that_are_not_finite_are_left_out() -> None:
    curve = rows(loss=[3.0, math.nan, math.inf, 1.0], accuracy=[math.nan] * 4)
    image = ET.fromstring(curve_svg(curve, UNITS))
    assert [len(line) for line in points(image)] == [2]
    assert "no finite number" in texts(image)


def test_rows_need_not_have_every_quantity() -> None:
    image = ET.fromstring(
        curve_svg([{"step": 1.0, "loss": 2.0}, {"step": 2.0, "accuracy": 3.0}], UNITS)
    )
    assert [len(line) for line in points(image)] == [1, 1]


def test_an_empty_curve_is_an_empty_image() -> None:
    assert points(ET.fromstring(curve_svg([], UNITS))) == []


def test_an_image_is_no_wider_than_a_page() -> None:
    many = {f"quantity_{i}": [1.0, 2.0] for i in range(40)}
    image = ET.fromstring(curve_svg(rows(**many), {}))
    assert float(image.get("width", 0)) <= 1000


@pytest.mark.parametrize(
    ("low", "high"), [(0.09, 3.1), (26.7, 97.0), (5.0, 5.0), (0.0, 0.0), (-2e-9, 1e-9), (1e9, 1.1e9)]
)
def test_ticks_are_few_round_numbers_around_the_values(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 5
    assert found[0] <= low + 1e-9
    assert found[-1] >= high - 1e-9
    steps = {f"{b - a:.6g}" for a, b in pairwise(found)}
    assert len(steps) == 1
    leading = steps.pop().replace("0.", "").lstrip("0").partition("e")[0].rstrip("0").replace(".", "")
    assert leading in ("1", "2", "25", "5")
