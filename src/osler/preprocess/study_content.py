"""Studies to the content of a message: images with labels, prior before current."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from osler.ingest.series import Series, Study
from osler.preprocess.slices import MAX_SLICES, Shown, shown_of
from osler.preprocess.slides import MAX_PATCHES

_IN_WORDS = {"CT": "CT", "MR": "MRI", "PT": "PET", "NM": "Nuclear medicine", "US": "Ultrasound"}
_IN_WORDS["SM"] = "Whole slide of tissue"


@dataclass(frozen=True)
class Exhibit:
    """A series to be seen, and what is said before it.

    Attributes:
        heading: which study it is of and what it is, where that can be told; else empty.
        shown: its frames.
    """

    heading: str
    shown: Shown


def exhibits(
    studies: Sequence[Study],
    max_slices: int = MAX_SLICES,
    names: Mapping[str, str] | None = None,
    *,
    max_patches: int = MAX_PATCHES,
) -> list[Exhibit]:
    """Choose and order what a model sees of some studies.

    Scouts are left out where there is anything else, and captures of screens where there is a
    volume. The slices of all volumes and clips together are at most `max_slices`, shared out
    evenly, but one of each. Examinations of one patient with different dates come oldest first and
    are called prior and current; no date is ever said. A volume's or clip's heading says what it
    is: what slices are of, MedGemma 1.5 was told before it saw them.

    Args:
        studies: as they were found, in the order of the paths.
        max_slices: at least 1.
        names: what a record calls studies, by their UIDs.
        max_patches: of all whole slides together, as `max_slices` of the volumes.

    Source: google-health/medgemma, notebooks/high_dimensional_ct_hugging_face.ipynb: what the
        slices are of, then each slice and its label, then the question.
    """
    said_of = moments_said(studies)
    if said_of:
        studies = sorted(studies, key=lambda study: study.moment)
    every = [
        (_title(study, said_of, names or {}), series)
        for study in studies
        for series in study.series
    ]
    has_volume = any(series.kind == "volume" for _, series in every)
    chosen = [(title, series) for title, series in every if not _is_aside(series, has_volume)]
    chosen = chosen or every
    shares = _shares([series for _, series in chosen], max_slices, max_patches)
    # One slide alone is patches and the question, as MedGemma 1.5 was given it.
    is_one_slide = [series.kind for _, series in chosen] == ["slide"]
    is_said = any(series.kind != "images" for _, series in chosen) and not is_one_slide
    found: list[Exhibit] = []
    last = ""
    for (title, one), most in zip(chosen, shares, strict=True):
        heading = [f"{title}:"] if title and title != last else []
        last = title
        if is_said:
            heading.append(f"{name_of(one)}:")
        found.append(Exhibit(" ".join(heading), shown_of(one, most)))
    return found


def _title(study: Study, said_of: Mapping[str, str], names: Mapping[str, str]) -> str:
    """Prior or current, and the study's name in the record, where these are known."""
    said, name = said_of.get(study.moment, ""), names.get(study.uid, "")
    return f"{said or 'Study'} [{name}]" if name else said


def _is_aside(series: Series, has_volume: bool) -> bool:
    is_screen = series.kind == "images" and series.file.is_capture
    return series.is_localizer or (has_volume and is_screen)


def _shares(all_series: Sequence[Series], max_slices: int, max_patches: int) -> list[int]:
    """How many frames of each series may be seen; what short ones leave goes to the long."""
    shares = [0] * len(all_series)
    for kinds, left in ((("volume", "clip"), max_slices), (("slide",), max_patches)):
        places = [place for place, series in enumerate(all_series) if series.kind in kinds]
        places.sort(key=lambda place: len(all_series[place].frames))
        for number, place in enumerate(places):
            most = max(1, left // (len(places) - number))
            shares[place] = min(len(all_series[place].frames), most)
            left -= shares[place]
    return shares


def moments_said(studies: Sequence[Study]) -> dict[str, str]:
    """What to call the examination of each moment, prior or current, where that can be told.

    Returns:
        By the studies' `moment`; empty where there is one examination, a date is not known, or
        the patients differ.
    """
    # Where one study lacks its time, only days can be compared.
    digits = min((len(study.moment) for study in studies), default=0)
    moments = sorted({study.moment[:digits] for study in studies})
    if digits == 0 or len(moments) < 2 or len({study.patient for study in studies}) > 1:
        return {}
    names = [f"Prior study {number} of {len(moments) - 1}" for number in range(1, len(moments))]
    if len(names) == 1:
        names = ["Prior study"]
    said = dict(zip(moments, [*names, "Current study"], strict=True))
    return {study.moment: said[study.moment[:digits]] for study in studies}


def several_patients(studies: Sequence[Study]) -> bool:
    """Whether the studies say that they are not all of one patient."""
    return len({study.patient for study in studies if study.patient}) > 1


def name_of(series: Series) -> str:
    """What a series is, in a few words for the model.

    Of codes only, never of the free text of a series' description.
    """
    words = [_IN_WORDS.get(series.modality or "", series.modality or "Image")]
    if series.plane is not None:
        words.append(series.plane)
    if series.file.has_contrast:
        words.append("with contrast")
    if series.map is not None:
        words.append(f"patches at {series.map.magnification:g}x")
    if series.file.laterality is not None:
        words.append({"R": "right", "L": "left", "B": "both sides"}[series.file.laterality])
    return ", ".join(words)


def content_of(
    found: Sequence[Exhibit], images: Callable[[Shown], Sequence[Any]]
) -> list[dict[str, Any]]:
    """The items of a message: headings, images and their labels.

    Args:
        found: what is to be seen.
        images: gives the image of each frame of a series, or what stands for it.

    Returns:
        Items of "text" and "image", as `chat.read_turns` takes them.
    """
    content: list[dict[str, Any]] = []
    for exhibit in found:
        add_text(content, exhibit.heading)
        for image, label in zip(images(exhibit.shown), exhibit.shown.labels, strict=True):
            content.append({"type": "image", "image": image})
            add_text(content, label)
    return content


def add_text(content: list[dict[str, Any]], text: str) -> None:
    """Append a text; two in a row would run into each other, and become paragraphs of one."""
    if not text:
        return
    if content and content[-1]["type"] == "text":
        content[-1] = {"type": "text", "text": f"{content[-1]['text']}\n\n{text}"}
    else:
        content.append({"type": "text", "text": text})
