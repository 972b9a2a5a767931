"""Optuna's own samplers as searchers: asked on a mirror of the study, in memory, made from its history.

A sampler cannot be asked on the study itself: a derivation that meets a misfit or begins anew would
change what was suggested before, and the trial must exist, complete, in one write. The mirror holds the
finished trials as the sampler knows them; open trials of other workers, and the one that is asked for,
are in it only while it is asked. Everything is a function of the history: the mirror is an index kept
with the history's trials, the sampler is made anew for every proposal, and its seed is one of the
trial's random streams.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.architecture import Architecture
from nas.complexity import UNITS
from nas.derivation import Choice
from nas.evaluation import Context
from nas.parameters import Parameters, distribution, parameter_name, parameters
from nas.problem import DRAWS_WITHIN_LIMITS, Problem
from nas.trial import History, Trial
from nas.variation import by_weight

STUDY = "mirror"
TRIES = 8  # suggestions for one choice that do not fit; then it is drawn by the grammar's weights
LOOSE = 20  # draws of one proposal until nothing that was asked is kept
Encode = Callable[[Architecture], Parameters]
Alone = Callable[[str, Collection[float]], bool]  # whether to ask for one parameter, given its weights


def seed(context: Context) -> int:
    """The seed of the sampler that is asked for a trial, from the study's seed and its number."""
    return context.stream("sampler", context.number).getrandbits(32)


def mirror(
    owner: Hashable, problem: Problem, history: History, encoding: Callable[[], Encode] | None = None
) -> Mirror:
    """The mirror of a history, kept with it under its owner.

    `encoding`, asked once, says how an architecture becomes parameters; by default one for each of its
    choices, named by the path.
    """

    def make() -> Mirror:
        by_paths = partial(parameters, problem.space)
        return Mirror(problem, by_paths if encoding is None else encoding())

    return history.index((owner, id(problem)), make)


class Mirror:
    """The finished trials of a study as Optuna's samplers take them.

    A completed trial is complete. One that has all its objectives but exceeds a measured limit is so
    too, with constraints; other infeasible ones are pruned with a violated constraint, which is how a
    sampler learns where not to look. A pruned one has its last score where there is one objective.
    """

    def __init__(self, problem: Problem, encode: Encode) -> None:
        self.problem = problem
        self.encode = encode
        self.trials: dict[int, Trial] = {}  # by the mirror's own numbers
        self.num_trials = 0
        self.fresh: list[Trial] = []  # those that came since a sampler was last asked
        self.counts: Counter[str] = Counter()  # how many trials have each parameter
        self._joint: dict[str, BaseDistribution] = {}  # the parameters that all trials have
        self._bounded = [name for name in problem.limits if name not in UNITS]
        self._storage = InMemoryStorage()
        directions = [
            StudyDirection.MAXIMIZE if o.sign > 0 else StudyDirection.MINIMIZE
            for o in problem.objectives
        ]
        self._study_id = self._storage.create_new_study(directions, STUDY)

    @property
    def conditional(self) -> bool:
        """Whether some trials made choices that others did not have."""
        return len(self._joint) < len(self.counts)

    @property
    def joint(self) -> dict[str, BaseDistribution]:
        """The parameters that all trials have, in the order of their names."""
        return dict(sorted(self._joint.items()))

    def add(self, trial: Trial) -> None:
        """Take in the next finished trial."""
        made = self.encode(trial.architecture)
        frozen = self._frozen(trial, made)
        trial_id = self._storage.create_new_trial(self._study_id, template_trial=frozen)
        self.trials[self._storage.get_trial_number_from_id(trial_id)] = trial
        kept = self._joint if self.num_trials else made.distributions
        self._joint = {n: d for n, d in kept.items() if made.distributions.get(n) == d}
        self.num_trials += 1
        self.fresh.append(trial)
        self.counts.update(made.values.keys())

    def ask(
        self,
        sampler: BaseSampler,
        running: Sequence[Architecture],
        joint: dict[str, BaseDistribution],
    ) -> Asked:
        """Ask a sampler for some parameters of the next trial, while these are running elsewhere."""
        self.fresh.clear()
        study = self.study(sampler)
        open_ids = [self._open(architecture) for architecture in running]
        trial = self._storage.get_trial(self._id(study.ask().number))
        suggested = sampler.sample_relative(study, trial, joint)
        return Asked(self, study, trial, suggested, tuple(open_ids))

    def study(self, sampler: BaseSampler) -> optuna.Study:
        """The mirrored study with a sampler, as it stands."""
        return optuna.load_study(study_name=STUDY, storage=self._storage, sampler=sampler)

    def frozen_trials(self) -> list[FrozenTrial]:
        """The trials as samplers see them, those that were asked for or open left out."""
        trials = self._storage.get_all_trials(self._study_id)
        return [trial for trial in trials if trial.number in self.trials]

    def attributes(self) -> dict[str, Any]:  # Any: JSON values
        """What the sampler keeps on the mirrored study."""
        return dict(self._storage.get_study_system_attrs(self._study_id))

    def forget(self, attribute: str) -> None:
        """Let the sampler work out anew what it kept on the mirrored study under a name."""
        self._storage.set_study_system_attr(self._study_id, attribute, None)

    def close(self, asked: Asked) -> dict[str, Any]:  # Any: JSON values
        """Take the asked trial and the open ones out again; what the sampler wrote on the asked one."""
        trial_id = self._id(asked.trial.number)
        written = dict(self._storage.get_trial(trial_id).system_attrs)
        for open_id in (*asked.open_ids, trial_id):  # a failed trial is nothing to any sampler
            self._storage.set_trial_state_values(open_id, TrialState.FAIL)
        return written

    def _open(self, architecture: Architecture) -> int:
        made = self.encode(architecture)
        template = create_trial(
            state=TrialState.RUNNING, params=made.values, distributions=made.distributions
        )
        return int(self._storage.create_new_trial(self._study_id, template_trial=template))

    def _id(self, number: int) -> int:
        return int(self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number))

    def _frozen(self, trial: Trial, made: Parameters) -> FrozenTrial:
        state, values, constraints, steps = TrialState.PRUNED, None, {}, {}
        if trial.completed or self._exceeds(trial):
            state = TrialState.COMPLETE
            values = [trial.metrics[o.metric] for o in self.problem.objectives]
            constraints = {n: trial.metrics[n] - self.problem.limits[n] for n in self._bounded}
        elif trial.infeasible is not None:
            constraints = {"infeasible": 1.0}
        elif len(self.problem.objectives) == 1:
            name = self.problem.objectives[0].metric
            steps = {round(trial.cost): trial.metrics[name]} if name in trial.metrics else {}
        return create_trial(
            state=state,
            values=values,
            params=made.values,
            distributions=made.distributions,
            system_attrs=dict(trial.system_attributes),
            intermediate_values=steps,
            constraints=constraints or None,
        )

    def _exceeds(self, trial: Trial) -> bool:
        """Whether an infeasible trial was measured whole and only exceeds limits."""
        wanted = {o.metric for o in self.problem.objectives} | set(self._bounded)
        measured = wanted <= trial.metrics.keys()
        return measured and any(trial.metrics[n] > self.problem.limits[n] for n in self._bounded)


