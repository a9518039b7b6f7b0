import math

import torch

from hyperppo.groups import by_group, size_group, totals
from hyperppo.space import SearchSpace


def test_figures_are_averaged_over_the_environments_of_a_group() -> None:
    space = SearchSpace(22, 4)
    architectures = [(4,), (256, 256), (8,)]
    reward = torch.arange(12.0).view(2, 6)  # two environments an architecture
    error = torch.full((2, 6), math.nan)
    error[1, 0], error[0, 5] = 1.0, 4.0
    every = {"reward": totals(reward, 3), "error": totals(error, 3)}
    figures = by_group(every, architectures, space)
    assert figures["reward_by_depth/1"] == (0 + 1 + 6 + 7 + 4 + 5 + 10 + 11) / 8
    assert figures["reward_by_depth/2"] == (2 + 3 + 8 + 9) / 4
    assert figures["reward_by_size/under_1k"] == figures["reward_by_depth/1"]
    assert figures["reward_by_size/10k_to_100k"] == figures["reward_by_depth/2"]
    assert figures["error_by_depth/1"] == 2.5
    assert math.isnan(figures["error_by_depth/2"])
    assert len(figures) == 8


def test_every_size_has_its_group() -> None:
    sizes = [999, 1_000, 99_999, 100_000]
    assert [size_group(n) for n in sizes] == ["under_1k", "1k_to_10k", "10k_to_100k", "over_100k"]
