"""How long it takes to rank every architecture: whole episodes of all 2800, by threads.

    python benchmarks/evaluate.py [--run RUN] [--episodes 4] [--seconds 5] [--repeats 3] [--json F]
    python benchmarks/evaluate.py --device cuda --threads 1

Thread counts take turns, so that a drifting machine touches all; medians are printed. Processor
seconds are beside the wall's: on a machine with other work they tell what an idle one would need.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hyperppo import pretrained
from hyperppo.checkpoint import load_run
from hyperppo.evaluate import evaluate
from hyperppo.processor import set_threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="run directory (default: the shipped one)")
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of an episode")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    run = load_run(arguments.run or pretrained.path("crazyflie21"), arguments.device)
    architectures = run.space.architectures
    options = {"episode_s": arguments.seconds}

    seen: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for _ in range(arguments.repeats):
        for threads in arguments.threads:
            set_threads(threads)
            wall, cpu = time.perf_counter(), time.process_time()
            evaluate(run, architectures, arguments.episodes, 0, env_options=options)
            seen[threads].append((time.perf_counter() - wall, time.process_time() - cpu))

    steps = round(arguments.seconds * run.config.env["control_hz"])
    flown = len(architectures) * arguments.episodes * steps
    rows = []
    table = Table(
        title=f"{len(architectures)} architectures x {arguments.episodes} episodes of {steps} steps"
    )
    for name in ("threads", "wall (s)", "processor (s)", "million steps/s"):
        table.add_column(name, justify="right")
    for threads, times in seen.items():
        wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
        rows.append(
            {
                "device": arguments.device,
                "threads": threads,
                "wall_s": wall,
                "processor_s": cpu,
                "steps_per_s": flown / wall,
                "repeats": len(times),
            }
        )
        table.add_row(str(threads), f"{wall:.1f}", f"{cpu:.1f}", f"{flown / wall / 1e6:.2f}")
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
