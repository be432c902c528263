"""Phases 2 and 3 on a tiny decoder, and the sequences that it learns from."""

from itertools import cycle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from osler.models.medgemma import MedGemma
from osler.preprocess.processor import Processor
from osler.testing.models import tiny_medgemma
from osler.testing.tokenizers import tiny_medgemma_folder
from osler.training.conversation import TrainingSequence, conversation, document
from osler.training.decoder import (
    DecoderConfig,
    initialise,
    next_token_loss,
    packed_batches,
    padded_batch,
    train_decoder,
)
from osler.training.optim import cosine, load_state, save_state


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


def test_packing_loses_no_token() -> None:
    sequences = [document(lambda text: [int(text)] * 5, str(n), bos=2, eos=1) for n in range(3, 9)]
    batches = list(packed_batches(iter(sequences), batch_size=2, length=6))
    packed = torch.cat([batch.ids_BL.flatten() for batch in batches]).tolist()
    laid_end_to_end = [token for sequence in sequences for token in sequence.ids]
    assert packed == laid_end_to_end[: len(packed)]
    assert len(laid_end_to_end) - len(packed) < 14


def test_the_loss_is_the_mean_cross_entropy_of_the_learnt_tokens() -> None:
    model = tiny_model().eval()
    pooled = torch.randn(2, 4, 32)
    batch = padded_batch(
        [image_sequence(1), image_sequence(0)], pooled.__getitem__, pad=0, length=12
    )
    with torch.inference_mode():
        loss = next_token_loss(model, batch)
        soft = model.multi_modal_projector.project(pooled[[1, 0]])
        logits = model(batch.ids_BL, soft_NTD=soft)
        wanted = F.cross_entropy(logits[:, 8:11].flatten(0, 1), batch.ids_BL[:, 9:12].flatten())
    torch.testing.assert_close(loss, wanted)


def no_images(images: list[int]) -> torch.Tensor:
    raise AssertionError("no sequence has an image")


def test_padding_changes_no_loss() -> None:
    model = tiny_model().eval()
    short = TrainingSequence(ids=[2, 9, 10, 11], learn=[False, True, True, True])
    longer = TrainingSequence(ids=[2, *range(20, 40)], learn=[False] * 21)
    with torch.inference_mode():
        alone = next_token_loss(model, padded_batch([short], no_images, pad=0, length=4))
        padded = next_token_loss(model, padded_batch([short, longer], no_images, pad=0, length=24))
    torch.testing.assert_close(alone, padded)


def test_training_tells_images_apart_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    pooled = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(0))
    batch = padded_batch(
        [image_sequence(0), image_sequence(1)], pooled.__getitem__, pad=0, length=12
    )
    model = tiny_model()
    tower = {name: value.clone() for name, value in model.vision_tower.state_dict().items()}
    config = DecoderConfig(steps=60, learning_rate=5e-3, warmup_steps=5)
    state = tmp_path / "state.pt"
    train_decoder(model, cycle([batch]), config, state)
    with torch.inference_mode():
        assert next_token_loss(model, batch) < 0.2
    assert all(torch.equal(tower[n], v) for n, v in model.vision_tower.state_dict().items())

    again = tiny_model()
    train_decoder(again, cycle([batch]), config, state)
    for one, other in zip(again.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_kill_while_saving_leaves_the_earlier_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs" / "state.pt"
    assert load_state(path) is None
    save_state(path, {"step": 1})

    def killed(state: object, target: Path) -> None:
        target.write_bytes(b"half of a")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        save_state(path, {"step": 2})
    assert load_state(path) == {"step": 1}


def test_the_learning_rate_rises_then_falls() -> None:
    shares = [cosine(step, 100, 10) for step in range(100)]
    assert shares.index(max(shares)) in (9, 10)
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert shares[-1] > 0
