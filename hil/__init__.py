"""From a package to a latency report: device contract, harness, virtual Crazyflie."""
