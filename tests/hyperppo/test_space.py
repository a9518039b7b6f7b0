import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyperppo.errors import HyperPPOError
from hyperppo.space import SearchSpace, format_architecture, parse_architecture

SPACE = SearchSpace(18, 4)


def test_the_default_space_has_2800_architectures_in_a_stable_order() -> None:
    assert len(SPACE) == 7 + 7**2 + 7**3 + 7**4 == 2800
    keys = [(int(p), len(a), a) for p, a in zip(SPACE.params, SPACE.architectures, strict=True)]
    assert keys == sorted(keys)
    assert SPACE.architectures[0] == (4,)
    assert SPACE.architectures[-1] == (256, 256, 256, 256)
    assert [SPACE.index(a) for a in SPACE.architectures] == list(range(2800))


def test_counts_equal_those_of_torch_modules() -> None:
    for i in np.random.default_rng(0).choice(2800, 30, replace=False):
        sizes = (18, *SPACE.architectures[i], 4)
        layers = [torch.nn.Linear(sizes[k], sizes[k + 1]) for k in range(len(sizes) - 1)]
        assert SPACE.params[i] == sum(p.numel() for layer in layers for p in layer.parameters())
        assert SPACE.macs[i] == sum(layer.weight.numel() for layer in layers)
        assert tuple(w for w in SPACE.table[i] if w) == SPACE.architectures[i]
        assert SPACE.depths[i] == len(layers) - 1


@given(st.lists(st.integers(1, 512), min_size=1, max_size=6))
def test_architectures_survive_writing_and_reading(widths: list[int]) -> None:
    assert parse_architecture(format_architecture(tuple(widths))) == tuple(widths)


@pytest.mark.parametrize("text", ["", "a", "64,", "64;64", "0", "-4", "4.5"])
def test_what_is_not_an_architecture_is_refused(text: str) -> None:
    with pytest.raises(HyperPPOError, match="not an architecture"):
        parse_architecture(text)


def test_an_architecture_outside_the_space_is_refused_with_the_choices() -> None:
    with pytest.raises(HyperPPOError, match=r"5,5 is outside .* 4, 8, 16"):
        SPACE.index((5, 5))
    with pytest.raises(HyperPPOError, match="holds only the architecture 64,64"):
        SearchSpace(18, 4, only=(64, 64)).index((4,))
