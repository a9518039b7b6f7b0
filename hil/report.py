"""latency.json and latency.html from a measurement."""

from __future__ import annotations

import datetime
import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hil import calibration, chart
from hil.contract import TIME_CALIBRATED, TIME_MODEL, Hello
from hil.errors import HilError
from hil.files import write_text
from hil.harness import Measurement
from hil.package import DevicePackage

Report = dict[str, Any]


def build_report(package: DevicePackage, measured: Measurement, requested: int) -> Report:
    """The report as plain data, docs/device-contract.md lists its fields. JSON-safe."""
    hello, manifest = measured.hello, package.manifest
    order = measured.sorted_by_index()
    cycles = np.asarray(measured.cycles, dtype=np.int64)[order]
    timer = np.asarray(measured.us, dtype=np.int64)[order]
    us = cycles / (hello.clock_hz / 1e6)
    misses = int(np.count_nonzero(us > hello.deadline_us))
    worst = max(measured.error, default=None)
    verdict = {
        "complete": measured.stopped is None and len(cycles) == requested,
        "self_test": measured.self_test == 0,
        "outputs": worst is not None and worst <= package.tolerance,
        "deadline": len(cycles) > 0 and misses == 0,
    }
    return {
        "format": "hyperppo-latency",
        "format_version": 1,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "passed": all(verdict.values()),
        "verdict": verdict,
        "stopped": measured.stopped,
        "uri": measured.uri,
        "timing": timing(package, hello),
        "device": {
            "contract_version": hello.contract_version,
            "clock_hz": hello.clock_hz,
            "obs_dim": hello.obs_dim,
            "act_dim": hello.act_dim,
        },
        "package": {
            "hash": package.package_hash.hex(),
            "elf_sha256": package.elf_sha256(),
            "architecture": manifest.get("architecture"),
            "precision": manifest.get("precision"),
            "target": manifest["target"],
            "toolchain": manifest.get("toolchain"),
        },
        "self_test": {"ran": measured.self_test is not None, "code": measured.self_test},
        "inferences": {
            "requested": requested,
            "done": len(cycles),
            "cycles": summary(cycles.astype(np.float64)),
            "us": summary(us),
            "timer_us": summary(timer.astype(np.float64)),
            "deadline_us": hello.deadline_us,
            "misses": misses,
        },
        "outputs": {
            "compared": len(measured.error),
            "max_error": worst,
            "tolerance": package.tolerance,
        },
        "free_run": _free_run(measured),
        "link": _link(measured),
        "samples": {
            "observation": np.sort(measured.index).tolist(),
            "cycles": cycles.tolist(),
            "timer_us": timer.tolist(),
        },
    }


def write_report(report: Report, folder: Path) -> tuple[Path, Path]:
    """Writes latency.json and latency.html, each whole or not at all. Raises HilError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        page = folder / "latency.html"
        data = folder / "latency.json"
        write_text(data, json.dumps(report, indent=1, allow_nan=False) + "\n")
        write_text(page, render(report))
    except OSError as error:
        raise HilError(f"cannot write the report into {folder}: {error.strerror}") from None
    return data, page


def render(report: Report) -> str:
    """The page, complete in itself."""
    import jinja2

    source = (resources.files("hil") / "templates" / "latency.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    us = np.asarray(report["samples"]["cycles"]) / (report["device"]["clock_hz"] / 1e6)
    charts = {"histogram": chart.histogram(us), "series": chart.series(us)} if len(us) else {}
    return environment.from_string(source).render(report=report, charts=charts)


def timing(package: DevicePackage, hello: Hello) -> Report:
    """Where the times come from, and for a model how far it may be off."""
    if hello.time_source == TIME_CALIBRATED:
        measured = calibration.latest(package.target_name)
        band = None if measured is None else measured["band"]
        device = None if measured is None else measured["device"]
        return {
            "source": "model", "calibrated_on": device, "band": band,
            "cycles_p1": None, "cycles_p2": None,
        }  # fmt: skip
    if hello.time_source != TIME_MODEL:
        return {
            "source": "dwt", "calibrated_on": None, "band": None,
            "cycles_p1": None, "cycles_p2": None,
        }  # fmt: skip
    emulated = (package.manifest.get("cycles") or {}).get("emulated") or {}
    return {
        "source": "model",
        "calibrated_on": None,
        "band": emulated.get("band"),
        "cycles_p1": emulated.get("cycles_p1"),
        "cycles_p2": emulated.get("cycles_p2"),
    }


def summary(values: npt.NDArray[np.float64]) -> Report | None:
    """Min, median, 99th percentile and max of (n,) values; None when there are none."""
    if not len(values):
        return None
    return {
        "min": float(values.min()),
        "median": float(np.median(values)),
        "p99": float(np.percentile(values, 99)),
        "max": float(values.max()),
    }


def _free_run(measured: Measurement) -> Report | None:
    free = measured.free_run
    if free is None:
        return None
    return {
        "seconds": free.seconds,
        "count": free.count,
        "misses": free.miss,
        "max_cycles": free.max_cycles,
        "log_samples": free.samples,
        "cycles": summary(np.asarray(free.cycles, dtype=np.float64)),
    }


def _link(measured: Measurement) -> Report:
    traffic = measured.traffic
    pings = np.asarray(traffic.pings_ms, dtype=np.float64)
    done = len(measured.cycles)
    return {
        "pings": len(pings),
        "latency_ms": summary(pings),
        "packets_sent": traffic.sent,
        "replies": traffic.received,
        "asked_again": traffic.resent,
        "unexpected_replies": traffic.unexpected,
        "reconnects": traffic.reconnects,
        "device_restarts": traffic.restarts,
        "inferences_per_s": done / measured.seconds if measured.seconds else None,
    }
