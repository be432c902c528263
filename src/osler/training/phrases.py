"""The wordings of questions and answers about images, and the class counts that balance them.

Questions are asked in many ways so that the nano models understand ways that are not in here.
"""

CAPTION = (
    "{study} showing {finding}",
    "{study} with {finding}",
    "{study}: {finding}",
    "{finding} on {study}",
    "{study} of a patient with {finding}",
    "{study}, {finding}",
    "{finding}",
    "{finding}",
)

# "{noun}" is the image's own kind of picture or, more often, just "image".
NOUNS = {
    "CR": ("X-ray", "X-ray", "radiograph", "chest X-ray", "film"),
    "CT": ("CT", "CT scan", "scan"),
    "MR": ("MRI", "MRI scan", "scan"),
    "OT": ("scan",),
    "US": ("ultrasound", "sonogram", "scan"),
    "XC": ("photo", "skin photo", "dermoscopic image"),
    "OP": ("photo", "fundus photo", "retinal image"),
    "SM": ("slide", "histology image", "section"),
}
ROLES = (
    "You are an expert radiologist.",
    "You are a helpful medical assistant.",
    "As a doctor:",
    "Please help me.",
)

DESCRIBE = (
    "Describe this {noun}.",
    "Describe this {noun}",
    "Describe the {noun}.",
    "Describe what you see.",
    "Please describe this {noun}.",
    "Can you describe this {noun}?",
    "Describe this {noun} in detail.",
    "Briefly describe this {noun}.",
    "Give a short description of this {noun}.",
    "What does this {noun} show?",
    "What does this show?",
    "What is shown in this {noun}?",
    "What do you see in this {noun}?",
    "What can be seen here?",
    "What is this?",
    "Tell me about this {noun}.",
    "Explain this {noun}.",
    "Interpret this {noun}.",
    "Summarize this {noun}.",
    "Write a short report for this {noun}.",
    "Write a brief radiology-style report.",
    "Write the findings of this {noun}.",
    "Report the findings.",
    "Caption this {noun}.",
    "In your own words, what is in this {noun}?",
    "Name the modality, the body part and the finding.",
)
STUDY = (
    "What kind of {noun} is this?",
    "What type of medical image is this?",
    "What kind of study is this?",
    "Which examination is this?",
    "What type of scan is this, and of which body part?",
    "Name the modality and the body part.",
    "What modality and body region are shown?",
    "Identify this {noun}.",
)
MODALITY = (
    "What imaging modality is this?",
    "Which imaging modality was used?",
    "What is the modality of this {noun}?",
    "How was this image taken?",
    "What imaging technique was used here?",
    "Which modality is shown?",
    "Name the imaging modality.",
    "By what method was this picture made?",
)
BODY_PART = (
    "Which body part is shown?",
    "What body part is this?",
    "Which organ is shown in this {noun}?",
    "What part of the body does this {noun} show?",
    "What organ is seen here?",
    "Which anatomical region is imaged?",
    "Name the body part.",
    "Where in the body is this?",
)
FINDING = (
    "What is the finding?",
    "What are the findings?",
    "What is the diagnosis?",
    "What is the most likely diagnosis?",
    "What abnormality is seen?",
    "Is anything abnormal in this {noun}?",
    "What disease does this {noun} show?",
    "What is your impression?",
    "Give the impression.",
    "What is wrong here, if anything?",
    "Are there any abnormalities?",
)
IS_THIS = (
    "Is this {a}?",
    "Is the {noun} {a}?",
    "Was this {noun} made as {a}?",
    "Am I looking at {a}?",
    "Would you call this {a}?",
    "Does this look like {a}?",
)
IS_THIS_PART = (
    "Is this the {part}?",
    "Does this image show the {part}?",
    "Is this an image of the {part}?",
    "Is the {part} shown here?",
    "Am I looking at the {part}?",
    "Is the {part} imaged?",
)
IS_THERE = (
    "Is there {finding}?",
    "Is there any evidence of {finding}?",
    "Does this image show {finding}?",
    "Do you see {finding}?",
    "Does this patient have {finding}?",
    "Is {finding} present?",
    "Are there signs of {finding}?",
    "Is this consistent with {finding}?",
    "Can you see {finding} here?",
    "Yes or no: is there {finding}?",
    "Is there {finding}? Answer yes or no.",
)
CHOICE = (
    "What does the image show?",
    "Which is the most likely diagnosis?",
    "Choose the right answer.",
    "Which of these is seen?",
    "Which option fits the image best?",
    "Classify this image.",
)
EITHER_OR = (
    "Is this {one} or {other}?",
    "Does the image show {one} or {other}?",
    "Which is it: {one} or {other}?",
    "{one} or {other}?",
    "Answer with one of: {one}, {other}.",
    "Would you say {one} or {other}?",
)

_HEALTHY = (
    "Is this image normal?",
    "Does this look normal?",
    "Is this a normal image?",
    "Is this a healthy patient?",
    "Would you call this normal?",
    "Is everything normal here?",
)
ASK_NORMAL: dict[str, dict[str, tuple[str, ...]]] = {
    "cxr_kermany": {
        "normal": (
            *_HEALTHY,
            "Is this a normal chest X-ray?",
            "Is this X-ray normal?",
            "Are the lungs clear?",
            "Are the lungs normal?",
        )
    },
    "fundus_odir512": {"N": (*_HEALTHY, "Is this fundus normal?", "Is the retina normal?")},
    "histo_lc25000_lung": {"normal": (*_HEALTHY, "Is this tissue normal?", "Is this benign?")},
    "us_busi": {"normal": (*_HEALTHY, "Is the breast tissue normal?")},
    "mri_brain_tumor": {
        "no_tumor": (
            "Is this brain free of tumor?",
            "Is it right that no tumor is seen?",
            "Is the scan without a tumor?",
            "Can a tumor be ruled out on this image?",
        )
    },
    "ct_covid": {
        "non_covid": (
            "Is this scan free of COVID-19?",
            "Is it right that there is no COVID-19?",
            "Are the lungs free of signs of COVID-19?",
            "Does this look like something other than COVID-19?",
        )
    },
}

