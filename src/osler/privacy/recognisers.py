"""Patterns of what identifies somebody in free text, where nothing else says so.

Each pattern finds one kind; the group "x", where there is one, is what is replaced, and the rest
its surroundings. They are ordered: what an earlier one replaced, a later one does not see.
"""

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_FLAGS = re.MULTILINE

MONTHS = (
    "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|"
    "sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?"
)
# Quantifiers have bounds, and "+" behind them where looking twice would find no more: no text may
# take longer than in proportion to its length.
_CAP = r"\b[A-ZÀ-ÖØ-Þ][\w'’\-]{1,40}+"
_PARTICLE = r"(?:(?:van|von|de|der|den|la|le|du|di|da|dos|del|bin|al|el|ter|zu|of)[ ]){0,2}"
# Words and initials, with commas between them; at most five.
_NAME = rf"{_CAP}(?:,?[ ]{_PARTICLE}(?:{_CAP}|[A-Z]\b\.?)){{0,4}}"
_INITIALS_NAME = rf"(?:[A-Z]\.[ ]?){{1,2}}{_CAP}"
_NUMBER = r"(?:no|nr|num|number|id|#)"


@dataclass(frozen=True)
class Recogniser:
    """One kind of thing, the pattern that finds it, and what stands there instead."""

    kind: str
    pattern: re.Pattern[str]

    def found_in(self, text: str) -> list[str]:
        """What it would replace."""
        return [match["x"] for match in self.pattern.finditer(text)]

    def redact(self, text: str) -> tuple[str, int]:
        """The text without it, and how often it was there."""

        def replaced(match: re.Match[str]) -> str:
            if "x" not in self.pattern.groupindex:
                return f"[{self.kind}]"
            start, end = match.start("x") - match.start(), match.end("x") - match.start()
            return f"{match[0][:start]}[{self.kind}]{match[0][end:]}"

        return self.pattern.subn(replaced, text)


def _recogniser(kind: str, pattern: str, flags: int = re.IGNORECASE) -> Recogniser:
    return Recogniser(kind, re.compile(pattern, flags | _FLAGS))


NETWORK = (
    _recogniser("EMAIL", r"[\w.+\-]{1,64}@[\w\-]{1,63}(?:\.[\w\-]{1,63}){1,5}"),
    _recogniser("URL", r"\b(?:https?|ftp|file)://[^\s<>\"']+|\bwww\.[^\s<>\"']+"),
    _recogniser("ADDRESS", r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])"),
    _recogniser("ADDRESS", r"\b(?:[0-9a-f]{2}[:\-]){5}[0-9a-f]{2}\b"),
)

