#!/bin/sh
# What the tests of the ARM kernels need: a cross compiler and an emulator. Debian's are installed
# where that is allowed; elsewhere the tests say that they were skipped.
if command -v aarch64-linux-gnu-gcc > /dev/null && command -v qemu-aarch64 > /dev/null; then
    exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    apt-get update -qq > /dev/null \
        && apt-get install -qq --no-install-recommends \
            gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user > /dev/null \
        && exit 0
fi
echo "The ARM tests will be skipped: no aarch64-linux-gnu-gcc or qemu-aarch64." >&2
