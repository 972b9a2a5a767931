"""Self-distillation: the teachers are earlier states, and only the weights learn from them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nas import registry
from nas.bilevel import FirstOrder, levels_of
from nas.distillation import Distillation, VotingTeachers, check_task
from nas.errors import ConfigurationError
from nas.relaxation import Draw, SoftmaxMixture
from nas.supernet import Supernet
from tests.supernet.planted import task
from tests.supernet.test_supernet import RELAXED


def supernet_and_relax():
    torch.manual_seed(0)
    supernet = Supernet(RELAXED["nasbench201"].space()).train()
    return supernet, lambda: SoftmaxMixture().relax(supernet, Draw(torch.Generator()))


def batch(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, 3, 8, 8, generator=generator), torch.arange(6) % 5


class Search:
    """A short search by first-order steps, with teachers."""

    def __init__(self, distillation: Distillation, every_steps: int = 1) -> None:
        self.supernet, self.relax = supernet_and_relax()
        self.distillation = distillation
        self.teachers = VotingTeachers(self.supernet, self.relax, distillation, every_steps)
        self.levels = levels_of(
            self.supernet,
            torch.optim.SGD(self.supernet.weights(), 0.05, 0.9),
            torch.optim.Adam(self.supernet.alphas.parameters(), 3e-3),
        )

    def train(self):
        x, y = batch(0)
        taught = self.teachers.probabilities(x)
        self.relax()
        logits = self.supernet(x)
        return nn.functional.cross_entropy(logits, y) + self.distillation.loss(logits, taught)

    def valid(self):
        x, y = batch(1)
        self.relax()
        return nn.functional.cross_entropy(self.supernet(x), y)

    def steps(self, number: int) -> Search:
        for _ in range(number):
            FirstOrder().step(self.levels, self.train, self.valid)
            self.teachers.stepped()
        return self

    def divergence(self) -> float:
        """Of teachers and student in the same mode, eval."""
        x, _ = batch()
        taught = self.teachers.probabilities(x)
        self.relax()
        self.supernet.eval()
        with torch.no_grad():
            found = self.distillation.loss(self.supernet(x), taught)
        self.supernet.train()
        return float(found)


def copies(tensors):
    return [t.detach().clone() for t in tensors]


def same(tensors, others) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors, others, strict=True))


def test_nothing_is_distilled_before_the_first_teacher():
    search = Search(Distillation(), every_steps=3).steps(2)
    assert search.teachers.probabilities(batch()[0]) is None
    assert float(search.distillation.loss(torch.randn(2, 5), None)) == 0.0


def test_the_divergence_is_0_from_the_student_itself_and_positive_after_a_step():
    search = Search(Distillation(teachers=1), every_steps=2).steps(2)
    assert search.divergence() == pytest.approx(0.0, abs=1e-6)
    search.steps(1)
    assert search.divergence() > 1e-5


def test_teachers_stay_while_the_student_trains():
    search = Search(Distillation(teachers=2), every_steps=2).steps(4)
    before = [copies(state) for state in search.teachers.ring]
    probabilities = search.teachers.probabilities(batch()[0])
    search.steps(1)
    assert all(same(a, b) for a, b in zip(search.teachers.ring, before, strict=True))
    assert torch.equal(search.teachers.probabilities(batch()[0]), probabilities)


def test_alphas_are_part_of_a_teacher():
    search = Search(Distillation(teachers=1)).steps(1)
    x, _ = batch()
    before = search.teachers.probabilities(x)
    with torch.no_grad():
        search.supernet.alphas.tables[0].mul_(1000)
    assert torch.equal(search.teachers.probabilities(x), before)


def test_the_ring_keeps_the_last_states_pushed_every_so_many_steps():
    search = Search(Distillation(teachers=2), every_steps=3)
    sizes, pushed = [], []
    for step in range(1, 11):
        search.steps(1)
        sizes.append(len(search.teachers.ring))
        if step % 3 == 0:
            pushed.append(copies([*search.supernet.parameters(), *search.supernet.buffers()]))
    assert sizes == [0, 0, 1, 1, 1, 2, 2, 2, 2, 2]
    for state, expected in zip(search.teachers.ring, pushed[-2:], strict=True):
        assert same(state, expected)


class Fixed(nn.Module):
    """Logits that are its weight, whatever comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(1, 2))

    def forward(self, x):
        return self.logits.expand(len(x), 2)


