"""A network with its task's constants: raw data in, targets' own units out."""

from __future__ import annotations

from torch import Tensor, nn

from nas.task import Scaling


class Scaled(nn.Module):
    """y = network((x - input_mean) / input_std) * output_std + output_mean.

    The four constants are buffers, saved with the weights, so that a found module takes raw data.
    Tokens go into the network as they are: their two constants are whole numbers, 0 and 1.
    """

    input_mean: Tensor
    input_std: Tensor
    output_mean: Tensor
    output_std: Tensor

    def __init__(self, network: nn.Module, scaling: Scaling) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("input_mean", scaling.input_mean)
        self.register_buffer("input_std", scaling.input_std)
        self.register_buffer("output_mean", scaling.output_mean)
        self.register_buffer("output_std", scaling.output_std)
        self.takes_tokens = not scaling.input_mean.is_floating_point()

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (batch, *output) for inputs (batch, *input) in the task's own units."""
        if not self.takes_tokens:
            x = (x - self.input_mean) / self.input_std
        return self.in_units(self.network(x))

    def in_units(self, y: Tensor) -> Tensor:
        """The network's own outputs (batch, *output) in the targets' units."""
        return y * self.output_std + self.output_mean
