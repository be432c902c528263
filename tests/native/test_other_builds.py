"""The kernels built in other ways: for ARM, and with the checks of the sanitizers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hatch_build

ROOT = Path(hatch_build.__file__).resolve().parent
CSRC = ROOT / hatch_build.SOURCES
DRIVER = Path(__file__).parent / "c" / "kernels_agree.c"
# Every warning that a file gives is one that a reader would have had to think about.
STRICT = ["-Wall", "-Wextra", "-Werror"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def arm_driver(tmp_path_factory) -> Path:
    """The comparison of kernels, for 64-bit ARM; all of the library's files are in it."""
    compiler = shutil.which("aarch64-linux-gnu-gcc")
    if compiler is None or shutil.which("qemu-aarch64") is None:
        pytest.skip("no aarch64-linux-gnu-gcc or qemu-aarch64 (tools/arm_tools.sh)")
    driver = tmp_path_factory.mktemp("arm") / "kernels_agree"
    files = [DRIVER, *hatch_build.sources(ROOT)]
    flags = [*hatch_build.FLAGS, *STRICT, "-static", f"-I{CSRC}"]
    subprocess.run([compiler, *flags, *map(str, files), "-o", str(driver), "-lm"], check=True)
    return driver


@pytest.mark.parametrize(("processor", "matrix_products"), [("cortex-a76", "off"), ("max", "on")])
def test_arm_kernels_agree_with_the_portable_ones(arm_driver, processor, matrix_products):
    command = ["qemu-aarch64", "-cpu", processor, str(arm_driver), "neon"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"neon, matrix products {matrix_products}" in done.stdout


def test_an_arm_processor_without_dot_products_has_no_such_kernels(arm_driver):
    command = ["qemu-aarch64", "-cpu", "cortex-a53", str(arm_driver), "neon"]
    assert subprocess.run(command, capture_output=True).returncode == 2


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory) -> Path:
    """The library with AddressSanitizer and UndefinedBehaviorSanitizer."""
    library = tmp_path_factory.mktemp("sanitized") / "_osler.so"
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-g", "-O1"]
    hatch_build.build(ROOT, library, [*STRICT, *checks, "-fno-omit-frame-pointer"])
    return library


@pytest.mark.parametrize("kernels", ["", "portable"])
def test_the_native_tests_pass_under_sanitizers(sanitized, kernels):
    compiler = hatch_build.compiler()
    runtimes = [
        subprocess.check_output([*compiler, f"-print-file-name={name}"], text=True).strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    env = os.environ | {
        "LD_PRELOAD": ":".join(runtimes),
        # Python keeps memory to its end; torch and numpy share symbols that look like a fault.
        "ASAN_OPTIONS": "detect_leaks=0:detect_odr_violation=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "OSLER_NATIVE_LIBRARY": str(sanitized),
        "OSLER_NATIVE_KERNELS": kernels,
    }
    # Processes that the tests start would inherit the preloaded runtime: compilers mind.
    skipped = ["--ignore=tests/native/test_build.py", "--deselect=tests/native/test_library.py"]
    tests = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/native"]
    done = subprocess.run([*tests, *skipped], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