POSITIVE: dict[str, tuple[str, ...]] = {
    "cxr_kermany": (
        "There are opacities consistent with {finding}.",
        "The lungs show opacities consistent with {finding}.",
        "Findings are consistent with {finding}.",
        "It shows {finding}.",
    ),
    "derm_ham10000": (
        "The lesion is consistent with {finding}.",
        "The most likely diagnosis is {finding}.",
        "It shows a lesion consistent with {finding}.",
        "Findings are consistent with {finding}.",
    ),
    "fundus_odir512": (
        "Findings are consistent with {finding}.",
        "It shows {finding}.",
        "There are signs of {finding}.",
        "The eye shows {finding}.",
    ),
    "mri_brain_tumor": (
        "There is a mass consistent with {finding}.",
        "A brain tumor is seen, consistent with {finding}.",
        "Findings are consistent with {finding}.",
        "The most likely diagnosis is {finding}.",
    ),
    "histo_lc25000_lung": (
        "The tissue shows {finding}.",
        "Findings are consistent with {finding}.",
        "The cells are consistent with {finding}.",
        "The most likely diagnosis is {finding}.",
    ),
    "ct_covid": (
        "Findings are consistent with {finding}.",
        "The lungs show changes consistent with {finding}.",
        "There are signs of {finding}.",
    ),
    "us_busi": (
        "Findings are consistent with a {finding}.",
        "There is a lesion consistent with a {finding}.",
        "It shows a {finding}.",
    ),
}
NEGATIVE: dict[str, tuple[str, ...]] = {
    "cxr_kermany": (
        "The lungs are clear, with no sign of pneumonia.",
        "No pneumonia is seen.",
        "The lungs are clear.",
        "There is no pneumonia; the image is normal.",
        "Normal, with clear lungs.",
    ),
    "fundus_odir512": (
        "The fundus is normal.",
        "Normal retina, with no sign of disease.",
        "No abnormality is seen.",
    ),
    "mri_brain_tumor": (
        "No tumor is seen.",
        "There is no brain tumor.",
        "No sign of a tumor.",
    ),
    "histo_lc25000_lung": (
        "The tissue is normal, with no sign of cancer.",
        "Benign lung tissue, with no cancer.",
        "No cancer is seen; the tissue is normal.",
    ),
    "ct_covid": (
        "There are no signs of COVID-19.",
        "No COVID-19 is seen.",
        "Findings do not suggest COVID-19.",
    ),
    "us_busi": (
        "No mass is seen.",
        "The breast tissue is normal.",
        "Normal breast tissue, with no mass.",
    ),
}

# Findings that are things one counts, and so take an article in a question.
COUNTED = ("derm_ham10000", "mri_brain_tumor", "us_busi")

# How often each class occurs in the pack's training images.
CLASS_COUNTS: dict[str, dict[str, int]] = {
    "cxr_kermany": {"normal": 1192, "pneumonia": 3140},
    "derm_ham10000": {
        **{"nv": 1960, "mel": 833, "bkl": 796, "bcc": 365},
        **{"akiec": 226, "vasc": 106, "df": 90},
    },
    "fundus_odir512": {
        # Not "O": to ask whether there is "another" abnormality makes no sense.
        **{"N": 2148, "D": 1062, "C": 195, "M": 177},
        **{"G": 173, "A": 166, "H": 79},
    },
    "mri_brain_tumor": {"pituitary": 1291, "glioma": 1197, "meningioma": 1111, "no_tumor": 545},
    "histo_lc25000_lung": {"scc": 979, "normal": 954, "aca": 843},
    "ct_covid": {"non_covid": 297, "covid19": 284},
    "us_busi": {"benign": 335, "malignant": 144, "normal": 97},
}
MODALITY_COUNTS = {
    **{"OP": 4791, "MR": 4881, "XC": 4376, "CR": 4394},
    **{"SM": 2776, "CT": 1491, "US": 576},
}
MODALITY_ASKED = {
    "CR": "X-ray",
    "CT": "CT scan",
    "MR": "MRI",
    "US": "ultrasound",
    "XC": "skin photo",
    "OP": "fundus photo",
    "SM": "histology slide",
}
BODY_PART_COUNTS = {
    **{"HEAD": 4887, "EYE": 4791, "CHEST": 5238, "SKIN": 4376, "LUNG": 2776},
    **{"BREAST": 576, "ABDOMEN": 304, "SPINE_MSK": 257, "PELVIS_GU": 123},
}
BODY_PART_ASKED = {
    "CHEST": "chest",
    "ABDOMEN": "abdomen",
    "HEAD": "brain",
    "SKIN": "skin",
    "EYE": "eye",
    "LUNG": "lung tissue",
    "BREAST": "breast",
    "PELVIS_GU": "pelvis",
    "SPINE_MSK": "spine or a joint",
}
