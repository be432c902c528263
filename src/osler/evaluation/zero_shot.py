"""Classification by the encoder without training: images against the mean of each label's prompts.

Shapes: N images, D embedding size, C labels.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from osler.evaluation.figure import Figure, balanced
from osler.evaluation.prompts import zero_shot_label, zero_shot_prompts
from osler.ingest.image import Image
from osler.ingest.image_pack import PackedImage
from osler.ingest.read import read_image_bytes

# Besides all its labels at once, the eyes that are healthy against the commonest disease.
_PAIRS = {"fundus_odir512": (("N", "D"),)}


class Encoder(Protocol):
    """What embeds images and texts as rows of length 1; `osler.load_encoder` gives one."""

    def embed_images(self, images: Sequence[Image], /) -> NDArray[np.float32]: ...

    def embed_texts(self, texts: Sequence[str], /) -> NDArray[np.float32]: ...


def zero_shot_figures(encoder: Encoder, items: Sequence[PackedImage]) -> Iterator[Figure]:
    """Measure zero-shot classification, set by set.

    Args:
        encoder: the model.
        items: validation images of any of the sets.

    Yields:
        Balanced accuracy for each set among the items, over all of its labels, and over the
        pairs of labels that matter by themselves.
    """
    for set_name, prompts in zero_shot_prompts().items():
        labelled = [(item, zero_shot_label(item)) for item in items if item.set_name == set_name]
        of_set = [(item, label) for item, label in labelled if label is not None]
        if not of_set:
            continue
        labels_C = list(prompts)
        classes_CD = np.stack([_mean_direction(encoder, prompts[label]) for label in labels_C])
        images = [read_image_bytes(item.image_bytes, f"{item.key}.webp") for item, _ in of_set]
        scores_NC = encoder.embed_images(images) @ classes_CD.T
        for chosen in (tuple(labels_C), *_PAIRS.get(set_name, ())):
            columns = [labels_C.index(label) for label in chosen]
            rows = [row for row, (_, label) in enumerate(of_set) if label in chosen]
            best = scores_NC[np.ix_(rows, columns)].argmax(axis=1)
            yield balanced(
                f"{set_name}, {len(chosen)} labels"
                + (f" ({' / '.join(chosen)})" if len(chosen) == 2 else ""),
                [of_set[row][1] for row in rows],
                [chosen[column] for column in best],
                [of_set[row][0].group for row in rows],
                classes=len(chosen),
            )


def _mean_direction(encoder: Encoder, prompts: Sequence[str]) -> NDArray[np.float32]:
    """The label's prompts as one vector of length 1."""
    mean_D = encoder.embed_texts(prompts).mean(axis=0)
    return np.asarray(mean_D / np.linalg.norm(mean_D), dtype=np.float32)
