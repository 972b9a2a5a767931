from __future__ import annotations

import pytest
import torch
from torch import nn

from evaluators.latency import Latency
from nas.errors import ConfigurationError
from nas.evaluation import Context
from nas.grammar import terminal
from nas.space import SearchSpace, Signature
from tests.evaluators.networks import cells, fixed, problem

QUICK = Latency(repeats=5, warmup=1)


class Recording(nn.Linear):
    """Remembers how it was called."""

    calls: list[tuple[tuple[int, ...], bool, bool, int]] = []  # noqa: RUF012

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = (tuple(x.shape), self.training, torch.is_grad_enabled(), torch.get_num_threads())
        self.calls.append(seen)
        return super().forward(x)


def test_both_latencies_are_above_zero_and_cost_the_seconds_they_took() -> None:
    space = cells()
    result = QUICK.evaluate(
        problem(space), space.parse("network(nor_conv_3x3, nor_conv_3x3)"), Context()
    )
    assert result.metrics["latency_ms"] > 0
    assert result.metrics["latency_ratio"] > 0
    assert result.cost > result.metrics["latency_ms"] / 1000


def test_it_passes_batches_without_gradients_in_eval_mode_on_the_contexts_threads() -> None:
    Recording.calls.clear()
    space = fixed(lambda: Recording(2, 1), Signature((2,), (1,)))
    Latency(batch_size=3, repeats=4, warmup=2).evaluate(
        problem(space), space.parse("only"), Context(threads=2)
    )
    assert Recording.calls == [((3, 2), False, False, 2)] * 6


def test_a_network_of_tokens_gets_tokens() -> None:
    space = fixed(lambda: torch.nn.Embedding(5, 2), Signature((3,), (3, 2), 5))
    result = QUICK.evaluate(problem(space), space.parse("only"), Context())
    assert result.metrics["latency_ms"] > 0


def test_torch_is_left_as_it_was() -> None:
    before, number = torch.get_rng_state(), torch.get_num_threads()
    space = cells()
    QUICK.evaluate(
        problem(space), space.parse("network(nor_conv_3x3, skip_connect)"), Context(threads=2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == number


def test_the_median_and_the_ratio_are_of_interleaved_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 0.0, 2.0, 1.0, 8.0, 2.0, 3.0, 1.0])  # network, reference, network, ...
    monkeypatch.setattr("evaluators.latency._seconds", lambda network, x: next(seconds))
    space = cells()
    architecture = space.parse("network(skip_connect, skip_connect)")
    result = Latency(repeats=3, warmup=1).evaluate(problem(space), architecture, Context())
    assert result.metrics == {"latency_ms": 3000, "latency_ratio": 3}


def test_too_little_memory_is_infeasible() -> None:
    class Large(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError

    space = fixed(lambda: Large(2, 1), Signature((2,), (1,)))
    result = QUICK.evaluate(problem(space), space.parse("only"), Context())
    assert result.infeasible == "out of memory on cpu"


@pytest.mark.parametrize(("name", "value"), [("batch_size", 0), ("repeats", 0), ("warmup", -1)])
def test_a_setting_out_of_its_range_is_refused_by_name(name: str, value: int) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is {value}; it takes a whole number from"):
        Latency(**{name: value})


def test_a_space_without_shapes_is_refused() -> None:
    space = SearchSpace("Op", {"Op": (terminal("only", lambda spec: nn.Identity()),)}, "graph")
    with pytest.raises(ConfigurationError, match="takes 'graph'; give it a Signature"):
        QUICK.evaluate(problem(space), space.parse("only"), Context())
