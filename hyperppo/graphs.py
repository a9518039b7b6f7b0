"""Functions of tensors that a GPU runs as one launch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

_T = TypeVar("_T")
_WARM_UP = 2  # calls: libraries allocate what they work in


class Replayed(Generic[_T]):
    """A function captured as a CUDA graph: thousands of small kernels, launched one by one, cost a
    GPU many times what they compute.

    The function must do the same operations on tensors of the same shapes at every call, ask the
    device nothing, and find what is not among its arguments (parameters, random `generators`) where
    it was. Its results are overwritten by the next call. On a CPU it is just called.
    """

    def __init__(
        self, function: Callable[..., _T], generators: Sequence[torch.Generator] = ()
    ) -> None:
        self._function, self._generators = function, generators
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._results: _T

    def __call__(self, *inputs: Tensor) -> _T:
        """The function's results."""
        self._calls += 1
        if self._calls <= _WARM_UP:
            return self._aside(inputs)
        if self._graph is None:
            self._capture(inputs)
        for place, given in zip(self._inputs, inputs, strict=True):
            place.copy_(given)
        assert self._graph is not None
        self._graph.replay()
        return self._results

    def _aside(self, inputs: Sequence[Tensor]) -> _T:
        """On a stream of its own, as capturing will."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            results: _T = self._function(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        return results

    def _capture(self, inputs: Sequence[Tensor]) -> None:
        self._inputs = [torch.empty_like(given).copy_(given) for given in inputs]
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph):
            self._results = self._function(*self._inputs)
        self._graph = graph
