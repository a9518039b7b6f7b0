"""`hyperppo-hil fly`: the package in closed loop, over a link or in this process."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hil import closed_loop, flight_report, harness
from hil.closed_loop import Progress
from hil.errors import HilError
from hil.files import write_text
from hil.link import Link
from hil.package import DevicePackage
from targets.errors import TargetError
from targets.host import Answer, host_policy

Report = dict[str, Any]


def one_over_link(
    package: DevicePackage,
    run_path: Path | None,
    scenario: str,
    uri: str,
    seconds: float,
    seed: int,
    out: Path,
    tell: Progress,
) -> tuple[Report, list[Path]]:
    """One flight on the answers of the device at `uri`, every inference through the link.

    Returns the report and the files written. Raises HilError.
    """
    run = closed_loop.open_run(package, run_path)
    by_torch = closed_loop.torch_answer(run, package)
    with harness.device_uri(uri, package) as address, Link(address) as link:
        hello = link.open_session()
        harness.refuse_other_device(hello, package)
        pilot = closed_loop.DevicePilot(link, hello.act_dim)
        flown = closed_loop.fly(run, scenario, seconds, seed, pilot, tell)
    same = closed_loop.fly(run, scenario, seconds, seed, by_torch, lambda *_: None)
    with compiled(package) as by_host:
        expected = by_host(flown.observation)
    report = flight_report.flight_report(
        package, uri, scenario, seed, hello, pilot, flown, same, expected,
        by_torch(flown.observation),
    )  # fmt: skip
    return report, flight_report.write_flight(report, flown, same, out)


def many_in_process(
    package: DevicePackage,
    run_path: Path | None,
    scenario: str,
    episodes: int,
    seed: int,
    out: Path,
    tell: Progress,
) -> tuple[Report, list[Path]]:
    """Whole episodes on the host-compiled policy.c, and the same on the torch policy.

    Returns the report and the files written. Raises HilError.
    """
    run = closed_loop.open_run(package, run_path)
    with compiled(package) as answer:
        deployed = closed_loop.fly_many(run, scenario, episodes, seed, answer, tell)
    reference = closed_loop.torch_answer(run, package)
    by_torch = closed_loop.fly_many(
        run, scenario, episodes, seed, reference, lambda _, done, of: tell("by torch", done, of)
    )
    report = flight_report.episodes_report(package, scenario, seed, deployed, by_torch)
    path = out / "episodes.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(report, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise HilError(f"cannot write {path}: {error.strerror}") from None
    return report, [path]


@contextlib.contextmanager
def compiled(package: DevicePackage) -> Iterator[Answer]:
    """The package's policy.c on this machine. Raises HilError when it does not compile."""
    try:
        with host_policy(package.path, package.actions.shape[1]) as answer:
            yield answer
    except TargetError as error:
        raise HilError(str(error)) from None


def summary_lines(report: Report) -> list[str]:
    """The report's main figures for a terminal."""
    if report["format"] == "hyperppo-episodes":
        return [
            f"{report['episodes']} {report['scenario']} episodes, 95 % intervals:",
            *(f"  {label:14} {_worth(report[key])}" for label, key in _PILOTS.items()),
            f"  {'difference':14} return {_interval(report['return_difference'])}",
        ]
    model = " (model)" if report["timing"]["source"] == "model" else ""
    us, link = report["inference"]["us"], report["step_over_link_ms"]
    return [
        f"{report['seconds']:.2f} s of {report['scenario']} flight, seed {report['seed']}:",
        f"  {'on the device':14} {_outcome(report['device'])}",
        f"  {'torch policy':14} {_outcome(report['torch'])}",
        f"  paths apart by at most {1000 * report['path_difference_m']['max']:.3g} mm, answers by "
        f"{report['largest_precision_error']:.1e} ({report['precision']})",
        f"  answers within {report['largest_answer_error']:.1e} of the host-compiled C "
        f"(allowed {report['tolerance']:.0e})",
        f"  inference median {us['median']:.1f} us, max {us['max']:.1f} us{model}, "
        f"{report['inference']['misses']} deadlines missed; "
        f"step through the link {link['median']:.1f} ms",
    ]


_PILOTS = {"deployed C": "deployed", "torch policy": "torch"}


def _outcome(flight: Report) -> str:
    error = flight["tracking_error_m"]
    error_text = "" if error is None else f", tracking error {100 * error:.2f} cm"
    return ("crashed" if flight["crashed"] else "no crash") + error_text


def _worth(worth: Report) -> str:
    crash = worth["crash_rate"]
    return (
        f"return {_interval(worth['return'])}, crash rate {100 * crash['share']:.2f} % "
        f"({100 * crash['low']:.2f} to {100 * crash['high']:.2f} %), "
        f"tracking error {_interval(worth['tracking_error_m'], 100, ' cm')}"
    )


def _interval(figure: Report, scale: float = 1.0, unit: str = "") -> str:
    if figure["mean"] is None:
        return "none"
    return f"{scale * figure['mean']:.4g} +- {scale * (figure['plus_minus'] or 0):.2g}{unit}"
