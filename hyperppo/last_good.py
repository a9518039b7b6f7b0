"""Policies of a while ago, to go on from when gradients through the simulator diverge."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from hyperppo.policy import HyperPolicy

_FALL = 0.75  # of the standard deviation of returns; usually it is below 0.1
_FOLLOWS = torch.tensor([0.2, 0.02], dtype=torch.float64)  # averages over 5 and 50 iterations
_EVERY = 50  # iterations between copies: a fall takes ten, and the earlier one is older


class LastGood(torch.nn.Module):
    """Two copies of the policies, `earlier` 50 to 100 iterations old, and how flights went since.

    A module, so that checkpoints hold it.
    """

    returns: Tensor
    well: Tensor

    def __init__(self, policy: HyperPolicy) -> None:
        super().__init__()
        self.earlier = copy.deepcopy(policy).requires_grad_(False)
        self.recent = copy.deepcopy(self.earlier)
        # Lately, and usually.
        self.register_buffer("returns", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("well", torch.zeros((), dtype=torch.int64))  # iterations in a row

    def diverged(self, policy: HyperPolicy, mean: float, std: float) -> bool:
        """Whether returns, of this mean and standard deviation, have fallen far below the usual.

        If they have not, `policy` is copied from time to time.
        """
        if self.well == 0:
            self.returns.fill_(mean)
            self._keep(policy, policy)
        self.returns += _FOLLOWS.to(self.returns.device) * (mean - self.returns)
        lately, usually = self.returns.tolist()
        if lately < usually - _FALL * std:
            self.well.zero_()
            return True
        self.well += 1
        if self.well % _EVERY == 0:
            self._keep(self.recent, policy)
        return False

    def _keep(self, earlier: HyperPolicy, recent: HyperPolicy) -> None:
        self.earlier.load_state_dict(earlier.state_dict())
        self.recent.load_state_dict(recent.state_dict())
