"""What sharing a training costs: 1, 2, ... processes (torchrun, gloo) at the same total size.

    python benchmarks/scaling.py [--processes 1 2] [--envs 4096] [--iterations 12] [--json FILE]

Each process has one thread. Besides steps a second, which need as many idle cores as processes,
the table has processor seconds, which do not: what the exchange and the smaller batches cost.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

WARM_UP = 2  # iterations


def measure(processes: int, envs: int, iterations: int) -> dict[str, float]:
    """Steps a second and processor seconds a million steps, start-up not counted."""
    seconds = []
    for count in (WARM_UP, iterations + WARM_UP):  # their difference is the iterations
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
            command += ["--nproc-per-node", str(processes), "-m", "hyperppo", "train", "quadrotor"]
            command += ["--num-envs", str(envs), "--steps", str(count * envs * 32)]
            command += ["--threads", "1", "--episodes", "1", "--out", str(out)]
            command += ["--set", "ppo.decay_last=0", "--set", "env.episode_s=0.1"]
            before = os.times()
            subprocess.run(command, check=True, capture_output=True)
            after = os.times()
            used = after.children_user + after.children_system
            seconds.append(used - before.children_user - before.children_system)
            lines = [json.loads(text) for text in (out / "metrics.jsonl").read_text().splitlines()]
    speeds = [line["steps_per_s"] for line in lines[WARM_UP:]]
    million = iterations * envs * 32 / 1e6
    return {
        "processes": processes,
        "environments": envs,
        "steps_per_s": statistics.median(speeds),
        "processor_s_per_million": (seconds[1] - seconds[0]) / million,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--envs", type=int, nargs="+", default=[4096])
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = [
        measure(processes, envs, arguments.iterations)
        for envs in arguments.envs
        for processes in arguments.processes
    ]
    table = Table(title="one thread a process, medians")
    for name in ("processes", "environments", "steps/s", "processor s / million steps"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            str(row["processes"]),
            str(row["environments"]),
            f"{row['steps_per_s'] / 1e3:.0f}k",
            f"{row['processor_s_per_million']:.1f}",
        )
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
