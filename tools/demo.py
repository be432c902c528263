"""The demonstration: a real chest radiograph, what the model sees of it, and what it says.

Every step is an `osler` command, shown before it runs.
"""

import shlex
import sys
from pathlib import Path

from pydicom.data import get_testdata_file

from osler.cli import main as osler

SEEN = Path("demo/seen.png")
QUESTION = "Describe this X-ray."


def radiograph() -> Path:
    """A real chest radiograph, from the pydicom-data package."""
    path = get_testdata_file("RG1_J2KI.dcm", download=False)
    if path is None:
        raise SystemExit("demo: RG1_J2KI.dcm is missing; is pydicom-data installed?")
    return Path(str(path))


def main() -> int:
    film = radiograph()
    SEEN.parent.mkdir(exist_ok=True)
    print("A real chest radiograph from the pydicom-data package: DICOM, JPEG 2000, MONOCHROME1.")
    for command in (
        ["show", str(film), "--out", str(SEEN)],
        ["ask", str(film), QUESTION],
    ):
        print(f"\n$ osler {_short(command)}", flush=True)
        if code := osler(command):
            return code
    print(
        "\nThe nano is small enough to ship and knows little. With a real MedGemma (accept the"
        "\nterms at https://huggingface.co/google/medgemma-4b-it first; 9 GB, 10 GB of memory):\n"
        "\n  .venv/bin/hf download google/medgemma-4b-it --local-dir medgemma-4b-it"
        f'\n  .venv/bin/osler ask chest.dcm "{QUESTION}" --model medgemma-4b-it\n'
    )
    return 0


def _short(command: list[str]) -> str:
    """The command as one would type it, files of packages by their name only."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in command]
    return shlex.join(words)


if __name__ == "__main__":
    sys.exit(main())
