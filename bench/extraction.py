"""An extraction for benchmarks: a synthetic record, the answer that copies from it, and a model
that gives just this answer."""

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from osler.inference.runner import Chunk, Runner
from osler.models.config import MedGemmaConfig
from osler.preprocess.tokenizer import Tokenizer

_DRUGS = (
    ("amlodipine", "5 mg", "by mouth", "once daily", "hypertension"),
    ("metformin", "850 mg", "by mouth", "twice daily with meals", "type 2 diabetes"),
    ("atorvastatin", "40 mg", "by mouth", "at night", "hyperlipidaemia"),
    ("apixaban", "5 mg", "by mouth", "twice daily", "atrial fibrillation"),
    ("furosemide", "20 mg", "by mouth", "every morning", "heart failure"),
    ("levothyroxine", "75 micrograms", "by mouth", "before breakfast", "hypothyroidism"),
    ("salbutamol", "100 micrograms", "inhaled", "as needed, up to four times daily", "asthma"),
)


def extraction(tokenizer: Tokenizer, tokens: int) -> tuple[list[int], list[int]]:
    """Ids of a record with a question about it, and of the answer.

    Args:
        tokenizer: the model's.
        tokens: of the answer; it is cut there.
    """
    lines = [
        f"{2012 + index}-03-{11 + index} Started {drug} {dose} {route} {times} for {reason}; "
        "tolerated well, no adverse effects reported at review."
        for index, (drug, dose, route, times, reason) in enumerate(_DRUGS)
    ]
    question = "\nList the medicines as JSON, each with its dose and the line that says so.\n"
    answer = [
        {"name": drug, "dose": dose, "evidence": line}
        for (drug, dose, *_), line in zip(_DRUGS, lines, strict=True)
    ]
    ids = tokenizer.encode(json.dumps({"medications": answer}, indent=2))
    if len(ids) < tokens:
        raise ValueError(f"the answer has {len(ids)} tokens only")
    return tokenizer.encode("\n".join(lines) + question), ids[:tokens]


class ScriptedRunner:
    """A model that works as it does, and then says what it is told to."""

    def __init__(self, runner: Runner, prompt_tokens: int, answer: Sequence[int]) -> None:
        """Wrap a runner for one request.

        Args:
            runner: does all the work.
            prompt_tokens: positions before the answer.
            answer: ids.
        """
        self._runner = runner
        self._first, self._answer = prompt_tokens - 1, answer
        self.embed_images = runner.embed_images
        self.page_bytes, self.free_bytes = runner.page_bytes, runner.free_bytes
        self.allocate, self.copy_pages = runner.allocate, runner.copy_pages

    @property
    def config(self) -> MedGemmaConfig:
        """The model's."""
        return self._runner.config

    def forward(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        """As the model's, but the token of the script scores best."""
        logits_RV = self._runner.forward(chunks)
        (chunk,) = chunks
        end = chunk.start + len(chunk.ids)
        for row, position in enumerate(range(end - chunk.logits, end)):
            place = position - self._first
            if place < len(self._answer):
                logits_RV[row, self._answer[place]] = np.finfo(np.float32).max / 2
        return logits_RV
