"""The `hyperppo-hil` command."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Run a compiled policy on a device, real or virtual, and report its latency.",
)

PackageArgument = Annotated[Path, typer.Argument(help="Folder that hyperppo-compile wrote.")]


@app.command(epilog="Example: hyperppo-hil run build/crazyflie21 --uri radio://0/80/2M/E7E7E7E7E7")
def run(
    package: Annotated[
        Path | None, typer.Argument(help="Folder that hyperppo-compile wrote.")
    ] = None,
    uri: Annotated[
        str,
        typer.Option(help="`virtual`, or where cflib finds the device: radio://, usb://0, udp://."),
    ] = "virtual",
    inferences: Annotated[
        int, typer.Option(min=1, help="Recorded observations to run, over again if too few.")
    ] = 1000,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report; by default the package itself.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Instead of a run: two reports (or their folders) side by side."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Self-test, recorded inferences, free running: latency.json and latency.html.

    Exit code 0 when every check holds, 1 when one does not, 2 on bad input.
    """
    from hil import harness
    from hil.errors import HilError
    from hil.package import open_package
    from hil.progress import show_progress
    from hil.report import build_report, write_report

    if compare is not None:
        _compare(*compare, out, as_json)
        return
    if package is None:
        raise HilError("say which package to run, or --compare two reports")
    opened = open_package(package)
    with show_progress() as progress, harness.device_uri(uri, opened) as address:
        measured = harness.measure(opened, address, inferences, progress)
    report = build_report(opened, measured, inferences)
    data, page = write_report(report, out or package)
    if as_json:
        print(json.dumps(report, indent=1))
    else:
        from hil.progress import print_summary

        print_summary(report, data, page)
    raise typer.Exit(0 if report["passed"] else 1)


def _compare(first: Path, second: Path, out: Path | None, as_json: bool) -> None:
    from hil import compare

    a, b = compare.read_report(first), compare.read_report(second)
    rows = compare.rows(a, b)
    page = None if out is None else out / "compare.html"
    if page is not None:
        compare.write_page(a, b, (str(first), str(second)), page)
    if as_json:
        names = ("what", "first", "second", "change")
        print(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=1))
    else:
        from hil.progress import print_comparison

        print_comparison(rows, (str(first), str(second)), compare.warning(a, b), page)


@app.command(epilog="Example: hyperppo-hil serve build/crazyflie21 --port 19850")
def serve(
    package: PackageArgument,
    port: Annotated[int, typer.Option(help="UDP port; 0 takes a free one.")] = 19850,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 opens it to the network.")
    ] = "127.0.0.1",
    firmware_elf: Annotated[
        Path | None,
        typer.Option(help="Your linked firmware with the package's app (build/cf2.elf), instead."),
    ] = None,
    drop: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of packets lost, each way.")
    ] = 0.0,
    delay_ms: Annotated[
        float, typer.Option(min=0, max=10_000, help="Mean delay of an answer; they overtake.")
    ] = 0.0,
    reboot_after: Annotated[
        float | None, typer.Option(min=0, help="Seconds after which the device reboots, once.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the address as JSON.")] = False,
) -> None:
    """A virtual Crazyflie for any cflib client, until Ctrl-C.

    Lost and delayed are app-channel packets, log data and pings, not cflib's tables.
    """
    from hil.faults import Faults
    from hil.package import open_package
    from hil.virtual_crazyflie import VirtualCrazyflie

    opened = open_package(package)
    faults = Faults(drop, delay_ms / 1000, reboot_after)
    device = VirtualCrazyflie(
        opened.elf,
        opened.target_name,
        host=host,
        port=port,
        faults=faults,
        firmware=firmware_elf,
    )
    if as_json:
        print(json.dumps({"uri": device.uri, "host": host, "port": device.address[1]}), flush=True)
    else:
        print(f"virtual Crazyflie at {device.uri} (Ctrl-C ends it)", flush=True)
    try:
        device.serve()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)


