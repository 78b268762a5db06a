"""Muon: momentum whose matrices are made orthogonal before each step, for convolutions too.

Keller Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks",
https://kellerjordan.github.io/posts/muon/
"""

from __future__ import annotations

from collections.abc import Iterable

import torch


def orthogonal(matrix: torch.Tensor, *, iterations: int = 5) -> torch.Tensor:
    """Roughly the nearest semi-orthogonal matrix to `matrix` [rows, columns], by Newton-Schulz iteration.

    The coefficients are those of the source: singular values end up between about 0.7 and 1.2.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, made orthogonal; a weight of more than two dimensions counts as [out, the rest]."""

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure, so no loss to return
        """Move every weight by `lr` times the orthogonal form of its momentum."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                velocity = state["momentum"]
                velocity.lerp_(weight.grad, 1.0 - group["momentum"])
                ahead = weight.grad.lerp(velocity, group["momentum"]).reshape(weight.shape[0], -1)
                # With this factor, the root mean square of the step is the same for wide and tall matrices.
                scale = max(1.0, ahead.shape[0] / ahead.shape[1]) ** 0.5
                weight.mul_(1.0 - group["lr"] * group["weight_decay"])
                weight.add_(orthogonal(ahead).view_as(weight), alpha=-group["lr"] * scale)
