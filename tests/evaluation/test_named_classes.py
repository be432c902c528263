"""Which classes an answer names."""

import pytest

from osler.evaluation.named_classes import named_classes
from osler.evaluation.naming import FINDINGS


@pytest.mark.parametrize(
    ("set_name", "answer", "named"),
    [
        ("cxr_kermany", "There are opacities consistent with bacterial pneumonia.", ("pneumonia",)),
        ("cxr_kermany", "No effusion, mass or pneumonia.", ("normal",)),
        ("cxr_kermany", "The heart is not enlarged, pneumonia is present.", ("pneumonia",)),
        ("cxr_kermany", "Not normal: viral pneumonia.", ("pneumonia",)),
        ("cxr_kermany", "A chest X-ray.", ()),
        ("derm_ham10000", "The most likely diagnosis is benign mole (melanocytic nevus).", ("nv",)),
        ("derm_ham10000", "This is no melanoma.", ()),
        ("derm_ham10000", "Actinic keratosis, or basal cell carcinoma.", ("akiec", "bcc")),
        ("fundus_odir512", "Moderate nonproliferative diabetic retinopathy.", ("D",)),
        ("fundus_odir512", "Glaucoma and cataract.", ("G", "C")),
        ("fundus_odir512", "Normal retina, with no sign of disease.", ("N",)),
        ("fundus_odir512", "No retinal abnormality is seen.", ("N",)),
        ("mri_brain_tumor", "No sign of a tumor.", ("no_tumor",)),
        ("mri_brain_tumor", "A brain tumor is seen, consistent with glioma.", ("glioma",)),
        ("mri_brain_tumor", "A brain tumor is seen.", ()),
        ("histo_lc25000_lung", "Benign lung tissue, with no cancer.", ("normal",)),
        ("histo_lc25000_lung", "Squamous cell carcinoma of the lung", ("scc",)),
        ("ct_covid", "There are no signs of COVID-19.", ("non_covid",)),
        ("ct_covid", "Changes consistent with COVID-19 pneumonia", ("covid19",)),
        ("us_busi", "A lesion consistent with a malignant mass.", ("malignant",)),
        ("us_busi", "No mass is seen.", ("normal",)),
        ("cxr_kermany", "A normal chest X-ray with pneumonia.", ("normal", "pneumonia")),
        ("us_busi", "A benign lesion, no sign of malignancy.", ("benign",)),
    ],
)
def test_what_an_answer_names(set_name: str, answer: str, named: tuple[str, ...]) -> None:
    assert named_classes(set_name, answer) == named


def test_every_name_of_a_class_names_it_alone() -> None:
    for set_name, of_set in FINDINGS.items():
        for key, names in of_set.items():
            for name in names:
                said = named_classes(set_name, f"The image shows {name}.")
                assert said == (key.partition("/")[0],), (set_name, name)
