#!/bin/sh
# Install the system packages that set-up needs, or say which, and go on with what there is.
set -u
needed="gcc-arm-none-eabi libnewlib-arm-none-eabi gcc g++ libc6-dev python3-venv python3-dev ${EXTRA_PACKAGES:-}"

missing=""
if command -v dpkg-query >/dev/null 2>&1; then
    for package in $needed; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing="$missing $package"
    done
else
    command -v arm-none-eabi-gcc >/dev/null 2>&1 || missing=" an arm-none-eabi GCC with newlib"
    command -v cc >/dev/null 2>&1 || missing="$missing, a C compiler (cc)"
fi
[ -z "$missing" ] && exit 0

give_up() {
    echo "note: $1. Without them, sizes and cycles are predicted, not measured." >&2
    echo "note: install:$missing" >&2
    exit 0
}
command -v apt-get >/dev/null 2>&1 || give_up "there is no apt-get here to install system packages with"
sudo=""
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 || give_up "installing system packages needs root or sudo"
    sudo="sudo"
fi
echo "installing system packages:$missing"
# shellcheck disable=SC2086
$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
    $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null ||
    give_up "apt-get could not install the system packages"
