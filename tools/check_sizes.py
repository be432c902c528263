"""Refuse source files that are too long to read in one sitting, and weights over their budget."""

import subprocess
import sys
from pathlib import Path

MAX_LINES = 600
CODE = {".py", ".c", ".h", ".cpp", ".ts", ".tsx", ".js", ".css"}
MAX_WEIGHTS_BYTES = 64 * 2**20
MAX_FILE_BYTES = 5 * 2**20


def complaints(root: Path, tracked: list[str]) -> list[str]:
    """One line for each file, or for the weights as a whole, that is over its limit."""
    found = []
    weights_bytes = 0
    for name in tracked:
        path = root / name
        if not path.is_file():  # deleted in the working tree, or a link
            continue
        size_bytes = path.stat().st_size
        if name.startswith("weights/"):
            weights_bytes += size_bytes
        elif size_bytes > MAX_FILE_BYTES:
            found.append(f"{name}: {size_bytes} bytes; at most {MAX_FILE_BYTES}")
        if path.suffix in CODE:
            lines = len(path.read_bytes().splitlines())
            if lines > MAX_LINES:
                found.append(f"{name}: {lines} lines; at most {MAX_LINES}")
    if weights_bytes > MAX_WEIGHTS_BYTES:
        found.append(f"weights/: {weights_bytes} bytes; at most {MAX_WEIGHTS_BYTES}")
    return found


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    listing = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True)
    if listing.returncode:
        print(f"sizes: not a git checkout: {listing.stderr.strip()}", file=sys.stderr)
        return 1
    tracked = listing.stdout.splitlines()
    found = complaints(root, tracked)
    for line in found:
        print(line, file=sys.stderr)
    if not found:
        print(f"sizes: {len(tracked)} files within their limits")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
