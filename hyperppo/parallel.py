"""One training by several processes, started by torchrun: each has its share of the meta-batch.

Every process calls the same functions in the same order. In a program that was started alone all
of them are identities, so that the trainer reads like the algorithm.
"""

from __future__ import annotations

import atexit
import importlib
import os
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hyperppo.errors import HyperPPOError

_T = TypeVar("_T")


def launched() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join() -> None:
    """Meet the other processes: gloo for what is on a CPU, NCCL for what is on a GPU."""
    if launched() == 1 or dist.is_initialized():
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    # Its functions take the group of the moment of import as their default, and keep it: imported
    # later, by torch.compile, they would keep gloo's threads alive while the interpreter ends,
    # which now and then aborts the process.
    importlib.import_module("torch.distributed.nn.functional")
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    atexit.register(dist.destroy_process_group)


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def number() -> int:
    """Which of them this one is."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this process writes files and shows progress."""
    return number() == 0


def share(items: Sequence[_T]) -> Sequence[_T]:
    """The contiguous part of this process; raises HyperPPOError when there is none for each."""
    each, left = divmod(len(items), processes())
    if left:
        raise HyperPPOError(
            f"{processes()} processes cannot share {len(items)} shards: start as many as divide "
            "them, or a new run with --set shards="
        )
    return items[number() * each : (number() + 1) * each]


def restarted() -> bool:
    """Whether torchrun started these processes in the place of others that failed.

    Each node counts its own restarts, and a new node none: one that knows is enough.
    """
    return any_of(int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0)[0]


def wait() -> None:
    """Return when every process has come here."""
    if processes() > 1:
        dist.barrier()


def any_of(*flags: bool) -> list[bool]:
    """Whether each flag is set in any process."""
    if processes() == 1:
        return list(flags)
    seen = torch.tensor(flags, dtype=torch.uint8)
    dist.all_reduce(seen, dist.ReduceOp.MAX)
    return [bool(flag) for flag in seen]


def mean(x: Tensor) -> Tensor:
    """Mean over processes of what is a mean over equal shares."""
    if processes() == 1:
        return x
    total = x.detach().clone()
    dist.all_reduce(total)
    return total / processes()


def gather(x: Tensor, dim: int) -> Tensor:
    """The parts of all processes, of equal shape, one after the other along `dim`."""
    if processes() == 1:
        return x
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(processes())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts, dim)


def pooled(mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance over all processes from those of equal shares."""
    if processes() == 1:
        return mean, var
    means, variances = gather(torch.stack((mean, var))[None], 0).unbind(1)
    centre = means.mean(0)
    return centre, (variances + (means - centre).square()).mean(0)


def mean_and_std(x: Tensor) -> tuple[Tensor, Tensor]:
    """Over all elements of all processes; the unbiased standard deviation."""
    if processes() == 1:
        return x.mean(), x.std()
    wide = x.double()
    centre, var = pooled(wide.mean(), wide.var(correction=0))
    count = x.numel() * processes()
    return centre.to(x.dtype), (var * (count / (count - 1))).sqrt().to(x.dtype)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over processes, in one message.

    A parameter that took no part anywhere (a layer kind that no architecture has) stays without:
    to the optimiser that is not the same as a gradient of 0.
    """
    if processes() == 1:
        return
    every = list(parameters)
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in every]
    present = parts[0].new_tensor([p.grad is not None for p in every], dtype=parts[0].dtype)
    message = torch.cat([present, *(part.flatten() for part in parts)])
    dist.all_reduce(message)
    message /= processes()
    present, *means = torch.split(message, [len(every), *(p.numel() for p in every)])
    for parameter, mean, there in zip(every, means, present.tolist(), strict=True):
        parameter.grad = mean.view_as(parameter) if there else None


def same(module: nn.Module) -> None:
    """Give every process the first one's parameters and buffers."""
    if processes() > 1:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0)


def union(parts: dict[Any, _T]) -> dict[Any, _T]:
    """The entries of all processes."""
    if processes() == 1:
        return parts
    every: list[dict[Any, _T]] = [{} for _ in range(processes())]
    dist.all_gather_object(every, parts)
    return {key: value for part in every for key, value in part.items()}