@app.command(epilog="Example: hyperppo-hil fly build/crazyflie21 --scenario bezier")
def fly(
    package: PackageArgument,
    scenario: Annotated[str, typer.Option(help="Where the goal goes: static, bezier.")] = "bezier",
    uri: Annotated[
        str, typer.Option(help="`virtual`, or where cflib finds the device.")
    ] = "virtual",
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="Length of the flight.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Of vehicle, start, goals and noise.")] = 0,
    run: Annotated[
        Path | None, typer.Option(help="Run of the package; by default the shipped one.")
    ] = None,
    in_process: Annotated[
        bool,
        typer.Option("--in-process", help="Whole episodes on the host-compiled C, no device."),
    ] = False,
    episodes: Annotated[int, typer.Option(min=2, help="How many, with --in-process.")] = 2000,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; by default the package itself.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Fly the simulator on the device's answers, and the same flight on the torch policy's.

    Writes flight.json and flight.png, or episodes.json. Exit code 0 when the device flies and
    answers as the host-compiled C does, 1 when not, 2 on bad input.
    """
    from hil import fly as flying
    from hil.package import open_package
    from hil.progress import show_progress

    opened = open_package(package)
    with show_progress() as progress:
        if in_process:
            report, paths = flying.many_in_process(
                opened, run, scenario, episodes, seed, out or package, progress
            )
        else:
            report, paths = flying.one_over_link(
                opened, run, scenario, uri, seconds, seed, out or package, progress
            )
    if as_json:
        print(json.dumps(report, indent=1))
    else:
        print("\n".join([*flying.summary_lines(report), *map(str, paths)]))
    raise typer.Exit(0 if report.get("passed", True) else 1)


@app.command(epilog="Example: hyperppo-hil calibrate build/crazyflie21 --uri radio://0/80/2M")
def calibrate(
    package: PackageArgument,
    uri: Annotated[str, typer.Option(help="Where cflib finds the device that runs the package.")],
    name: Annotated[
        str | None, typer.Option(help="Of the device; by default its processor's number.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure the cycle model's constants on a device; the virtual device then uses them."""
    from hil import calibrate as calibrating
    from hil.package import open_package
    from hil.progress import show_progress

    opened = open_package(package)
    with show_progress() as progress:
        record, path = calibrating.calibrate(opened, uri, name, progress)
    if as_json:
        print(json.dumps(record, indent=1))
    else:
        print("\n".join([*calibrating.lines(record), str(path)]))


@app.command(
    epilog="Example: hyperppo-hil flash build/crazyflie21 --firmware ~/crazyflie-firmware "
    "--uri radio://0/80/2M/E7E7E7E7E7 --yes"
)
def flash(
    package: PackageArgument,
    firmware: Annotated[Path, typer.Option(help="Folder of the Crazyflie's firmware sources.")],
    uri: Annotated[str, typer.Option(help="Of the Crazyflie, radio://...")] = "radio://0/80/2M",
    out: Annotated[
        Path | None, typer.Option(help="Folder to build in; by default PACKAGE-firmware.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Replace the firmware.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Build and check only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Build the package's app into the firmware, and flash that by radio once --yes says so."""
    from hil import flash as flashing
    from hil.errors import HilError
    from hil.package import open_package
    from hil.progress import show_progress

    opened = open_package(package)
    folder = out or package.with_name(f"{package.resolve().name}-firmware")
    with show_progress() as progress:
        built = flashing.build(opened, firmware, folder, progress)
    plan = flashing.plan(opened, built, uri)
    done = yes and not dry_run
    if not as_json:
        print("\n".join(plan))
    if done:
        with show_progress() as progress:
            flashing.flash(uri, built, progress)
    if as_json:
        outcome = {"binary": str(built.binary), "bytes": built.size, "uri": uri, "flashed": done}
        print(json.dumps({**outcome, "plan": plan}, indent=1))
    elif done:
        print(f"flashed; now: hyperppo-hil run {package} --uri {uri}")
    elif dry_run:
        print("dry run: nothing was flashed")
    if not done and not dry_run:
        raise HilError("nothing was flashed: say --yes to replace the firmware")


def main() -> None:
    """Entry point: errors meant for the user become one line and exit code 2."""
    from hil.errors import HilError

    try:
        app()
    except HilError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
