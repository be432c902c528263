"""Builds the native engine's library, src/osler/native/_osler.so, with the compiler at hand.

Hatchling runs it for wheels and for editable installs; `python hatch_build.py` brings the library
of a working tree up to date. Without a compiler, one line says so, and Osler runs on torch.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LIBRARY = Path("src/osler/native/_osler.so")
SOURCES = Path("src/osler/native/csrc")
# No flag names a processor: files for one kind of it say so themselves, and the library chooses
# when it runs. Not -ffast-math: NaN and infinity must come through.
FLAGS = (
    "-std=c11 -O3 -fPIC -pthread -fvisibility=hidden -ffp-contract=fast -fno-math-errno -Wall"
).split()


class BuildError(Exception):
    """There is no library; one line says why."""


def compiler() -> list[str]:
    """The C compiler's command: $CC, or the first that is there of cc, gcc and clang.

    Raises:
        BuildError: there is none.
    """
    if chosen := shlex.split(os.environ.get("CC", "")):
        return chosen
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            return [path]
    raise BuildError("no C compiler (cc, gcc, clang or $CC)")


def sources(root: Path) -> list[Path]:
    """The C files that make up the library."""
    return sorted((root / SOURCES).rglob("*.c"))


def build(root: Path, library: Path, flags: Sequence[str] = ()) -> None:
    """Compile the library.

    Args:
        root: of the repository.
        library: where it goes; one that is there is replaced when the new one is complete, or
            removed where there is no new one: an old one would not fit the Python code.
        flags: for the compiler and the linker, after the usual ones.

    Raises:
        BuildError: no compiler, or one that does not compile it.
    """
    try:
        with tempfile.TemporaryDirectory(dir=library.parent, prefix=".build-") as folder:
            finished = Path(folder) / library.name
            _compile([*compiler(), *FLAGS, *flags], sources(root), finished)
            finished.replace(library)
    except (OSError, BuildError) as error:
        library.unlink(missing_ok=True)
        raise BuildError(" ".join(str(error).split())) from error


def up_to_date(root: Path, library: Path) -> bool:
    """Whether nothing that the library is made of is newer than it."""
    if not library.exists():
        return False
    inputs = [Path(__file__), *(root / SOURCES).rglob("*.[ch]")]
    return all(path.stat().st_mtime <= library.stat().st_mtime for path in inputs)


def _compile(command: Sequence[str], files: Sequence[Path], library: Path) -> None:
    objects = [library.parent / f"{number}.o" for number in range(len(files))]
    steps = [
        [*command, "-c", str(file), "-o", str(made)]
        for file, made in zip(files, objects, strict=True)
    ]
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
    with ThreadPoolExecutor(max_workers=cores) as pool:
        list(pool.map(_run, steps))
    _run([*command, "-shared", *map(str, objects), "-o", str(library), "-lm"])


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line]
        raise BuildError(f"{command[0]} failed: {lines[0] if lines else done.stderr}")


class NativeBuildHook(BuildHookInterface[BuilderConfig]):
    """Puts the library into the wheel, or beside the sources of an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build; a wheel with the library is for this platform, one without it is for all."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        try:
            build(root, root / LIBRARY)
        except BuildError as error:
            self.app.display_warning(f"osler: the native engine is not built: {error}")
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
        build_data["pure_python"] = False
        build_data["artifacts"].append(f"/{LIBRARY.as_posix()}")


def main() -> int:
    """Bring the library of this working tree up to date."""
    root = Path(__file__).resolve().parent
    try:
        if not up_to_date(root, root / LIBRARY):
            build(root, root / LIBRARY)
    except BuildError as error:
        print(f"osler: the native engine is not built: {error}", file=sys.stderr)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
