"""Muon, in float32: torch's own computes in bfloat16, which some CPUs only imitate."""

from collections import defaultdict
from typing import Any

import torch

COEFFICIENTS = (3.4445, -4.775, 2.0315)  # of the published Newton-Schulz iteration
MOMENTUM, ITERATIONS = 0.95, 5


class Muon(torch.optim.Optimizer):
    """Steps of momentum whose singular values are all brought near to one, for matrices."""

    def __init__(self, groups: list[dict[str, Any]], lr: float):
        super().__init__(groups, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            shapes = defaultdict(list)  # those of one shape are turned together
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes[parameter.shape].append(parameter)
            for (rows, columns), parameters in shapes.items():
                updates = torch.stack([self._momentum(parameter) for parameter in parameters])
                rate = group["lr"] * max(1, rows / columns) ** 0.5
                for parameter, update in zip(parameters, orthogonal(updates), strict=True):
                    parameter.sub_(update, alpha=rate)

    def _momentum(self, parameter: torch.Tensor) -> torch.Tensor:
        """Return Nesterov's look ahead."""
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        mean = state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
        return parameter.grad.lerp(mean, MOMENTUM)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Return matrices (N, rows, columns) with their singular vectors, and values near one."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
