"""What the nanos are aimed at: the least of a figure, by set and metric.

The area under the curve and the accuracy of Kermany's and of HAM10000 are above what MedMNIST
gives for a ResNet-18 at 224 pixels: .956 and .864 (on a shifted test), .920 and .754.

Source: MedMNIST v2 (Scientific Data 10:41, 2023), table 3.
"""

from collections.abc import Mapping

from osler.evaluation.figure import ACCURACY, AUC

SOURCE_ACCURACY = "accuracy at the source's frequencies"

OF_ENCODER: Mapping[tuple[str, str], float] = {
    ("cxr_kermany", AUC): 0.985,
    ("cxr_kermany", ACCURACY): 0.95,
    ("derm_ham10000", AUC): 0.920,
    ("derm_ham10000", SOURCE_ACCURACY): 0.754,
    ("mri_brain_tumor", ACCURACY): 0.92,
    ("fundus_odir512", AUC): 0.80,
    ("histo_lc25000_lung", ACCURACY): 0.97,
}
# Zero-shot against the linear probe.
AUC_DIFFERENCE = -0.05
# Answers in words against the linear probe.
ACCURACY_DIFFERENCE = -0.05
MODALITY_AND_BODY_PART = 0.98
