"""The prompt ensembles by which the encoder classifies zero-shot, set by set."""

from osler.evaluation.naming import FINDINGS
from osler.ingest.image_pack import PackedImage

_STUDY_OF_SET = {
    "cxr_kermany": "chest X-ray",
    "derm_ham10000": "dermoscopic image of the skin",
    "fundus_odir512": "fundus photograph of the eye",
    "mri_brain_tumor": "brain MRI",
    "histo_lc25000_lung": "histology slide of lung tissue",
    "ct_covid": "chest CT scan",
    "us_busi": "breast ultrasound",
}
_NORMAL = {
    "cxr_kermany": "normal",
    "fundus_odir512": "N",
    "mri_brain_tumor": "no_tumor",
    "histo_lc25000_lung": "normal",
    "us_busi": "normal",
}
# What a caption mostly says instead of the label's own name.
_KINDS = {
    ("cxr_kermany", "pneumonia"): ("bacterial pneumonia", "viral pneumonia"),
    ("fundus_odir512", "D"): (
        "mild nonproliferative diabetic retinopathy",
        "moderate nonproliferative diabetic retinopathy",
        "severe nonproliferative diabetic retinopathy",
    ),
    ("fundus_odir512", "A"): (
        "dry age-related macular degeneration",
        "wet age-related macular degeneration",
    ),
    ("fundus_odir512", "O"): (
        *("drusen", "macular epiretinal membrane", "epiretinal membrane", "vitreous degeneration"),
        *("myelinated nerve fibers", "refractive media opacity", "maculopathy"),
    ),
}
_STUDIES_ONLY = {
    "medpix2": {
        "CT": [
            *("CT scan of the brain", "CT scan of the chest", "CT scan of the abdomen"),
            *("CT scan of the abdomen and pelvis", "CT scan of the bones and joints"),
        ],
        "MR": [
            *("MRI of the brain", "MRI of the chest", "MRI of the abdomen", "MRI of the spine"),
            *("MRI of the abdomen and pelvis", "MRI of the bones and joints"),
        ],
    },
    "vqa_rad": {
        "CHEST": ["chest X-ray", "X-ray of the chest", "chest radiograph"],
        "ABD": ["abdomen CT scan", "CT scan of the abdomen", "CT image of the abdomen"],
        "HEAD": ["brain MRI", "MRI of the brain", "scan of the brain", "CT scan of the brain"],
    },
}


def normal_class(set_name: str) -> str | None:
    """The class of a set that means a healthy image, where it has one."""
    return _NORMAL.get(set_name)


def kinds(set_name: str, label: str) -> tuple[str, ...]:
    """What is mostly said instead of a label's own name."""
    return _KINDS.get((set_name, label), ())


def zero_shot_prompts() -> dict[str, dict[str, list[str]]]:
    """Prompts by set and by label; the mean of a label's prompts stands for the label."""
    prompts = {
        set_name: {
            label: _ensemble(
                study,
                names + kinds(set_name, label),
                normal=label == _NORMAL.get(set_name),
            )
            for label, names in FINDINGS[set_name].items()
            if "/" not in label
        }
        for set_name, study in _STUDY_OF_SET.items()
    }
    return {**prompts, **_STUDIES_ONLY}


def zero_shot_label(item: PackedImage) -> str | None:
    """The label of `zero_shot_prompts` that is right for an image; None where several are."""
    match item.set_name:
        case "cxr_kermany" | "mri_brain_tumor" | "ct_covid" | "us_busi":
            return str(item.labels["finding"])
        case "derm_ham10000":
            return str(item.labels["dx"])
        case "histo_lc25000_lung":
            return str(item.labels["class"])
        case "fundus_odir512":
            eye = item.labels["eye"]
            return str(eye[0]) if len(eye) == 1 else None
        case "medpix2":
            return item.modality
        case "vqa_rad":
            return str(item.labels["organ"])
        case _:
            return None


def _ensemble(study: str, names: tuple[str, ...], *, normal: bool) -> list[str]:
    forms = ["{study} showing {name}", "{study} with {name}", "{study}: {name}", "{name}"]
    prompts = [form.format(study=study, name=name) for name in names for form in forms]
    if normal:
        prompts += [f"normal {study}", f"healthy {study}"]
    return prompts
