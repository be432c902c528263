"""Phases 2 and 3 on a tiny decoder, and the sequences that it learns from."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from osler.models.medgemma import MedGemma
from osler.preprocess.processor import Processor
from osler.testing.models import tiny_medgemma
from osler.testing.tokenizers import tiny_medgemma_folder
from osler.training.conversation import TrainingSequence, conversation
from osler.training.decoder import (
    Batch,
    DecoderTask,
    initialise,
    next_token_loss,
    packed_batch,
    padded_batch,
)
from osler.training.loop import LoopConfig, train


def tiny_model() -> MedGemma:
    torch.manual_seed(0)
    model = MedGemma(tiny_medgemma())
    initialise(model)
    return model


def image_sequence(image: int) -> TrainingSequence:
    """An image, a question of two tokens, and an answer that depends on the image."""
    ids = [2, 121, *[120] * 4, 122, 7, 8, 30 + image, 31 + image, 1]
    learn = [False] * 9 + [True] * 3
    return TrainingSequence(ids=ids, learn=learn, image=image)


def test_a_conversation_is_what_the_processor_makes_of_it(tmp_path: Path) -> None:
    tiny_medgemma_folder(tmp_path)
    processor = Processor.from_folder(tmp_path)
    image = torch.zeros(10, 10, 3, dtype=torch.uint8).numpy()
    tokenizer, config = processor.tokenizer, processor.config
    soft = tokenizer.image_soft * config.mm_tokens_per_image
    image_text = f"\n\n{tokenizer.start_of_image}{soft}{tokenizer.end_of_image}\n\n"
    turns = [("Is it the chest?", "Yes, it is."), ("Anything else?", "No.")]
    sequence = conversation(
        tokenizer.encode, turns, bos=config.bos_token_id, image=0, image_text=image_text
    )
    parts = [{"type": "image", "image": image}, {"type": "text", "text": turns[0][0]}]
    prompt = processor(
        [
            {"role": "user", "content": parts},
            {"role": "assistant", "content": turns[0][1]},
            {"role": "user", "content": turns[1][0]},
        ]
    )
    assert sequence.ids[: len(prompt.ids)] == prompt.ids
    learnt = [token for token, wanted in zip(sequence.ids, sequence.learn, strict=True) if wanted]
    assert (
        tokenizer.decode(learnt, skip_special=False) == "Yes, it is.<end_of_turn>No.<end_of_turn>"
    )


def test_the_loss_is_the_mean_cross_entropy_of_the_learnt_tokens() -> None:
    model = tiny_model().eval()
    pooled = torch.randn(2, 4, 32)
    batch = padded_batch(
        [image_sequence(1), image_sequence(0)], pad=0, length=12, pooled_NTD=pooled[[1, 0]]
    )
    with torch.inference_mode():
        loss = next_token_loss(model, batch)
        soft = model.multi_modal_projector.project(pooled[[1, 0]])
        logits = model(batch.ids_BL, soft_NTD=soft)
        wanted = F.cross_entropy(logits[:, 8:11].flatten(0, 1), batch.ids_BL[:, 9:12].flatten())
    torch.testing.assert_close(loss, wanted)


def test_padding_changes_no_loss() -> None:
    model = tiny_model().eval()
    short = TrainingSequence(ids=[2, 9, 10, 11], learn=[False, True, True, True])
    longer = TrainingSequence(ids=[2, *range(20, 40)], learn=[False] * 21)
    with torch.inference_mode():
        alone = next_token_loss(model, padded_batch([short], pad=0, length=4))
        padded = next_token_loss(model, padded_batch([short, longer], pad=0, length=24))
    torch.testing.assert_close(alone, padded)


def test_pixels_and_their_pooled_patches_are_the_same_image() -> None:
    model = tiny_model().eval()
    side = (
        model.vision_tower.embeddings.patch_embedding.stride[0] * model.multi_modal_projector.grid
    )
    pixels = torch.rand(1, 3, side, side) * 2 - 1
    with torch.inference_mode():
        pooled = model.multi_modal_projector.pooled(model.vision_tower(pixels))
        losses = [
            next_token_loss(model, padded_batch([image_sequence(0)], pad=0, length=12, **image))
            for image in ({"pixels_NCSS": pixels}, {"pooled_NTD": pooled})
        ]
    torch.testing.assert_close(losses[0], losses[1])


class Cycle:
    """The same batches over and over."""

    def __init__(self, *batches: Batch) -> None:
        self.batches, self.turn = batches, 0

    def __next__(self) -> Batch:
        self.turn += 1
        return self.batches[self.turn % len(self.batches)]

    def state_dict(self) -> dict[str, Any]:
        return {"turn": self.turn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.turn = state["turn"]


def two_images() -> Batch:
    pooled = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(0))
    sequences = [image_sequence(0), image_sequence(1)]
    return padded_batch(sequences, pad=0, length=12, pooled_NTD=pooled)


def test_training_tells_images_apart_and_leaves_the_tower(tmp_path: Path) -> None:
    batch, model = two_images(), tiny_model()
    model.vision_tower.requires_grad_(False)
    tower = {name: value.clone() for name, value in model.vision_tower.state_dict().items()}
    config = LoopConfig(steps=60, learning_rate=5e-3, warmup_steps=5, weight_decay=0.05, bf16=True)
    result = train(DecoderTask(model, Cycle(batch), [batch]), config, tmp_path)
    assert result.evaluation["val_loss"] < 0.2
    assert all(torch.equal(tower[n], v) for n, v in model.vision_tower.state_dict().items())


@pytest.mark.parametrize("bf16", [False, True])
def test_recomputed_blocks_attend_as_they_did(tmp_path: Path, bf16: bool) -> None:
    for name, again in (("kept", False), ("again", True)):
        model = tiny_model()
        model.vision_tower.requires_grad_(False)
        task = DecoderTask(model, Cycle(two_images()), [two_images()])
        train(
            task,
            LoopConfig(steps=2, learning_rate=1e-3, bf16=bf16, activation_checkpointing=again),
            tmp_path / name,
        )
    kept, recomputed = (
        (tmp_path / name / "metrics.jsonl").read_text() for name in ("kept", "again")
    )
    assert kept.splitlines()[-1] == recomputed.splitlines()[-1]


def test_text_alone_leaves_the_projector_a_gradient_of_zero(tmp_path: Path) -> None:
    # Ranks wait for every gradient, and another rank may have had an image.
    model = tiny_model()
    model.vision_tower.requires_grad_(False)
    text = TrainingSequence(ids=[2, 9, 10, 11], learn=[False, True, True, True])
    loss, _ = DecoderTask(model, Cycle(two_images())).loss(padded_batch([text], pad=0, length=4))
    loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert all(gradient is not None for gradient in gradients.values())
    of_images = [g for n, g in gradients.items() if g is not None and "projector" in n]
    assert of_images
    assert not any(gradient.any() for gradient in of_images)


def test_nothing_to_learn_is_no_loss() -> None:
    model = tiny_model().eval()
    batch = packed_batch([[2, 9, 10]], [[False, False, False]])
    with torch.inference_mode():
        assert next_token_loss(model, batch) == 0
    assert DecoderTask(model, Cycle(batch)).size(batch).weight == 0
