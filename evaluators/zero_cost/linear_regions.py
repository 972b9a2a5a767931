"""Linear regions: in how many pieces a network of rectifiers cuts its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from evaluators.zero_cost.codes import Regions
from evaluators.zero_cost.observation import Observation, Observed
from evaluators.zero_cost.passes import Noise
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.subject import Subject
from nas import registry
from nas.task import Metric


@registry.proxy("linear_regions")
@final
@dataclass(frozen=True)
class LinearRegions(Proxy):
    """The number of distinct codes of all rectifiers over `batch_size` random inputs.

    They have the task's shape, or are images of a `side` (0: the task's). Inputs with one code lie in
    one region, in which the network is linear. More is better; at most the number of inputs. Misleads
    almost always on networks of usual width, where every input has a code of its own and all
    architectures tie; few channels with many small inputs (`side`) tell them apart. It needs ReLU
    modules.

    Reference: Chen et al., Neural Architecture Search on ImageNet in Four GPU Hours (TE-NAS), ICLR
    2021, Section 3.2.2 (there 3000 inputs of 1x3x3, and narrow networks).
    """

    batch_size: int = 256
    side: int = 0

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("linear_regions", "", "maximize"),)

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return (Regions(Noise(self.batch_size, side=self.side)),)

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        (regions,) = observed[Regions(Noise(self.batch_size, side=self.side))]
        return (float(regions),)
