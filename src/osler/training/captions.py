"""What is said about the images of the pack: captions for the encoder, talk for the decoder.

Everything here is a pure function of an image's record and a random generator. Nothing is said
that the labels do not give, nothing that cannot be seen (age, sex, history), and never how a
diagnosis was made, which goes with the class.
"""

import random
import re

from osler.evaluation.naming import FINDINGS, class_path, findings, modalities, studies, study_path
from osler.evaluation.naming import body_parts as body_parts_of
from osler.evaluation.prompts import normal_class
from osler.ingest.image_pack import PackedImage
from osler.training import phrases

_WORDS_MOST = 40


def class_key(item: PackedImage) -> str:
    """What the image is, from coarse to fine, as "CR/CHEST/cxr_kermany/pneumonia/virus".

    Two images with the same key may bear the same caption.
    """
    return class_path(item)


def is_true_of(caption_key: str, image_key: str) -> bool:
    """Whether a caption is true of an image: all that it tells is a first part of the image's key.

    >>> is_true_of("CR/CHEST", "CR/CHEST/cxr_kermany/normal")
    True
    """
    return f"{image_key}/".startswith(f"{caption_key}/")


def contrastive_caption(item: PackedImage, rng: random.Random) -> tuple[str, str]:
    """Write a short caption, and say which images it is true of.

    Args:
        item: the image's record.
        rng: chooses the wording.

    Returns:
        The caption, at most 40 words, and its key: the part of `class_key(item)` that it tells.
        The sigmoid loss takes every pair with `is_true_of(key, class_key(image))` as a match.
    """
    study = rng.choice(studies(item))
    key = class_key(item)
    if not findings(item):
        return _study_caption(item, study, key, rng)
    if rng.random() < 0.06:
        return study, study_path(item)
    normal = normal_class(item.set_name)
    if key.endswith(f"{item.set_name}/{normal}") and rng.random() < 0.4:
        return f"{rng.choice(('normal', 'healthy'))} {study}", key
    if item.labels.get("finding") == "pneumonia" and rng.random() < 0.5:
        name = rng.choice(FINDINGS["cxr_kermany"]["pneumonia"])
        return _with_finding(study, name, rng), key.rpartition("/")[0]
    return _with_finding(study, _finding(item, rng), rng), key


def instruction_pairs(item: PackedImage, rng: random.Random) -> list[tuple[str, str]]:
    """Make questions about an image with their answers, the free description first.

    Which questions are asked, and how, changes from call to call; "yes" and "no" are equally often
    right for every kind of yes-or-no question over a set with the pack's class frequencies.

    Args:
        item: the image's record.
        rng: chooses questions and wording.

    Returns:
        Pairs of question and answer, the first always a description.
    """
    pairs = [
        (_question(phrases.DESCRIBE, item, rng), describe(item, rng)),
        (_question(phrases.STUDY, item, rng), f"{_sentence(_a(rng.choice(studies(item))))}"),
        (_question(phrases.BODY_PART, item, rng), _body_part_answer(item, rng)),
        *_is_this_body_part(item, rng),
    ]
    if modalities(item):
        pairs.append((_question(phrases.MODALITY, item, rng), _modality_answer(item, rng)))
        pairs += _is_this_modality(item, rng)
    if findings(item):
        pairs.append((_question(phrases.FINDING, item, rng), finding_sentence(item, rng)))
        pairs += _is_there(item, rng)
        pairs.append(_choice(item, rng))
    if isinstance(item.text, list):
        own = [(entry["question"], entry["answer"]) for entry in item.text]
        pairs += [(_sentence(q, "?"), _sentence(str(a))) for q, a in rng.sample(own, len(own))]
    return [(_roughen(question, rng), answer) for question, answer in pairs]


def describe(item: PackedImage, rng: random.Random) -> str:
    """Describe an image in one to three sentences: modality and body part, then the finding."""
    study = rng.choice(studies(item))
    opening = rng.choice(("This is {a}.", "{A}.", "The image is {a}.", "{A} is shown."))
    first = opening.format(a=_a(study), A=_capital(_a(study)))
    rest = finding_sentence(item, rng) if findings(item) else _own_sentence(item)
    return f"{first} {rest}".strip()


