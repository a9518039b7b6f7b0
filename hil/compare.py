"""Two latency reports side by side."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from hil import chart
from hil.errors import HilError
from hil.files import write_text

Report = dict[str, Any]
Row = tuple[str, str, str, str]  # what, of A, of B, B against A


def read_report(path: Path) -> Report:
    """A latency.json, or the one in a folder. Raises HilError."""
    file = path / "latency.json" if path.is_dir() else path
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HilError(f"no report at {file}: make one with hyperppo-hil run") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise HilError(f"{file} cannot be read: {error}") from None
    if not isinstance(report, dict) or report.get("format") != "hyperppo-latency":
        raise HilError(f"{file} is no latency report")
    if report.get("format_version") != 1:
        raise HilError(f"{file} has report format {report.get('format_version')}, not 1")
    return report


def rows(a: Report, b: Report) -> list[Row]:
    """What a reader compares; times with the second's change against the first."""
    plain = {
        "policy": "package.architecture.name",
        "precision": "package.precision",
        "package": "package.hash",
        "timing source": "timing.source",
        "compiler": "package.toolchain.compiler",
        "clock (Hz)": "device.clock_hz",
        "passed": "passed",
        "inferences": "inferences.done",
        "deadlines missed": "inferences.misses",
        "largest output difference": "outputs.max_error",
        "link round trip, median (ms)": "link.latency_ms.median",
    }
    found = [_row(label, a, b, path) for label, path in plain.items()]
    for unit, label in (("cycles", "cycles"), ("us", "microseconds")):
        for key in ("min", "median", "p99", "max"):
            found.append(_row(f"{label}, {key}", a, b, f"inferences.{unit}.{key}", change=True))
    return found


def _row(label: str, a: Report, b: Report, path: str, *, change: bool = False) -> Row:
    first, second = _find(a, path), _find(b, path)
    return label, _text(first), _text(second), _change(first, second) if change else ""


def warning(a: Report, b: Report) -> str | None:
    """Why the two may not be compared as they stand."""
    if a["timing"]["source"] != b["timing"]["source"]:
        return "one report is measured on a chip, the other comes from the cycle model"
    return None


def write_page(a: Report, b: Report, names: tuple[str, str], path: Path) -> None:
    """The comparison as one HTML file. Raises HilError."""
    import jinja2

    source = (resources.files("hil") / "templates" / "compare.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    us = [
        np.asarray(report["samples"]["cycles"]) / (report["device"]["clock_hz"] / 1e6)
        for report in (a, b)
    ]
    together = np.concatenate(us)
    span = (float(together.min()), float(together.max())) if len(together) else None
    charts = [chart.histogram(values, span) if len(values) else None for values in us]
    page = environment.from_string(source).render(
        rows=rows(a, b), names=names, charts=charts, warning=warning(a, b)
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, page)
    except OSError as error:
        raise HilError(f"cannot write {path}: {error.strerror}") from None


def _find(report: Report, path: str) -> Any:
    value: Any = report
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) >= 0.01 or value == 0 else f"{value:.1e}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _change(first: Any, second: Any) -> str:
    return f"{100 * (second / first - 1):+.1f} %" if first and second is not None else ""
