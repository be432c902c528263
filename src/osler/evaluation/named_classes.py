"""Which of a set's classes an answer in words names."""

import re
from functools import cache

from osler.evaluation.naming import FINDINGS
from osler.evaluation.prompts import kinds, normal_class

# What denies a finding, and what is denied where an image is healthy.
NEGATION = r"\b(?:no|not|without|free of|absence of|negative for|rules? out|neither|nor)\b"
_ILLNESS = (
    r"pneumonia|consolidations?|opacit(?:y|ies)|infiltrates?|tumou?rs?|cancer|carcinoma|malignan\w+"
    r"|mass(?:es)?|lesions?|(?:retinal )?diseases?|abnormalit(?:y|ies)|abnormal findings?"
    r"|(?:acute |significant )?findings?|retinopathy"
)
_HEALTHY = r"normal(?! \w*sized)|healthy|clear lungs?|lungs? (?:are|is|appears?|looks?) clear"
# Names that an answer may use and a prompt should not.
_OTHER_NAMES: dict[tuple[str, str], tuple[str, ...]] = {
    ("ct_covid", "covid19"): ("covid", "covid 19", "sars-cov-2", "coronavirus"),
    ("derm_ham10000", "nv"): ("naevus", "nevi", "mole"),
    ("derm_ham10000", "bkl"): ("keratosis-like lesion", "solar lentigo", "lichen planus"),
    ("derm_ham10000", "akiec"): ("bowen's disease", "intraepithelial carcinoma"),
    ("derm_ham10000", "vasc"): ("hemangioma", "angioma", "vascular"),
    ("fundus_odir512", "D"): ("proliferative retinopathy", "nonproliferative retinopathy"),
    ("fundus_odir512", "A"): ("macular degeneration",),
    ("fundus_odir512", "H"): ("hypertensive",),
    ("histo_lc25000_lung", "scc"): ("squamous",),
    ("us_busi", "benign"): ("benign",),
    ("us_busi", "malignant"): ("malignant", "breast cancer"),
}


def named_classes(set_name: str, answer: str) -> tuple[str, ...]:
    """The classes that an answer names, in the order in which it first does.

    Where nothing else is named, a denied finding names the healthy class, if the set has one.

    Args:
        set_name: one of `FINDINGS`.
        answer: in words.

    >>> named_classes("cxr_kermany", "A chest X-ray. No sign of pneumonia.")
    ('normal',)
    >>> named_classes("derm_ham10000", "Melanoma rather than a nevus.")
    ('mel', 'nv')
    """
    pattern, labels = _names(set_name)
    healthy = _healthy_class(set_name)
    text = " ".join(answer.lower().split())
    named: list[str] = []
    is_illness_denied = False
    for match in pattern.finditer(text):
        word, denied = match[0], _is_denied(text, match.start())
        label = labels.get(word)
        if label is None:  # no name of a class: an illness of any kind, or health
            is_illness = re.fullmatch(_ILLNESS, word) is not None
            label = None if is_illness else healthy
        else:
            is_illness = label != healthy
        if denied:
            is_illness_denied |= is_illness
        elif label is not None:
            named.append(label)
    if not named and is_illness_denied and healthy is not None:
        return (healthy,)
    return tuple(dict.fromkeys(named))


def _is_denied(text: str, place: int) -> bool:
    """Whether something before this place, in the same part of the sentence, denies it.

    A comma ends what is denied, but in a list: "no effusion, mass or pneumonia".
    """
    sentence = re.split(r"[.;:]", text[:place])[-1]
    if re.search(r"\bn?or\b[^,]*$", sentence):
        return re.search(NEGATION, sentence) is not None
    return re.search(NEGATION, sentence.rpartition(",")[2]) is not None


@cache
def _names(set_name: str) -> tuple[re.Pattern[str], dict[str, str]]:
    """What finds all names and common words, the longest first; and the class of each name."""
    labels: dict[str, str] = {}
    for key, names in FINDINGS[set_name].items():
        label = key.partition("/")[0]
        for name in (*names, *kinds(set_name, key), *_OTHER_NAMES.get((set_name, key), ())):
            labels.setdefault(name.lower(), label)
    names_first = sorted(labels, key=len, reverse=True)
    alternatives = [*map(re.escape, names_first), _ILLNESS, _HEALTHY]
    return re.compile(rf"(?<![\w-])(?:{'|'.join(alternatives)})(?!\w)"), labels


def _healthy_class(set_name: str) -> str | None:
    return "non_covid" if set_name == "ct_covid" else normal_class(set_name)