def finding_sentence(item: PackedImage, rng: random.Random) -> str:
    """Say in one sentence what an image with known findings shows."""
    label = _coarse(item)
    if label == normal_class(item.set_name) or label == "non_covid":
        return rng.choice(phrases.NEGATIVE[item.set_name])
    return rng.choice(phrases.POSITIVE[item.set_name]).format(finding=_finding(item, rng))


def _study_caption(item: PackedImage, study: str, key: str, rng: random.Random) -> tuple[str, str]:
    plane = str(item.meta.get("plane", "")).lower()
    own = _own_sentence(item)
    if own and rng.random() < 0.6:
        words = own.split() if rng.random() < 0.3 else f"{study}. {own}".split()
        return " ".join(words[:_WORDS_MOST]), key
    if plane in ("axial", "coronal", "sagittal") and rng.random() < 0.5:
        return f"{plane} {study}", key.rpartition("/")[0]
    return study, study_path(item)


def _with_finding(study: str, finding: str, rng: random.Random) -> str:
    return rng.choice(phrases.CAPTION).format(study=study, finding=finding)


def _finding(item: PackedImage, rng: random.Random) -> str:
    """A phrase for the finding; the eye's own keywords where they tell more than the class."""
    eye = item.labels.get("eye", ["N"])
    often = 0.7 if "O" in eye else 0.5
    if isinstance(item.text, str) and eye != ["N"] and rng.random() < often:
        return _keywords(item.text)
    return rng.choice(findings(item))


def _keywords(text: str) -> str:
    # "lens dust" is dirt on the camera; the keywords leave out what kind of retinopathy is meant.
    words = [word.strip() for word in text.split(",") if word.strip() != "lens dust"]
    named = [
        re.sub(r"non ?proliferative retinopathy", "nonproliferative diabetic retinopathy", word)
        for word in dict.fromkeys(words)
    ]
    return " and ".join(named)


def _own_sentence(item: PackedImage) -> str:
    """The first sentence of an image's own caption, or nothing where it tells too little."""
    if item.set_name != "medpix2" or not isinstance(item.text, str):
        return ""
    text = re.sub(r"^[\s\-\u2022*]*(?:\d+[.)]\s*)?", "", item.text)
    first = re.split(r"(?<=[a-z)][.!?])\s|\n", text, maxsplit=1)[0]
    words = " ".join(first.split()).split(" ")
    return _sentence(" ".join(words)) if 4 <= len(words) <= 30 else ""


def _coarse(item: PackedImage) -> str:
    steps = class_path(item).split(f"{item.set_name}/", 1)[1]
    return steps.split("/")[0]


def _body_part_answer(item: PackedImage, rng: random.Random) -> str:
    part = rng.choice(body_parts_of(item))
    return rng.choice(("The {part}.", "It shows the {part}.", "This is the {part}.")).format(
        part=part
    )


def _modality_answer(item: PackedImage, rng: random.Random) -> str:
    name = rng.choice(modalities(item))
    return rng.choice(("{A}.", "This is {a}.", "It is {a}.")).format(
        a=_a(name), A=_capital(_a(name))
    )


def _asked(right: str, frequencies: dict[str, int], rng: random.Random) -> str | None:
    """Choose which class to ask about, so that yes and no are equally likely for each class.

    With class frequencies p, an image of class t is asked about t with weight 1 - p_t and about
    another class c with weight p_c: the class c then gets p_c (1 - p_c) of yes and of no. An image
    of a frequent class goes unasked now and then, which keeps these weights true.
    """
    total = sum(frequencies.values())
    rest = 1 - frequencies[right] / total
    if rng.random() > rest / (1 - min(frequencies.values()) / total):
        return None
    if rng.random() < 0.5:
        return right
    others = [name for name in frequencies if name != right]
    return rng.choices(others, [frequencies[name] for name in others])[0]


def _is_this_modality(item: PackedImage, rng: random.Random) -> list[tuple[str, str]]:
    asked = _asked(item.modality, phrases.MODALITY_COUNTS, rng)
    if asked is None:
        return []
    name = phrases.MODALITY_ASKED[asked]
    question = rng.choice(phrases.IS_THIS).format(a=_a(name), noun="image")
    said = "Yes" if asked == item.modality else "No"
    return [(question, f"{said}, this is {_a(rng.choice(studies(item)))}.")]