NUMBERS = (
    _recogniser("ID", r"(?<![\d\-])\d{3}-\d{2}-\d{4}(?![\d\-])"),
    _recogniser("UID", r"\b[0-2](?:\.\d{1,39}){5,}\b"),
    _recogniser("ID", r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b"),
    _recogniser(
        "PHONE",
        r"\b(?:tel|telephone|phone|ph|fax|mobile|cell|pager|beeper|call(?:ed)?|contact|ext)"
        r"\b[.:#]*(?:[ ](?:is|at|on|no\.?|number|him|her|them)){0,2}[ ]*"
        r"(?P<x>\+?\(?\d[\d ()./\-]{2,18}\d(?:[ ]?(?:x|ext\.?)[ ]?\d{1,6})?)",
    ),
    _recogniser("PHONE", r"(?<![\w+])\+\d{1,3}[ \-.]?(?:\(?\d{1,5}\)?[ \-.]?){1,5}\d{2,5}(?!\w)"),
    _recogniser("PHONE", r"(?<![\w.])(?:1[ \-.])?\(?\d{3}\)?[ \-.]\d{3}[\-. ]\d{4}(?![\w.]\d)"),
    _recogniser("PHONE", r"(?<![\w.\-])\d{3}-\d{4}(?![\w\-])"),
    _recogniser("PHONE", r"(?<![\w.])0\d{2,4}[ /\-]\d{3,4}[ \-]?\d{3,5}(?!\w)"),
    _recogniser(
        "ID",
        r"\b(?:mrn|medical record|record|chart|account|acct|accession|acc|case|claim|policy|member|"
        r"subscriber|insurance|licen[cs]e|passport|ssn|social security|nhs|npi|dea|patient|pat|"
        r"study|visit|encounter|admission|order|requisition|specimen|employee|vin|plate|"
        r"hospital|unit|health plan|beneficiary|group|job|document|dictation|file)[ ]?"
        rf"(?:{_NUMBER})?[.:#]*(?:[ ]is)?[ ]*"
        r"(?P<x>(?=[\w\-/]{0,40}\d)[A-Z0-9][A-Z0-9\-/]{3,40})\b",
    ),
    _recogniser(
        "ID",
        rf"\b(?:serial|s/n|sn|lot|batch|udi|device|model|implant|ref)[ ]?(?:{_NUMBER})?[.:#]*[ ]*"
        r"(?P<x>(?=[\w\-/.]{0,40}\d)[A-Z0-9][A-Z0-9\-/.]{3,40}\w)\b",
    ),
    _recogniser("ID", r"\b(?:id|identifier)[ ]?[:#][ ]*(?P<x>[\w\-/.]{2,})"),
    _recogniser(
        "ID",
        r"(?<![\w.,])(?=[A-Z\-]{0,40}\d)(?=[\w\-]{0,40}[A-Z])[A-Z0-9\-]{0,40}\d{4}[A-Z0-9\-]{0,40}\b",
        0,
    ),
    _recogniser("ID", r"(?<![\w.,])\d{7,}(?![\w.,]\d)"),
    _recogniser("ID", r"(?<![\w.,\-])\d{3,20}-\d{3,20}(?:-\d{1,20}){0,4}(?!\w)"),
)

AGES = (
    _recogniser(
        "AGE OVER 89",
        r"\b(?P<x>9\d|1[0-3]\d)(?=[ \-]?(?:years?|yrs?|y\.?/?o)\b)",
    ),
    _recogniser("AGE OVER 89", r"\b(?:aged?|age:)[ ](?P<x>9\d|1[0-3]\d)\b"),
)

_STREET = (
    "street|st|avenue|ave|road|rd|lane|ln|drive|dr|boulevard|blvd|court|ct|way|place|pl|terrace|"
    "square|sq|highway|hwy|parkway|pkwy|circle|cir|crescent|trail|route|close|alley|row|walk|mews"
)
PLACES = (
    _recogniser(
        "PLACE",
        rf"\b\d{{1,5}}[A-Z]?[ ](?:(?:N|S|E|W|North|South|East|West)\.?[ ])?(?:{_CAP}[ ]){{1,4}}"
        rf"(?i:{_STREET})\b\.?(?:,?[ ](?i:apt|apartment|suite|ste|unit|floor|#)\.?[ ]?\w+)?"
        rf"(?:,[ ]{_CAP}(?:[ ]{_CAP}){{0,2}})?(?:,?[ ][A-Z]{{2}})?(?:,?[ ]\d{{5}}(?:-\d{{4}})?)?",
        0,
    ),
    _recogniser(
        "PLACE",
        r"\b[A-ZÄÖÜ][a-zäöüß\-]+(?:stra(?:ß|ss)e|str\.|weg|platz|allee|gasse|ring|damm|ufer)"
        rf"[ ]\d{{1,4}}[a-z]?(?:,?[ ]\d{{5}}[ ]{_CAP})?",
        0,
    ),
    _recogniser("PLACE", r"\bp\.?[ ]?o\.?[ ]box[ ]\d+"),
    _recogniser(
        "PLACE", rf"\b{_CAP}(?:[ ]{_CAP}){{0,2}},[ ][A-Z]{{2}}(?:,?[ ]\d{{5}}(?:-\d{{4}})?)\b", 0
    ),
    _recogniser("PLACE", r"\b[A-Z]{1,2}\d[A-Z\d]?[ ]\d[A-Z]{2}\b", 0),
    _recogniser("PLACE", r"\b(?:zip(?: code)?|postal code|postcode)[: ]+(?P<x>[\w\-]{4,10})"),
    _recogniser(
        "PLACE",
        rf"\b(?i:lives?|living|resid(?:es|ing|ent)|born|moved|travell?ed|flew|works?)[ ]"
        rf"(?i:in|at|near|from|to|of)[ ](?P<x>{_CAP}(?:,?[ ]{_CAP}){{0,3}})",
        0,
    ),
    _recogniser(
        "PLACE",
        r"\b(?i:man|woman|male|female|lady|gentleman|boy|girl|teacher|worker|student|farmer|driver|"
        rf"engineer|veteran|retiree|native|immigrant|refugee)[ ](?i:from|of)[ ](?P<x>{_CAP}"
        rf"(?:,?[ ]{_CAP}){{0,3}})",
        0,
    ),
    _recogniser(
        "PLACE",
        r"\b(?i:address|city|town|county|birthplace|place of birth|residence)[ ]?:[ ]*"
        r"(?P<x>[^\n;|]+)",
        0,
    ),
)
ORGANIZATIONS = (
    _recogniser(
        "ORGANIZATION",
        rf"\b(?:{_CAP}[ ](?:(?:of|the|and|at|for|&)[ ]){{0,2}}){{1,5}}"
        r"(?:Hospitals?|Medical Cent(?:er|re)|Medical Group|Clinics?|Infirmary|Health System|"
        r"Health Cent(?:er|re)|Healthcare|Hospice|University|College|Nursing Home|Pharmacy|"
        r"General|Memorial|Presbyterian|Methodist|Children['’]s|"
        r"Radiology Associates|Imaging Cent(?:er|re)|Laborator(?:y|ies)|Klinikum|Krankenhaus)\b"
        rf"(?:[ ]of[ ]{_CAP})?",
        0,
    ),
    _recogniser(
        "ORGANIZATION",
        r"\b(?i:hospital|facility|institution|clinic|practice|employer|site|insurer|school)[ ]?"
        r":[ ]*(?P<x>[^\n;|]+)",
        0,
    ),
)

_PERSONS = (
    "patient(?:'s)? name|patient|name|pt|dictated by|transcribed by|signed by|"
    "electronically signed by|reviewed by|verified by|reported by|read by|interpreted by|"
    "performed by|approved by|authenticated by|seen by|attending(?: physician)?|"
    "referring(?: physician)?|ordering(?: physician| provider)?|requesting physician|physician|"
    "primary care(?: physician| provider)?|family doctor|radiologist|pathologist|surgeon|"
    "anesthesiologist|cardiologist|consultant|provider|pcp|gp|technologist|technician|sonographer|"
    "operator|nurse|author|cc|attn|attention|mother|father|wife|husband|son|daughter|brother|"
    "sister|next of kin|emergency contact|contact|spouse|partner|guardian|witness|resident|fellow"
)
_TITLE = r"(?:(?:Dr|DR|Mr|MR|Mrs|MRS|Ms|MS|Prof|PROF)\b\.?[ ]?)?+"
NAMES = (
    _recogniser(
        "NAME",
        r"\b(?:Dr|DR|Mr|MR|Mrs|MRS|Ms|MS|Miss|Mx|Prof|PROF|Professor|Doctor|DOCTOR|Herr|Frau|Mme|"
        r"Mlle|Monsieur|Madame|Señora?|Sra?\.|Dame|Nurse|Sister|Rev|Fr\.)\.?[ ]"
        rf"(?P<x>{_INITIALS_NAME}|{_NAME})",
        0,
    ),
    _recogniser(
        "NAME",
        rf"\b(?i:{_PERSONS})[ ]?[:=][ ]*{_TITLE}"
        rf"(?P<x>{_INITIALS_NAME}|{_NAME})",
        0,
    ),
    _recogniser(
        "NAME",
        r"\b(?i:dictated|transcribed|signed|reviewed|verified|reported|read|interpreted|performed|"
        r"approved|authenticated|seen|accompanied|referred|ordered|requested|witnessed)[ ]"
        r"(?i:by)[ ]"
        rf"(?i:(?:her|his|their|the)[ ]\w+[ ])?{_TITLE}(?P<x>{_INITIALS_NAME}|{_NAME})",
        0,
    ),
    _recogniser("NAME", rf"\b(?i:dear|hi|hello)[ ](?P<x>{_NAME})(?=[,:])", 0),
    _recogniser(
        "NAME",
        r"\b(?:wife|husband|son|daughter|mother|father|brother|sister|partner|spouse|friend|"
        rf"neighbou?r|carer|aunt|uncle|named|called|known as)[ ,]+(?P<x>{_NAME})",
        0,
    ),
    _recogniser(
        "NAME",
        rf"(?P<x>{_NAME}),?[ ](?:M\.?D|D\.?O|R\.?N|P\.?A\.?-?C|N\.?P|Ph\.?D|MBBS|FRCR|FACR|FRCS|"
        r"MRCP|APRN|CRNA|DDS|DPM|LPN|PharmD|RT\(R\))(?![\w])\.?",
        0,
    ),
)

# What stands behind a name that is a disease's, a sign's or a device's.
_EPONYM = re.compile(
    r"(?:['’]s?)?[ \-](?:\w+[ ])?(?:disease|syndrome|sign|tests?|scores?|scale|classification|"
    r"criteria|catheter|line|tube|tumou?r|lymphoma|o?esophagus|thyroiditis|palsy|pouch|fracture|"
    r"manoeuvre|maneuver|stain|grade|grading|staging|phenomenon|ring|node|law|body|bodies|"
    r"procedure|operation|position|view|projection|method|formula|reflex|contracture|ulcer)",
    re.IGNORECASE,
)
_TITLE_WORD = re.compile(r"\b[A-ZÀ-Þ](?:[a-zà-ÿ]+(?:[A-Z][a-zà-ÿ]+)?|[A-Z]{2,})\b")
_REST_OF_NAME = re.compile(rf"(?:,?[ ](?:[A-Z]\.?[ ])?{_PARTICLE}{_CAP}){{0,2}}")
_FAMILY_NAME_BEFORE = re.compile(rf"{_CAP},[ ]$")


def redact_given_names(text: str) -> tuple[str, int]:
    """Replace a common given name, with the words in capitals behind it.

    >>> redact_given_names("Seen with Eleanor Vance today; Allen test normal.")
    ('Seen with [NAME] today; Allen test normal.', 1)
    """
    names = _given_names()
    pieces: list[str] = []
    end = count = 0
    for match in _TITLE_WORD.finditer(text):
        if match.start() < end or match[0].lower() not in names:
            continue
        is_inner = text[match.start() - 1 : match.start()] == "-" == text[match.end() :][:1]
        if is_inner or _EPONYM.match(text, match.end()):  # Charcot-Marie-Tooth
            continue
        rest = _REST_OF_NAME.match(text, match.end())
        assert rest is not None  # it matches nothing, too
        if match[0].isupper() and not rest[0]:
            continue  # in text of capitals only, a word alone says too little
        before = text[end : match.start()]
        pieces += [_FAMILY_NAME_BEFORE.sub("", before), "[NAME]"]
        end = rest.end()
        count += 1
    return "".join(pieces) + text[end:], count


@cache
def _given_names() -> frozenset[str]:
    text = files(__package__).joinpath("given_names.txt").read_text("ascii")
    return frozenset(line for line in text.splitlines() if not line.startswith("#"))
