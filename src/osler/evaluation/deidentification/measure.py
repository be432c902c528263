"""The whole measurement: plant, de-identify, look for what is left."""

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from osler.evaluation.deidentification.identifiers import Identifiers, Plant
from osler.evaluation.deidentification.peers import PEERS
from osler.evaluation.deidentification.planted_dicom import DicomPlanter, dicomdir_of
from osler.evaluation.deidentification.planted_pixels import MANY, Picture, planted_images
from osler.evaluation.deidentification.planted_texts import TextPlanter
from osler.evaluation.deidentification.search import broken_references, remaining
from osler.privacy.inputs import files_under
from osler.privacy.profile import Profile
from osler.privacy.run import Progress, deidentify

_KEY = bytes(range(32))


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Planted files, by name, and what was planted in them."""

    files: dict[str, bytes]
    plants: list[Plant]
    folder: str

    @property
    def dicom(self) -> dict[str, bytes]:
        """Those that any tool for DICOM takes."""
        return {
            name: data
            for name, data in self.files.items()
            if name.endswith(".dcm") and name != "DICOMDIR"
        }


@dataclass(frozen=True, kw_only=True)
class Place:
    """The identifiers of one class of place.

    Attributes:
        name: the class.
        planted: how many.
        left: how many are still there after Osler.
        left_by: the same for other tools; None where they do not take such files.
    """

    name: str
    planted: int
    left: int
    left_by: dict[str, int | None]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a measurement found.

    Attributes:
        places: by class of place.
        left: identifiers that are still there after Osler.
        refused: files that Osler did not write, DICOMDIR aside.
        broken_references: between the DICOM files.
        only_by_us: of those that both take, how many Osler removes and a tool leaves.
        only_by_them: the other way round.
    """

    places: list[Place]
    left: list[Plant]
    refused: int
    broken_references: int
    only_by_us: dict[str, int]
    only_by_them: dict[str, int]

    @property
    def planted(self) -> int:
        """All identifiers."""
        return sum(place.planted for place in self.places)

    @property
    def removed(self) -> float:
        """Their share that is gone."""
        return 1 - len(self.left) / self.planted


def make_corpus(seed: int, *, pictures: Sequence[Picture] = MANY, records: int = 4) -> Corpus:
    """Plant identifiers; the same seed plants the same.

    Args:
        seed: of the identifiers.
        pictures: what to draw text on.
        records: how many FHIR records there are, and notes.
    """
    ids = Identifiers(seed)
    dicom, texts = DicomPlanter(ids), TextPlanter(ids)
    files = dict(dicom.objects())
    files |= planted_images(dicom, pictures)
    files["DICOMDIR"] = dicomdir_of(dicom, "DICOMDIR")
    for number in range(records):
        files[f"record-{number}.json"] = texts.bundle(f"record-{number}.json")
        files[f"note-{number}.txt"] = texts.note(f"note-{number}.txt")
    folder = f"{ids.word()}_{ids.given()}"
    named = Plant(place="file name", file="header.dcm", value=folder)
    return Corpus(files=files, plants=[*dicom.plants, *texts.plants, named], folder=folder)


def measure(corpus: Corpus, *, peers: bool = True, progress: Progress | None = None) -> Measured:
    """De-identify a corpus, and count what is left of what was planted.

    Args:
        corpus: of `make_corpus`.
        peers: have the other tools do the same.
        progress: as `osler.privacy.run.deidentify` takes it.
    """
    after, refused, beside = _by_osler(corpus, progress)
    left = remaining(corpus.plants, after)
    # Names of files and the report must hold nothing either, of any file.
    left += remaining(
        (plant for plant in corpus.plants if plant.spot is None and plant not in left),
        dict.fromkeys(corpus.files, beside),
    )
    others = _by_others(corpus) if peers else {}
    ours = [plant for plant in left if plant.file in corpus.dicom]
    return Measured(
        places=_places(corpus.plants, left, others, corpus.dicom),
        left=left,
        refused=refused,
        broken_references=broken_references(
            corpus.dicom.values(),
            [data for name, data in after.items() if name in corpus.dicom and data is not None],
        ),
        only_by_us={name: _count_without(theirs, ours) for name, theirs in others.items()},
        only_by_them={name: _count_without(ours, theirs) for name, theirs in others.items()},
    )


def _by_osler(
    corpus: Corpus, progress: Progress | None
) -> tuple[dict[str, bytes | None], int, bytes]:
    """What became of each file, how many were refused, and all that stands beside the files."""
    with tempfile.TemporaryDirectory() as place:
        folder, out = Path(place, corpus.folder), Path(place, "out")
        folder.mkdir()
        for name, data in corpus.files.items():
            (folder / name).write_bytes(data)
        names = [
            Path(part.name).name
            for part in files_under([folder])
            if not isinstance(part, Exception)
        ]
        report = deidentify([folder], out, key=_KEY, profile=Profile(), progress=progress)
        after: dict[str, bytes | None] = dict.fromkeys(corpus.files)
        for file in report.files:
            after[names[file.input - 1]] = (out / file.output).read_bytes()
        beside = [str(path.relative_to(out)).encode() for path in out.rglob("*")]
        beside += [path.read_bytes() for path in out.glob("report.*")]
        return after, len(report.refused), b"\n".join(beside)


def _by_others(corpus: Corpus) -> dict[str, list[Plant]]:
    plants = [
        plant
        for plant in corpus.plants
        if plant.file in corpus.dicom and plant.place != "file name"
    ]
    return {name: remaining(plants, tool(corpus.dicom)) for name, tool in PEERS.items()}


def _places(
    plants: Sequence[Plant],
    left: Iterable[Plant],
    others: Mapping[str, Sequence[Plant]],
    dicom: Mapping[str, bytes],
) -> list[Place]:
    planted = Counter(plant.place for plant in plants)
    ours = Counter(plant.place for plant in left)
    theirs = {name: Counter(plant.place for plant in found) for name, found in others.items()}
    in_dicom = {plant.place for plant in plants if plant.file in dicom} - {"file name"}
    return [
        Place(
            name=name,
            planted=count,
            left=ours[name],
            left_by={
                tool: found[name] if name in in_dicom else None for tool, found in theirs.items()
            },
        )
        for name, count in planted.items()
    ]


def _count_without(found: Iterable[Plant], other: Iterable[Plant]) -> int:
    there = {id(plant) for plant in other}
    return sum(id(plant) not in there for plant in found)
