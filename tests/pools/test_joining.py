"""Joined pools: nothing is lost, nothing is made up, and nothing that differs is joined."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nas.errors import ConfigurationError, DataError
from nas.pool import Pool
from nas.pool_joining import join
from nas.task import Metric
from tests.pools.making import pool_of


def timed(pool, *, space="words", fold=None, reasons=None):
    ones = np.ones(len(pool))
    description = {"identity": {"space": {"name": space}}, "fold": fold, "cost_unit": "evaluations"}
    return replace(
        pool, seconds=ones, cpu_seconds=ones / 2, costs=ones * 3, reasons=reasons or {},
        description=description,
    )  # fmt: skip


def joined(*pools):
    return join({Path(f"{i}.npz"): pool for i, pool in enumerate(pools)})


ONE = timed(pool_of("abc", {"x": [1, 2, 3], "y": [4, np.nan, 6]}), reasons={1: "no y"})
OTHER = timed(pool_of("cd", {"y": [6, 7], "z": [8, 9]}), reasons={0: "slow", 1: "dead"})


def test_rows_and_columns_are_those_of_all():
    pool = joined(ONE, OTHER)
    nan = np.nan
    assert pool.texts == ("a", "b", "c", "d")
    np.testing.assert_equal(
        dict(pool.columns), {"x": [1, 2, 3, nan], "y": [4, nan, 6, 7], "z": [nan, nan, 8, 9]}
    )
    assert pool.reasons == {1: "no y", 2: "slow", 3: "dead"}
    assert pool.metrics == {**ONE.metrics, **OTHER.metrics}


def test_seconds_and_costs_are_added_up():
    pool = joined(ONE, OTHER)
    np.testing.assert_equal(pool.seconds, [1, 1, 2, 1])
    np.testing.assert_equal(pool.cpu_seconds, [0.5, 0.5, 1, 0.5])
    np.testing.assert_equal(pool.costs, [3, 3, 6, 3])


def test_a_joined_pool_is_a_pool(tmp_path):
    joined(ONE, OTHER).write(tmp_path / "p.npz")
    read = Pool.read(tmp_path / "p.npz")
    assert [part["cost_unit"] for part in read.description["joined"]] == ["evaluations"] * 2
    assert joined(read, ONE).texts == read.texts


def test_a_missing_value_is_filled_and_a_different_one_refused():
    filled = joined(ONE, timed(pool_of("b", {"y": [5]})))
    np.testing.assert_equal(filled.column("y"), [4, 5, 6])
    with pytest.raises(DataError, match=r"another value of y than .*, 9 and not 6 for c"):
        joined(ONE, timed(pool_of("bc", {"y": [np.nan, 9]})))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (timed(OTHER, space="letters"), "has the space letters"),
        (timed(OTHER, fold="function"), "has the fold function"),
        (replace(ONE, metrics=ONE.metrics | {"x": Metric("x", "ms", "maximize")}), "unit or direction"),
    ],
    ids=["space", "fold", "unit"],
)
def test_what_is_of_another_kind_is_refused(other, said):
    with pytest.raises(DataError, match=said):
        joined(ONE, other)


def test_one_pool_is_not_joined():
    with pytest.raises(ConfigurationError, match="two pools"):
        joined(ONE)


def test_a_proxy_that_asks_for_a_narrow_network_is_joined_with_the_others(nas_command, tmp_path):
    sample = ("score", "--space", "nasbench201", "--set", "cells=1", "--sample", 4, "--task", "digits")
    regions = ("--evaluator", "zero_cost", "--set", "proxies=linear_regions(side=3)")
    nas_command(*sample, "--evaluator", "complexity", "-o", "wide.npz")
    nas_command(*sample, "--set", "channels=1", *regions, "-o", "narrow.npz")
    told = nas_command.json("join", "wide.npz", "narrow.npz", "-o", "p.npz")
    assert told["architectures"] == 4
    wide, narrow, pool = (Pool.read(tmp_path / f"{n}.npz") for n in ("wide", "narrow", "p"))
    np.testing.assert_equal(pool.column("params"), wide.column("params"))
    np.testing.assert_equal(pool.column("linear_regions"), narrow.column("linear_regions"))
    nas_command("correlate", "p.npz", "--truth", "wide.npz:macs")