def _is_this_body_part(item: PackedImage, rng: random.Random) -> list[tuple[str, str]]:
    region = "HEAD" if item.body_part == "BRAIN" else item.body_part
    asked = _asked(region, phrases.BODY_PART_COUNTS, rng)
    # Genitourinary scans are said to show "abdomen and pelvis": neither is a clear no to the other.
    if asked is None or {asked, region} == {"ABDOMEN", "PELVIS_GU"}:
        return []
    question = rng.choice(phrases.IS_THIS_PART).format(part=phrases.BODY_PART_ASKED[asked])
    said = "Yes" if asked == region else "No"
    return [(question, f"{said}, this is {_a(rng.choice(studies(item)))}.")]


def _is_there(item: PackedImage, rng: random.Random) -> list[tuple[str, str]]:
    counts = phrases.CLASS_COUNTS[item.set_name]
    label = _coarse(item)
    if label not in counts:  # an eye with several diseases
        return []
    asked = _asked(label, counts, rng)
    if asked is None:
        return []
    if asked in phrases.ASK_NORMAL.get(item.set_name, {}):
        question = rng.choice(phrases.ASK_NORMAL[item.set_name][asked])
    else:
        name = rng.choice(FINDINGS[item.set_name][asked][:1] * 2 + FINDINGS[item.set_name][asked])
        name = _a(name) if item.set_name in phrases.COUNTED else name
        question = rng.choice(phrases.IS_THERE).format(finding=name)
    said = "Yes" if asked == label else "No"
    sentence = finding_sentence(item, rng)
    answer = f"{said}, {_uncapital(sentence)}" if rng.random() < 0.7 else f"{said}."
    return [(question, answer)]


def _choice(item: PackedImage, rng: random.Random) -> tuple[str, str]:
    """A question with its options: lettered, or one or the other."""
    names = {
        label: known[0] for label, known in FINDINGS[item.set_name].items() if "/" not in label
    }
    right = findings(item)[0]
    if item.set_name == "cxr_kermany" and rng.random() < 0.4:
        names = {
            "normal": "normal",
            "bacteria": "bacterial pneumonia",
            "virus": "viral pneumonia",
        }
    elif item.set_name == "cxr_kermany":
        names = {"normal": "normal", "pneumonia": "pneumonia"}
        right = "pneumonia"
    if _coarse(item) == "normal" and item.set_name == "cxr_kermany":
        right = "normal"
    wrong = [name for name in names.values() if name != right]
    options = [right, *rng.sample(wrong, min(len(wrong), rng.randint(1, 3)))]
    rng.shuffle(options)
    if len(options) == 2 and rng.random() < 0.5:
        question = rng.choice(phrases.EITHER_OR).format(one=options[0], other=options[1])
        return question, _sentence(right)
    lettered = [f"{letter}) {name}" for letter, name in zip("ABCD", options, strict=False)]
    question = f"{rng.choice(phrases.CHOICE)} Options: {' '.join(lettered)}"
    return question, _sentence(lettered[options.index(right)])


def _question(forms: tuple[str, ...], item: PackedImage, rng: random.Random) -> str:
    own = phrases.NOUNS.get(item.modality, ("image",))
    noun = rng.choice(own) if rng.random() < 0.4 else rng.choice(("image", "image", "picture"))
    return rng.choice(forms).format(noun=noun)


def _roughen(question: str, rng: random.Random) -> str:
    """Write a question now and then as people type: in lower case, unended, with a role first."""
    chance = rng.random()
    if chance < 0.06:
        return question.lower()
    if chance < 0.14:
        return question.rstrip("?.")
    if chance < 0.20:
        return f"{rng.choice(phrases.ROLES)} {question}"
    return question


def _a(noun: str) -> str:
    spoken_vowel = noun.startswith(("X-", "MR", "H&E")) or noun[0].lower() in "aeiou"
    return f"{'an' if spoken_vowel else 'a'} {noun}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _uncapital(text: str) -> str:
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def _sentence(text: str, mark: str = ".") -> str:
    text = " ".join(text.split())
    return _capital(text) if text.endswith((".", "?", "!")) else f"{_capital(text)}{mark}"
