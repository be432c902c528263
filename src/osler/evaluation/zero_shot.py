"""Classification by the encoder without training, over ensembles of prompts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from osler.evaluation.figure import Figure, balanced
from osler.evaluation.prompts import zero_shot_label, zero_shot_prompts
from osler.ingest.image import Image
from osler.ingest.image_pack import PackedImage
from osler.ingest.read import read_image_bytes
from osler.tasks.answer import Classification

# Besides all its labels at once, the eyes that are healthy against the commonest disease.
_PAIRS = {"fundus_odir512": (("N", "D"),)}


class Classifier(Protocol):
    """What says how well labels fit images; `osler.load_encoder` gives one."""

    def classify(
        self, images: Sequence[Image], labels: Mapping[str, Sequence[str]], /
    ) -> Sequence[Classification]:
        """One result an image, in their order; labels come with their prompts."""
        ...


def zero_shot_figures(encoder: Classifier, items: Sequence[PackedImage]) -> Iterator[Figure]:
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
        images = [read_image_bytes(item.image_bytes, f"{item.key}.webp") for item, _ in of_set]
        results = encoder.classify(images, prompts)
        for chosen in (tuple(prompts), *_PAIRS.get(set_name, ())):
            rows = [row for row, (_, label) in enumerate(of_set) if label in chosen]
            # The rest of a softmax does not change which of two labels is the more probable.
            said = [max(chosen, key=results[row].probabilities.__getitem__) for row in rows]
            pair = f" ({' / '.join(chosen)})" if len(chosen) == 2 else ""
            yield balanced(
                f"Zero-shot, {set_name}, {len(chosen)} labels{pair}",
                [of_set[row][1] for row in rows],
                said,
                [of_set[row][0].group for row in rows],
                classes=len(chosen),
            )
