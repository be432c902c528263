"""How MedGemma was taught to see Hounsfield units as colours.

Source: MedGemma technical reports (arXiv 2507.05201 for version 1, arXiv 2604.05081 for 1.5). The
windows are not the ones of the public serving code of version 1, whose green one is a narrow
(175, 80) by mistake.
"""

from osler.errors import PromptError

Window = tuple[float, float]


def _around(level_hu: float, width_hu: float) -> Window:
    return level_hu - width_hu / 2, level_hu + width_hu / 2


# Red shows everything from air to bone, green soft tissue, blue the brain; each as (low, high).
CT_WINDOWS_HU: dict[str, tuple[Window, Window, Window]] = {
    "1": (_around(-100, 2250), _around(40, 350), _around(40, 80)),
    "1.5": ((-1024, 1024), (-135, 215), (0, 80)),
}


def ct_windows_hu(medgemma_version: str) -> tuple[Window, Window, Window]:
    """The windows of the red, green and blue channel, each as (low, high).

    Raises:
        PromptError: a version other than "1" and "1.5".

    >>> ct_windows_hu("1")
    ((-1225.0, 1025.0), (-135.0, 215.0), (0.0, 80.0))
    """
    if medgemma_version not in CT_WINDOWS_HU:
        raise PromptError(f"version is {medgemma_version!r}; it must be '1' or '1.5'")
    return CT_WINDOWS_HU[medgemma_version]
