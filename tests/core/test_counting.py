"""size() against the number of enumerated derivations, where siblings constrain each other."""

from __future__ import annotations

import random

import pytest

from nas.grammar import Chain, Each, Misfit, Pick, Ref, Rule, terminal, values
from nas.space import SearchSpace


def space(spec, infer, children, **symbols):
    rules = {name: list(rules) for name, rules in symbols.items()}
    return SearchSpace("Net", {"Net": [Rule("net", children, infer, None)], **rules}, spec)


def layer(spec, width):
    return width(spec)


LAYER = [Rule("layer", {"width": "Width"}, layer, None), terminal("same", None)]


def last_of_chain(spec, depth, layers):
    return layers((spec, depth(spec)))[-1]


def first_and_last_differ(spec, layers):
    outs = layers((spec, 3))
    if outs[0] == outs[-1]:
        raise Misfit("the same")
    return outs


def chain_for_two_inputs(spec, layers):
    one, other = layers((spec, 2)), layers((spec + 1, 2))
    if one[-1] != other[-1]:
        raise Misfit("the inputs are told apart")
    return one[-1]


def exits(spec, layers, heads):
    outs = layers((spec, 3))
    heads(outs[:-1])
    return outs[-1]


def no_two_alike(spec, each):
    outs = each((spec,) * 3)
    if len(set(outs)) < 3:
        raise Misfit("alike")
    return sum(outs)


def within_budget(spec, each):
    if sum(each((spec,) * 4)) > 10:
        raise Misfit("too large")
    return spec


def picked(spec, pick):
    outs = pick(tuple(range(spec)))
    if outs[0][1] > outs[1][1]:
        raise Misfit("not in order")
    return outs


def chosen_once(spec, kind, layers):
    kind(spec)
    return layers((spec, 2))[-1]


def kind_of(spec, kind):
    return spec + kind(spec)


HEAD = [
    terminal("small", None),
    terminal("large", None, infer=lambda s: s if s > 1 else (_ for _ in ()).throw(Misfit("small"))),
]
CASES = {
    "the last of a chain of chosen length": space(
        1, last_of_chain, {"depth": "Depth", "layers": Chain("Layer")},
        Depth=values(1, 2, 3), Layer=LAYER, Width=values(1, 2),
    ),
    "the first and last of a chain": space(
        1, first_and_last_differ, {"layers": Chain("Layer")}, Layer=LAYER, Width=values(1, 2)
    ),
    "a chain for two inputs": space(
        1, chain_for_two_inputs, {"layers": Chain("Layer")}, Layer=LAYER, Width=values(1, 2)
    ),
    "heads on the inner stages of a chain": space(
        1, exits, {"layers": Chain("Layer"), "heads": Each("Head")},
        Layer=LAYER, Width=values(1, 2), Head=HEAD,
    ),
    "each unlike the others": space(0, no_two_alike, {"each": Each("Width")}, Width=values(1, 2, 3, 4)),
    "each within a budget": space(0, within_budget, {"each": Each("Width")}, Width=values(1, 2, 3, 4)),
    "two picked in order": space(4, picked, {"pick": Pick(2, "Width")}, Width=values(1, 2, 3)),
    "chosen once, used by every stage": space(
        1, chosen_once, {"kind": "Width", "layers": Chain("Layer")},
        Layer=[Rule("of_kind", {"kind": Ref("kind")}, kind_of, None), terminal("same", None)],
        Width=values(1, 2, 3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_size_is_the_number_of_derivations(name):
    texts = [str(a) for a in CASES[name].enumerate()]
    assert CASES[name].size() == len(texts) == len(set(texts)) > 1


@pytest.mark.parametrize("name", CASES)
def test_the_extent_bounds_every_derivation(name):
    found = CASES[name]
    for architecture in found.enumerate():
        nodes = list(architecture.nodes())
        assert len(nodes) <= found.extent.nodes
        assert max(p.count("/") + 2 if p else 1 for p, _ in nodes) <= found.extent.depth
        assert len(found.choices(architecture)) <= found.extent.choices


@pytest.mark.parametrize("seed", range(20))
def test_size_of_random_grammars(seed):
    """Random tables of what each rule answers to each spec, combined by chains, Each and Pick."""
    rng = random.Random(seed)

    def part(name):
        answers = {spec: rng.choice([0, 1, 2, None]) for spec in range(3)}

        def infer(spec):
            if answers[spec] is None:
                raise Misfit("no answer")
            return answers[spec]

        return terminal(name, None, infer=infer)

    looked = rng.sample(range(3), 2)

    def infer(spec, chain, each, pick):
        outs = chain((spec, 3))
        inner = each((outs[looked[0]], spec))
        picks = pick((outs[looked[1]], inner[0], spec))
        if (inner[1] + picks[0][1]) % 3 == rng_forbidden:
            raise Misfit("forbidden")
        return inner[rng_shown]

    rng_forbidden, rng_shown = rng.randrange(3), rng.randrange(2)
    children = {"chain": Chain("A"), "each": Each("B"), "pick": Pick(2, "A")}
    made = space(rng.randrange(3), infer, children, A=map(part, "abc"), B=map(part, "de"))
    assert made.size() == sum(1 for _ in made.enumerate())


def test_a_chain_of_which_the_last_is_read_counts_in_linear_time():
    def infer(spec, layers):
        return layers((spec, 40))[-1]

    long = space(1, infer, {"layers": Chain("Layer")}, Layer=LAYER[:1], Width=values(*range(8)))
    assert long.size() == 8**40  # one by one, the answers would never end
