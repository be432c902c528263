"""How the images of the pack are named in normal English, for training and for scoring alike.

An image has a *class path*, as "CR/CHEST/cxr_kermany/pneumonia/bacteria": modality, body part, set,
then ever finer classes. A text that tells no more than the first steps of the path is true of every
image whose path begins with them.
"""

from osler.ingest.image_pack import PackedImage

# What an image of a set and body part is called, the usual name first. Each name holds the modality
# and the body part in words that evaluation.own_words accepts.
_STUDIES: dict[tuple[str, str], tuple[str, ...]] = {
    ("CR", "CHEST"): ("chest X-ray", "X-ray of the chest", "chest radiograph"),
    ("XC", "SKIN"): (
        "dermoscopic image of the skin",
        "dermoscopic photograph of a skin lesion",
        "skin lesion photograph (dermoscopy)",
        "close-up dermoscopy photo of the skin",
    ),
    ("OP", "EYE"): (
        "fundus photograph of the eye",
        "retinal fundus photograph",
        "color fundus photo of the retina",
        "fundus image of the eye",
    ),
    ("SM", "LUNG"): (
        "histology slide of lung tissue",
        "histopathology image of the lung",
        "microscopic image of lung tissue (histology)",
        "H&E histology image of lung tissue",
    ),
    ("US", "BREAST"): (
        "breast ultrasound",
        "ultrasound image of the breast",
        "ultrasound scan of the breast",
        "breast sonogram (ultrasound)",
    ),
    ("MR", "BRAIN"): (
        "brain MRI",
        "MRI of the brain",
        "MRI scan of the brain",
        "MR image of the brain",
    ),
}
_SCANS: dict[str, tuple[str, ...]] = {
    "CT": ("{part} CT scan", "CT scan of the {part}", "CT image of the {part}", "CT of the {part}"),
    "MR": ("{part} MRI", "MRI of the {part}", "MRI scan of the {part}", "MR image of the {part}"),
    "CR": ("{part} X-ray", "X-ray of the {part}", "radiograph of the {part}"),
    # The modality of some head images is not known; these names claim none.
    "OT": ("scan of the {part}", "cross-sectional image of the {part}"),
}
_MODALITIES: dict[str, tuple[str, ...]] = {
    "CR": ("X-ray", "X-ray (radiograph)", "radiograph"),
    "CT": ("CT scan", "CT", "CT (computed tomography)"),
    "MR": ("MRI", "MRI scan", "MRI (magnetic resonance imaging)"),
    "US": ("ultrasound", "ultrasound (sonography)"),
    "XC": ("dermoscopic image", "dermoscopy photograph", "skin photograph (dermoscopy)"),
    "OP": ("fundus photograph", "retinal fundus photograph"),
    "SM": ("histology slide", "histopathology image (microscopy)"),
}
_BODY_PARTS: dict[str, tuple[str, ...]] = {
    "CHEST": ("chest",),
    "ABDOMEN": ("abdomen",),
    "HEAD": ("brain", "head"),
    "BRAIN": ("brain",),
    "SKIN": ("skin",),
    "EYE": ("eye", "retina"),
    "LUNG": ("lung",),
    "BREAST": ("breast",),
    "PELVIS_GU": ("abdomen and pelvis", "pelvis"),
    "SPINE_MSK": ("bones and joints",),
}
# MedPix tells the part of the body more closely by its location field.
_LOCATION_PARTS: dict[str, tuple[str, ...]] = {
    "Head and Neck": ("head and neck", "head"),
    "Eye and Orbit": ("head and orbits", "head"),
    "Ophthalmology": ("head and orbits", "head"),
    "Spine": ("spine",),
    "Musculoskeletal": ("bones and joints", "musculoskeletal system"),
}

