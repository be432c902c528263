"""Two other tools on the same DICOM files: what they leave that we remove, and the other way."""

import tempfile
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path

from pydicom import dcmread, dcmwrite

Tool = Callable[[Mapping[str, bytes]], dict[str, bytes | None]]


def by_dicognito(files: Mapping[str, bytes]) -> dict[str, bytes | None]:
    """What dicognito makes of the files."""
    from dicognito.anonymizer import Anonymizer

    anonymizer = Anonymizer(seed="one for all")
    cleaned: dict[str, bytes | None] = {}
    for name, data in files.items():
        ds = dcmread(BytesIO(data))
        anonymizer.anonymize(ds)
        made = BytesIO()
        dcmwrite(made, ds)
        cleaned[name] = made.getvalue()
    return cleaned


def by_deid(files: Mapping[str, bytes]) -> dict[str, bytes | None]:
    """What deid makes of the files, by its own recipe."""
    from deid.config import DeidRecipe
    from deid.dicom import replace_identifiers

    with tempfile.TemporaryDirectory() as place:
        before, after = Path(place, "before"), Path(place, "after")
        before.mkdir()
        after.mkdir()
        for name, data in files.items():
            (before / name).write_bytes(data)
        replace_identifiers(
            [str(before / name) for name in files],
            deid=DeidRecipe(),
            save=True,
            output_folder=str(after),
            overwrite=True,
        )
        return {
            name: (after / name).read_bytes() if (after / name).exists() else None for name in files
        }


PEERS: dict[str, Tool] = {"dicognito": by_dicognito, "deid": by_deid}
