"""A data pack in small: synthetic records of every image set, and the files they are stored in."""

import gzip
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL.Image

from osler.ingest.image_pack import PackedImage, Split


def packed_image(
    set_name: str, modality: str, body_part: str, labels: Mapping[str, Any], **more: Any
) -> PackedImage:
    """A record with a small grey image."""
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (8, 6), (90, 90, 90)).save(buffer, "WEBP", lossless=True)
    return replace(
        PackedImage(
            set_name=set_name,
            key="0001-image",
            group="group-1",
            modality=modality,
            body_part=body_part,
            labels=dict(labels),
            image_bytes=buffer.getvalue(),
        ),
        **more,
    )


def one_of_each_class() -> list[PackedImage]:
    """Records of all sets and classes of the pack, with what the real ones have."""
    questions = [
        {"question": "Is the heart enlarged", "answer": "no"},
        {"question": "What plane is this?", "answer": "PA"},
    ]
    return [
        packed_image("cxr_kermany", "CR", "CHEST", {"finding": "normal"}),
        *(
            packed_image(
                "cxr_kermany", "CR", "CHEST", {"finding": "pneumonia", "pathogen": pathogen}
            )
            for pathogen in ("bacteria", "virus")
        ),
        *(
            packed_image(
                "derm_ham10000",
                "XC",
                "SKIN",
                {"dx": dx},
                meta={"dx_type": "histo", "age": 85, "sex": "female", "location": "scalp"},
            )
            for dx in ("nv", "mel", "bkl", "bcc", "akiec", "vasc", "df")
        ),
        *(
            packed_image(
                "fundus_odir512",
                "OP",
                "EYE",
                {"eye": list(eye)},
                text=text,
                meta={"age": 62, "laterality": "R"},
            )
            for eye, text in (
                ("N", "normal fundus, lens dust"),
                ("D", "moderate non proliferative retinopathy"),
                ("G", "suspected glaucoma"),
                ("C", "cataract"),
                ("A", "dry age-related macular degeneration"),
                ("H", "hypertensive retinopathy"),
                ("M", "pathological myopia"),
                ("O", "macular epiretinal membrane"),
                ("DO", "mild nonproliferative retinopathy, drusen"),
            )
        ),
        *(
            packed_image("mri_brain_tumor", "MR", "BRAIN", {"finding": finding})
            for finding in ("glioma", "meningioma", "pituitary", "no_tumor")
        ),
        *(
            packed_image("histo_lc25000_lung", "SM", "LUNG", {"class": name})
            for name in ("aca", "scc", "normal")
        ),
        *(
            packed_image("ct_covid", "CT", "CHEST", {"finding": finding})
            for finding in ("covid19", "non_covid")
        ),
        *(
            packed_image("us_busi", "US", "BREAST", {"finding": finding})
            for finding in ("benign", "malignant", "normal")
        ),
        *(
            packed_image(
                "medpix2",
                modality,
                body_part,
                {"case_diagnosis": "Sarcoidosis"},
                text="There is a large mass in the left half. It was found by chance.",
                meta={"plane": "Axial", "age": "72", "location": location},
            )
            for modality, body_part, location in (
                ("CT", "CHEST", "Chest, Pulmonary"),
                ("MR", "HEAD", "Brain and Neuro"),
                ("CT", "HEAD", "Eye and Orbit"),
                ("MR", "SPINE_MSK", "Spine"),
                ("CT", "SPINE_MSK", "Musculoskeletal"),
                ("CT", "PELVIS_GU", "Genitourinary"),
                ("CT", "ABDOMEN", "Gastrointestinal"),
            )
        ),
        *(
            packed_image("vqa_rad", modality, body_part, {"organ": organ}, text=questions)
            for modality, body_part, organ in (
                ("CR", "CHEST", "CHEST"),
                ("CT", "ABDOMEN", "ABD"),
                ("OT", "HEAD", "HEAD"),
            )
        ),
    ]


def write_image_pack(folder: Path, split: Split, items: Iterable[PackedImage]) -> None:
    """Write records as the pack's tar files, numbering their keys."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    by_set: dict[str, list[PackedImage]] = {}
    for item in items:
        by_set.setdefault(item.set_name, []).append(item)
    for set_name, of_set in by_set.items():
        with tarfile.open(images / f"{set_name}-{split}.tar", "w") as tar:
            for number, item in enumerate(of_set):
                record: dict[str, Any] = {
                    "set": set_name,
                    "group": item.group,
                    "modality": item.modality,
                    "body_part": item.body_part,
                    "labels": item.labels,
                    "meta": item.meta,
                }
                if item.text is not None:
                    record["text"] = item.text
                add_to_tar(tar, f"{number:04}-image.json", json.dumps(record).encode())
                add_to_tar(tar, f"{number:04}-image.webp", item.image_bytes)


def add_to_tar(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add bytes as a file."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def write_text_pack(folder: Path, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as one of the pack's texts."""
    texts = folder / "text"
    texts.mkdir(parents=True, exist_ok=True)
    with gzip.open(texts / f"{name}.jsonl.gz", "wt", encoding="utf-8") as lines:
        lines.writelines(f"{json.dumps(row)}\n" for row in rows)
