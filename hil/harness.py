"""From a package and a URI to measurements: self-test, recorded inferences, free running.

The device is whatever answers at the URI. `virtual` is short for: start a virtual Crazyflie in
a process of its own on a free loopback port, and use its udp:// URI.
"""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from hil import contract
from hil.contract import Command, Hello
from hil.errors import HilError
from hil.link import Ask, Link, Traffic
from hil.package import DevicePackage

Progress = Callable[[str, int, int], None]  # stage, done, of

FREE_RUN_S = 1.0
LOG_PERIOD_MS = 10
FIRST_INFERENCE_S = 20.0
START_TIMEOUT_S = 20.0
FREE_RUN_TRIES = 3


@dataclasses.dataclass(frozen=True)
class FreeRun:
    """Statistics that the device kept while it ran the policy at its control rate."""

    seconds: float
    count: int
    miss: int
    max_cycles: int
    samples: int  # log packets received
    cycles: tuple[int, ...]  # of those samples


@dataclasses.dataclass
class Measurement:
    """What one run of the harness found; what was not reached is None or empty."""

    uri: str
    hello: Hello
    self_test: int | None = None  # 0: all golden vectors match
    index: list[int] = dataclasses.field(default_factory=list)  # of the observation
    cycles: list[int] = dataclasses.field(default_factory=list)
    us: list[int] = dataclasses.field(default_factory=list)  # by the device's 1 MHz timer
    error: list[float] = dataclasses.field(default_factory=list)  # max |action - reference|
    seconds: float = 0.0  # of the recorded inferences, on this side of the link
    free_run: FreeRun | None = None
    traffic: Traffic = dataclasses.field(default_factory=Traffic)
    stopped: str | None = None  # why it ended early

    def sorted_by_index(self) -> npt.NDArray[np.int64]:
        """(n,) order of the samples as their observations were recorded."""
        return np.argsort(np.asarray(self.index, dtype=np.int64), kind="stable")