def teachers_saying(*logits: tuple[float, float]) -> VotingTeachers:
    model = Fixed()
    teachers = VotingTeachers(model, lambda: None, Distillation(teachers=len(logits)), 1)
    for values in logits:
        with torch.no_grad():
            model.logits.copy_(torch.tensor([values]))
        teachers.stepped()
    return teachers


def test_equal_teachers_are_as_one_and_opposite_ones_give_the_mean():
    x = torch.zeros(3, 1)
    one = teachers_saying((2.0, 0.0)).probabilities(x)
    torch.testing.assert_close(teachers_saying(*[(2.0, 0.0)] * 3).probabilities(x), one)
    torch.testing.assert_close(
        teachers_saying((9.0, -9.0), (-9.0, 9.0)).probabilities(x), torch.full((3, 2), 0.5)
    )
    # The mean of probabilities is not the softmax of mean logits.
    mixed = teachers_saying((0.0, 0.0), (6.0, 0.0)).probabilities(x)
    assert abs(float(mixed[0, 0]) - float(torch.tensor([3.0, 0.0]).softmax(0)[0])) > 0.1


def test_without_weight_the_search_is_that_without_teachers_bit_for_bit():
    plain = Search(Distillation(weight=0.0))
    plain.train = lambda: nn.functional.cross_entropy(*_logits(plain))
    plain.steps(4)
    weightless = Search(Distillation(weight=0.0)).steps(4)
    assert weightless.teachers.ring == []
    assert same(plain.supernet.state_dict().values(), weightless.supernet.state_dict().values())
    taught = Search(Distillation(weight=1.0)).steps(4)
    assert not same(plain.supernet.state_dict().values(), taught.supernet.state_dict().values())


def _logits(search: Search):
    x, y = batch(0)
    search.relax()
    return search.supernet(x), y


@pytest.mark.parametrize("batch_norm", ["stored", "batch"])
def test_asking_the_teachers_leaves_no_trace(batch_norm):
    search = Search(Distillation(batch_norm=batch_norm)).steps(3)
    before = copies(search.supernet.state_dict().values())
    random_state = torch.get_rng_state()
    assert not search.teachers.probabilities(batch()[0]).requires_grad
    assert same(search.supernet.state_dict().values(), before)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(module.training for module in search.supernet.modules())


@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_the_gradient_at_the_logits_is_student_minus_teacher(tau):
    torch.manual_seed(0)
    logits = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    taught = torch.randn(4, 5, dtype=torch.float64).softmax(-1)
    (found,) = torch.autograd.grad(
        Distillation(temperature=tau, weight=0.7).loss(logits, taught), logits
    )
    torch.testing.assert_close(found, 0.7 * tau * ((logits / tau).softmax(-1) - taught).detach() / 4)


def test_the_term_is_the_divergence_from_teacher_to_student():
    taught, student = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.4, 0.6]])
    expected = float((taught * (taught / student).log()).sum())
    found = Distillation(weight=2.0).loss(student.log(), taught)
    assert float(found) == pytest.approx(2.0 * expected, rel=1e-5)
    certain = Distillation().loss(student.log(), torch.tensor([[1.0, 0.0]]))
    assert float(certain) == pytest.approx(-float(student[0, 0].log()), rel=1e-5)


def test_only_the_weights_learn_from_the_teachers():
    search = Search(Distillation(weight=5.0)).steps(2)
    alphas = copies(search.levels.alphas)
    search.levels.step_weights(search.train)
    assert same(search.levels.alphas, alphas)
    assert all(alpha.grad is None for alpha in search.levels.alphas)


def test_teachers_are_written_down_and_read_back():
    search = Search(Distillation(teachers=2), every_steps=2).steps(5)
    other = Search(Distillation(teachers=2), every_steps=2)
    other.teachers.load(search.teachers.state())
    x, _ = batch()
    assert torch.equal(other.teachers.probabilities(x), search.teachers.probabilities(x))
    assert other.teachers.steps == 5


@pytest.mark.parametrize(
    "fields", [{"teachers": 0}, {"every_epochs": 0}, {"weight": -1.0}, {"temperature": 0.0}]
)
def test_settings_that_are_not_allowed_are_refused(fields):
    with pytest.raises(ConfigurationError, match="self-distillation was given"):
        Distillation(**fields)


def test_a_task_without_classes_is_refused():
    check_task(task(torch.randn(4, 2), torch.arange(4) % 2))
    with pytest.raises(ConfigurationError, match="numbers, not classes"):
        check_task(registry.make("task", "function_fit", {}))
