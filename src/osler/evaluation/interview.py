"""Asks a model many questions about images, in batches."""

from collections.abc import Callable, Iterable
from itertools import groupby

from tqdm import tqdm

from osler.evaluation.embedded import decode
from osler.inference.generate import complete
from osler.inference.sampling import SamplingParams
from osler.ingest.image_pack import PackedImage
from osler.preprocess.processor import Prompt
from osler.tasks.assistant import Assistant

Request = tuple[PackedImage, str]
# What the model said of an image to a question that it was asked.
Said = Callable[[PackedImage, str], str]

PARAMS = SamplingParams(max_new_tokens=64)
_BATCH = 48


def interview(assistant: Assistant, requests: Iterable[Request]) -> Said:
    """Ask all questions, always taking the best token.

    Answers in a batch are the same as alone; it is only faster. An image's questions are asked
    together, so that it is looked at once.

    Args:
        assistant: the model.
        requests: images with questions; the same one twice is asked once.

    Raises:
        OslerError: an image that cannot be read, or a question that is too long.
    """
    asked: dict[tuple[str, str], dict[str, PackedImage]] = {}
    for item, question in requests:
        asked.setdefault((item.set_name, item.key), {})[question] = item
    pairs = [(item, question) for of_image in asked.values() for question, item in of_image.items()]
    answers: dict[tuple[str, str, str], str] = {}
    for start in tqdm(range(0, len(pairs), _BATCH), desc="answering", unit="batch"):
        batch = pairs[start : start + _BATCH]
        generations = complete(assistant.engine, _prompts(assistant, batch), PARAMS)
        for (item, question), generation in zip(batch, generations, strict=True):
            answers[item.set_name, item.key, question] = generation.text
    return lambda item, question: answers[item.set_name, item.key, question]


def _prompts(assistant: Assistant, batch: Iterable[Request]) -> list[Prompt]:
    prompts = []
    for _, of_image in groupby(batch, key=lambda pair: pair[0].key):
        pairs = list(of_image)
        image = decode(pairs[0][0])
        for _, question in pairs:
            content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
            prompts.append(assistant.processor([{"role": "user", "content": content}]))
    return prompts