@dataclass(frozen=True)
class Asked:
    """A trial that a sampler was asked for: its joint suggestions, and how to ask for the others."""

    mirror: Mirror
    study: optuna.Study
    trial: FrozenTrial
    suggested: dict[str, Any]  # Any: as Optuna has it; rules' names here
    open_ids: tuple[int, ...]

    def derive(
        self,
        history: History,
        rng: random.Random,
        *,
        alone: Alone,
        redraws: int = 0,
    ) -> Architecture:
        """The architecture that the suggestions derive.

        A choice that has none is asked for by itself, where `alone` says so, and else drawn by the
        grammar's weights; an option of weight 0 is never taken. What exceeds a limit, or was tried
        before (up to `redraws` times), is derived again with ever more of its choices drawn instead.
        """
        problem = self.mirror.problem
        for attempt in range(DRAWS_WITHIN_LIMITS):
            choose = _Choosing(self, rng, alone, attempt).choose
            architecture = problem.space.derive(choose).architecture
            if problem.refusal(architecture) is not None:
                continue
            if attempt >= redraws or not history.knows(architecture):
                break
        return architecture


@dataclass(frozen=True)
class _Choosing:
    """Chooses as the sampler suggests; the more derivations failed, the less."""

    asked: Asked
    rng: random.Random
    alone: Alone
    attempt: int

    def choose(self, choice: Choice) -> str:
        weights = _weights(choice)
        draw = by_weight(self.rng)
        if len(weights) < 2:
            return draw(choice)
        loose = (self.attempt + choice.restart) / LOOSE
        if loose and self.rng.random() < loose:
            return draw(choice)
        name = parameter_name(choice)
        suggested = self.asked.suggested.get(name)
        if suggested in weights:
            return str(suggested)
        for _ in range(TRIES if self.alone(name, weights.values()) else 0):
            suggested = self._suggested(name, choice)
            if suggested in weights:
                return str(suggested)
        return draw(choice)

    def _suggested(self, name: str, choice: Choice) -> Any:  # Any: as Optuna has it; a rule's name here
        study, trial = self.asked.study, self.asked.trial
        return study.sampler.sample_independent(study, trial, name, distribution(choice))


def _weights(choice: Choice) -> dict[str, float]:
    """The weights of the options that are left and may be drawn, by name."""
    given = [r.weight for r in choice.options] if choice.weigh is None else choice.weigh(choice)
    return {r.name: w for r, w in zip(choice.options, given, strict=True) if w > 0}
