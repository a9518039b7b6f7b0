"""The last lines of `make demo`: what was chosen, what it costs, where the pictures are."""

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table


def main(package: Path, *pictures: Path) -> None:
    """Print the summary of a package, of its latency report if there is one, and more pictures."""
    manifest = json.loads((package / "manifest.json").read_text())
    table = Table(title="HyperPPO: a policy for your Crazyflie", show_header=False)
    architecture, metrics = manifest["architecture"], manifest["choice"]["metrics"]
    table.add_row("policy", f"{architecture['name']} ({architecture['params']} parameters)")
    table.add_row(
        "does it fit?",
        f"{manifest['choice']['affordable']} of {manifest['choice']['considered']} architectures "
        f"fit {manifest['budget']['total_bytes']} B; this one takes {_bytes(manifest['size'])}",
    )
    table.add_row("how fast is it?", _speed(manifest["cycles"]))
    table.add_row(
        "can I trust it?",
        f"in simulation {metrics['tracking_error_m']:.3f} m from its goals, "
        f"{metrics['crash_rate']:.1%} crashes, over all vehicles and scenarios of its training "
        "(leaderboard)",
    )
    numerics = manifest["numerics"]
    if numerics["host_c_vs_target"] is not None:
        table.add_row(
            "",
            f"ARM code differs from host C by {numerics['host_c_vs_target']:.1e}, host C from ONNX "
            f"by {numerics['onnxruntime_vs_host_c']:.1e} at most ({numerics['observations']} "
            "observations)",
        )
    files = [package / name for name in ("report.html", "pareto.png", "policy.c", "crazyflie_app")]
    latency = package / "latency.json"
    if latency.is_file():
        verdict = json.loads(latency.read_text())
        done = verdict["inferences"]
        table.add_row(
            "virtual Crazyflie",
            f"{'passed' if verdict['passed'] else 'FAILED'}: {done['done']} inferences over cflib, "
            f"outputs within {verdict['outputs']['max_error']:.1e}, {done['misses']} deadlines of "
            f"{done['deadline_us']:.0f} us missed",
        )
        files += [package / "latency.html", latency]
    files += pictures
    table.add_row("files", "\n".join(str(f) for f in files if f.exists()))
    Console().print(table)


def _bytes(size: dict[str, dict[str, int] | None]) -> str:
    compiled, predicted = size["compiled"], size["predicted"]
    assert predicted is not None
    if compiled is None:
        return f"{predicted['total_bytes']} B (predicted)"
    return f"{compiled['total_bytes']} B (predicted {predicted['total_bytes']} B)"


def _speed(cycles: dict[str, dict[str, float] | None]) -> str:
    emulated, predicted = cycles["emulated"], cycles["predicted"]
    assert predicted is not None
    if emulated is None:
        return f"{predicted['us']:.0f} us (predicted, not emulated)"
    return (
        f"{emulated['us_p2']:.0f} us, {emulated['cycles_p2']:.0f} cycles "
        f"(model of the core, +-{emulated['band']:.0%}, not a measurement)"
    )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