@contextlib.contextmanager
def device_uri(uri: str, package: DevicePackage) -> Iterator[str]:
    """The URI to connect to; `virtual` starts a device for the time of the with block."""
    if uri != "virtual":
        yield uri
        return
    _ = package.elf  # says what to do when there is no image
    command = [sys.executable, "-m", "hil.virtual_crazyflie", str(package.path)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the harness, which then ends it by its input
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = process.stdout.readline().strip()
        if not line.isdigit():
            lines = process.stderr.read().strip().splitlines() or ["no reason given"]
            reason = lines[-1].removeprefix("error: ")
            raise HilError(f"the virtual device did not start: {reason}")
        yield f"udp://127.0.0.1:{line}"
    finally:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            process.communicate(input="", timeout=START_TIMEOUT_S)
        process.kill()


def measure(
    package: DevicePackage,
    uri: str,
    inferences: int,
    progress: Progress = lambda *_: None,
    *,
    free_run_s: float = FREE_RUN_S,
) -> Measurement:
    """Runs everything on the device at `uri`.

    Ctrl-C, a lost link and a device that refuses in the middle end the run early: the
    measurement then says so in `stopped` and holds what was reached. Raises HilError when there
    is nothing to hold: no connection, another contract version, another package, no session.
    """
    with Link(uri) as link:
        hello = link.open_session()
        refuse_other_device(hello, package)
        measurement = Measurement(uri=uri, hello=hello, traffic=link.traffic)
        try:
            measurement.self_test = self_test(link)
            progress("self-test", 1, 1)
            run_recorded(link, package, inferences, measurement, progress)
            measurement.free_run = run_free(link, free_run_s, progress)
        except KeyboardInterrupt:
            measurement.stopped = "interrupted"
        except HilError as error:
            measurement.stopped = str(error)
    return measurement


def refuse_other_device(hello: Hello, package: DevicePackage) -> None:
    """Raises HilError unless the device speaks this contract and runs this package."""
    if hello.contract_version != contract.CONTRACT_VERSION:
        raise HilError(
            f"the device speaks contract version {hello.contract_version}, this harness "
            f"{contract.CONTRACT_VERSION}: flash the app of this package"
        )
    if hello.package_hash != package.package_hash:
        raise HilError(
            f"the device runs package {hello.package_hash.hex()}, not "
            f"{package.package_hash.hex()} of {package.path}: flash this package first"
        )
    dims = package.observations.shape[1], package.actions.shape[1]
    if (hello.obs_dim, hello.act_dim) != dims:
        raise HilError(
            f"the device takes {hello.obs_dim} observations and gives {hello.act_dim} actions, "
            f"the package's recording has {dims[0]} and {dims[1]}"
        )


def self_test(link: Link) -> int:
    """Has the device check its golden vectors. Returns 0 when all match."""
    ((_, bodies),) = link.exchange([Ask(Command.SELF_TEST)], window=1)
    outcome = contract.parse_self_test(bodies[0])
    if outcome is None:
        raise HilError("the device answers the self-test with a malformed packet")
    return outcome


def run_recorded(
    link: Link,
    package: DevicePackage,
    inferences: int,
    measurement: Measurement,
    progress: Progress,
) -> None:
    """Runs recorded observations, over again when there are fewer, and compares each answer."""
    rows = np.arange(inferences) % len(package.observations)
    parts = tuple(bytes([p]) for p in range(contract.run_parts(package.actions.shape[1])))
    asks = (Ask(Command.RUN, package.observations[row], parts) for row in rows)
    start = time.monotonic()
    for position, bodies in link.exchange(asks, window=measurement.hello.slots):
        cycles, us, action = contract.join_run(bodies, package.actions.shape[1])
        difference = np.abs(action - package.actions[rows[position]])
        measurement.index.append(position)
        measurement.cycles.append(cycles)
        measurement.us.append(us)
        measurement.error.append(float(difference.max()))
        measurement.seconds = time.monotonic() - start
        progress("inferences", len(measurement.index), inferences)


def run_free(link: Link, seconds: float, progress: Progress) -> FreeRun:
    """Lets the device run the policy by itself and reads its own statistics by the log group.

    Begins anew when link or device drop out in between: the device's counters do not survive that.
    """
    for _ in range(FREE_RUN_TRIES):
        try:
            return _run_free_once(link, seconds, progress)
        except TimeoutError as error:
            link.recover(str(error))
    raise HilError(f"{link.uri}: the device sends no log data")


def _run_free_once(link: Link, seconds: float, progress: Progress) -> FreeRun:
    link.open_session()  # clears the statistics
    names = ["hppo.count", "hppo.cycles", "hppo.max", "hppo.miss"]
    samples: list[tuple[int, dict[str, int]]] = []
    with link.log(names, LOG_PERIOD_MS) as log:
        link.set_param("hppo.mode", contract.MODE_FREE)
        start = time.monotonic()
        try:
            while (passed := time.monotonic() - start) < seconds or (
                samples[-1][1]["hppo.count"] == 0 and passed < FIRST_INFERENCE_S
            ):
                samples.append(log.next())
                progress("free run", min(round(1000 * passed), 999), 1000)
        except KeyboardInterrupt:
            link.set_param("hppo.mode", contract.MODE_REQUEST)
            raise
    link.set_param("hppo.mode", contract.MODE_REQUEST)
    running = [values for _, values in samples if values["hppo.count"] > 0]
    if not running:
        raise HilError("the device did not run the policy by itself")
    progress("free run", 1, 1)
    last = running[-1]
    return FreeRun(
        seconds=(samples[-1][0] - samples[0][0]) / 1000,
        count=last["hppo.count"],
        miss=last["hppo.miss"],
        max_cycles=last["hppo.max"],
        samples=len(running),
        cycles=tuple(values["hppo.cycles"] for values in running),
    )
