"""The image sets of the data pack: tar files of WebP images with a JSON record beside each."""

import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from osler.errors import UnreadableFileError

Split = Literal["train", "val"]


@dataclass(frozen=True, kw_only=True)
class PackedImage:
    """One image of the pack with what is known about it.

    Attributes:
        set_name: the image set, as "cxr_kermany".
        key: unique in its set and split.
        group: patient, lesion, case or the like; no group spans two splits.
        modality: DICOM-like Modality: CR, CT, MR, US, XC, OP, SM, or OT where it is not known.
        body_part: DICOM-like body part, as "CHEST" or "PELVIS_GU".
        labels: the set's own labels.
        text: a caption, keywords, or a list of question records; None where the set has none.
        meta: age, sex, plane and the like; often not visible in the image.
        image_bytes: the WebP file.
    """

    set_name: str
    key: str
    group: str
    modality: str
    body_part: str
    image_bytes: bytes
    labels: dict[str, Any] = field(default_factory=dict)
    text: str | list[dict[str, str]] | None = None
    meta: dict[str, Any] = field(default_factory=dict)


def read_image_pack(
    folder: str | os.PathLike[str], split: Split, sets: Sequence[str] | None = None
) -> Iterator[PackedImage]:
    """Read the images of one split, set by set in the order of their names.

    Args:
        folder: the data pack, or its `images` folder.
        split: "train" or "val".
        sets: names of the sets wanted; all that are there when None.

    Yields:
        One record an image, in the order of its tar file (which is free of class).

    Raises:
        UnreadableFileError: a set that is not there, a tar file that is damaged, a record without
            an image or without its fields.
    """
    images = Path(folder)
    if (images / "images").is_dir():
        images = images / "images"
    ending = f"-{split}.tar"
    if sets is None:
        paths = sorted(images.glob(f"*{ending}"))
        if not paths:
            raise UnreadableFileError(f"{images}: no image sets (*{ending}) in this folder")
    else:
        paths = [images / f"{name}{ending}" for name in sets]
    for path in paths:
        yield from _read_set(path)


def _read_set(path: Path) -> Iterator[PackedImage]:
    if not path.is_file():
        raise UnreadableFileError(f"{path}: no such image set")
    try:
        with tarfile.open(path, "r:") as tar:
            members = iter(tar)
            for member in members:
                key, _, ending = member.name.rpartition(".")
                image = next(members, None)
                if ending != "json" or image is None or image.name != f"{key}.webp":
                    raise UnreadableFileError(f"{path}: {member.name} has no image after it")
                yield _parse(path, key, _content(tar, member), _content(tar, image))
    except (tarfile.TarError, EOFError) as error:
        raise UnreadableFileError(f"{path}: not a readable tar file ({error})") from error


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    return b"" if stream is None else stream.read()


def _parse(path: Path, key: str, record: bytes, image_bytes: bytes) -> PackedImage:
    try:
        fields = json.loads(record)
        return PackedImage(
            set_name=fields["set"],
            key=key,
            group=fields["group"],
            modality=fields["modality"],
            body_part=fields["body_part"],
            labels=fields.get("labels", {}),
            text=fields.get("text"),
            meta=fields.get("meta", {}),
            image_bytes=image_bytes,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableFileError(f"{path}: {key}.json is not a record of the pack") from error