# What the classes of a set show, as noun phrases, the usual one first.
FINDINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "cxr_kermany": {
        "normal": ("no pneumonia", "clear lungs", "no acute findings", "normal lungs"),
        "pneumonia": ("pneumonia", "signs of pneumonia", "lung opacities due to pneumonia"),
        "pneumonia/bacteria": ("bacterial pneumonia", "pneumonia, likely bacterial"),
        "pneumonia/virus": ("viral pneumonia", "pneumonia, likely viral"),
    },
    "derm_ham10000": {
        "nv": ("melanocytic nevus", "benign mole (melanocytic nevus)", "nevus"),
        "mel": ("melanoma", "malignant melanoma"),
        "bkl": ("benign keratosis-like lesion", "benign keratosis", "seborrheic keratosis"),
        "bcc": ("basal cell carcinoma",),
        "akiec": ("actinic keratosis", "actinic keratosis / intraepithelial carcinoma"),
        "vasc": ("vascular lesion", "vascular skin lesion"),
        "df": ("dermatofibroma",),
    },
    "fundus_odir512": {
        "N": ("normal fundus", "no retinal disease", "normal retina"),
        "D": ("diabetic retinopathy",),
        "G": ("glaucoma",),
        "C": ("cataract",),
        "A": ("age-related macular degeneration",),
        "H": ("hypertensive retinopathy",),
        "M": ("pathological myopia", "myopia"),
        "O": ("other retinal abnormality", "retinal abnormality"),
    },
    "mri_brain_tumor": {
        "glioma": ("glioma", "glioma tumor"),
        "meningioma": ("meningioma", "meningioma tumor"),
        "pituitary": ("pituitary tumor", "pituitary adenoma"),
        "no_tumor": ("no tumor", "no brain tumor"),
    },
    "histo_lc25000_lung": {
        "aca": ("lung adenocarcinoma", "adenocarcinoma"),
        "scc": ("lung squamous cell carcinoma", "squamous cell carcinoma"),
        "normal": ("normal lung tissue", "benign lung tissue"),
    },
    "ct_covid": {
        "covid19": ("COVID-19", "COVID-19 pneumonia", "COVID-19 infection"),
        "non_covid": ("no COVID-19", "no sign of COVID-19"),
    },
    "us_busi": {
        "benign": ("benign mass", "benign breast lesion", "benign tumor"),
        "malignant": (
            "malignant mass",
            "malignant breast lesion",
            "malignant tumor (breast cancer)",
        ),
        "normal": ("no mass", "normal breast tissue", "no breast lesion"),
    },
}


def classes(item: PackedImage) -> tuple[str, ...]:
    """The image's classes within its set, the coarsest first."""
    labels = item.labels
    steps: tuple[str | None, ...]
    match item.set_name:
        case "cxr_kermany":
            steps = (labels["finding"], labels.get("pathogen"))
        case "derm_ham10000":
            steps = (labels["dx"],)
        case "fundus_odir512":
            steps = ("+".join(labels["eye"]),)
        case "histo_lc25000_lung":
            steps = (labels["class"],)
        case "medpix2":
            # The captions of a case are much alike: its images count as one class.
            steps = (item.meta.get("plane"), item.group)
        case "vqa_rad":
            steps = (labels["organ"],)
        case _:
            steps = (labels["finding"],)
    return tuple(str(step) for step in steps if step)


def study_path(item: PackedImage) -> str:
    """Modality and body part, as "MR/HEAD"; sets that call the head otherwise are put together."""
    return f"{item.modality}/{'HEAD' if item.body_part == 'BRAIN' else item.body_part}"


def class_path(item: PackedImage) -> str:
    """All that is known of what the image is, as "CR/CHEST/cxr_kermany/pneumonia/virus"."""
    return "/".join((study_path(item), item.set_name, *classes(item)))


def findings(item: PackedImage) -> tuple[str, ...]:
    """Noun phrases for what the image shows, the usual one first; none where no label tells."""
    known = FINDINGS.get(item.set_name)
    if known is None:
        return ()
    if item.set_name == "fundus_odir512" and len(item.labels["eye"]) > 1:
        return (" and ".join(known[letter][0] for letter in item.labels["eye"]),)
    return known["/".join(classes(item))]


def modalities(item: PackedImage) -> tuple[str, ...]:
    """Names of the image's modality, the usual one first; none where it is not known."""
    return _MODALITIES.get(item.modality, ())


def body_parts(item: PackedImage) -> tuple[str, ...]:
    """Names of the body part shown, the usual one first."""
    return _LOCATION_PARTS.get(str(item.meta.get("location"))) or _BODY_PARTS[item.body_part]


def studies(item: PackedImage) -> tuple[str, ...]:
    """Names of the whole study, as "chest X-ray", the usual one first."""
    fixed = _STUDIES.get((item.modality, item.body_part))
    if fixed:
        return fixed
    return tuple(
        form.format(part=part) for part in body_parts(item) for form in _SCANS[item.modality]
    )
