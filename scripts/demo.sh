#!/bin/sh
# The main job on the shipped run: a policy that fits 16 KiB, in C, checked on a virtual Crazyflie.
set -eu
bin=.venv/bin
out=build/crazyflie21
status=0
$bin/hyperppo-compile --target crazyflie21 --budget-kb 16 --out $out
if [ -f $out/bare_metal/policy.elf ]; then
    $bin/hyperppo-hil run $out || status=$?  # a failed check still deserves its summary
else
    echo "note: no cross-compiler, so there is no image to check on the virtual Crazyflie" >&2
fi
$bin/hyperppo fly hyperppo/pretrained/crazyflie21 --arch 4 --scenario bezier --seed 1 --out build/flight.png
$bin/python scripts/summary.py $out build/flight.png
exit $status
