"""What of an example is learnt, and what a batch holds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from osler.errors import UnreadableFileError
from osler.models.medgemma import MedGemma
from osler.preprocess.processor import Processor
from osler.testing.models import randomise
from osler.testing.tokenizers import tiny_medgemma_folder
from osler.training.conversation import conversation
from osler.training.distributed import Ranks
from osler.training.finetune.data import read_examples
from osler.training.finetune.examples import Example, Examples
from osler.training.finetune.lessons import Lessons, collate
from osler.training.finetune.task import FinetuneTask, LessonBatches, batch_of
from tests.training.finetune.conftest import Table


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> Processor:
    folder = tmp_path_factory.mktemp("medgemma")
    tiny_medgemma_folder(folder)
    return Processor.from_folder(folder)


def lessons_of(processor: Processor, *messages: Any, path: Path | None = None) -> Lessons:
    row = Example(line=1, messages=messages, images=())
    return Lessons(
        Examples(path=path or Path("rows.jsonl"), rows=(row,)), processor, most_tokens=500
    )


def said(processor: Processor, lessons: Lessons) -> str:
    """What is learnt of the first lesson."""
    sequence = lessons[0].sequence
    learnt = [i for i, learn in zip(sequence.ids, sequence.learn, strict=True) if learn]
    return processor.tokenizer.decode(learnt, skip_special=False)


def test_a_lesson_is_the_conversation_of_the_other_phases(processor: Processor) -> None:
    image = np.zeros((10, 10, 3), dtype=np.uint8)
    content = [{"type": "image", "image": image}, {"type": "text", "text": "Is it the chest?"}]
    lessons = lessons_of(
        processor,
        {"role": "user", "content": content},
        {"role": "assistant", "content": " Yes, it is. "},
        {"role": "user", "content": "Anything else?"},
        {"role": "assistant", "content": "No."},
    )
    tokenizer, config = processor.tokenizer, processor.config
    soft = tokenizer.image_soft * config.mm_tokens_per_image
    sequence = conversation(
        tokenizer.encode,
        [("Is it the chest?", "Yes, it is."), ("Anything else?", "No.")],
        bos=config.bos_token_id,
        image=0,
        image_text=f"\n\n{tokenizer.start_of_image}{soft}{tokenizer.end_of_image}\n\n",
    )
    lesson = lessons[0]
    # It ends with the last answer; what comes behind is not learnt there either.
    assert lesson.sequence.ids == sequence.ids[: len(lesson.sequence.ids)]
    assert lesson.sequence.learn == sequence.learn[: len(lesson.sequence.ids)]
    assert not any(sequence.learn[len(lesson.sequence.ids) :])
    assert said(processor, lessons) == "Yes, it is.<end_of_turn>No.<end_of_turn>"
    assert lesson.pixels_NCSS.shape == (1, 3, 56, 56)


def test_no_message_can_make_itself_learnt(processor: Processor) -> None:
    lessons = lessons_of(
        processor,
        {"role": "system", "content": "<start_of_turn>model\nsystem<end_of_turn>"},
        {"role": "user", "content": "<start_of_turn>model\nuser<end_of_turn>"},
        {"role": "assistant", "content": "a<end_of_turn>b<start_of_turn>model\nc"},
    )
    assert said(processor, lessons) == "a<end_of_turn>b<start_of_turn>model\nc<end_of_turn>"


def test_another_answer_in_the_same_place(processor: Processor, table: Table) -> None:
    lessons = Lessons(read_examples(table()), processor, most_tokens=500)
    list(lessons.check())
    own = lessons[0].sequence
    assert lessons.with_answer(0, "dark") == own
    other = lessons.with_answer(0, "bright")
    assert other == lessons[1].sequence
    assert other != own


def test_bad_rows_are_named_before_anything_is_learnt(processor: Processor, table: Table) -> None:
    folder = table()
    (folder / "2.png").write_text("no picture")
    (folder / "5.png").write_bytes((folder / "4.png").read_bytes()[:200])
    lessons = Lessons(read_examples(folder), processor, most_tokens=500)
    with pytest.raises(UnreadableFileError, match=r"labels.csv, line 4: 2.png: .* bad: 7\)$"):
        list(lessons.check())
    lessons = Lessons(read_examples(table(name="long")), processor, most_tokens=20)
    with pytest.raises(UnreadableFileError, match=r"line 2: \d+ tokens, more than the 20 allowed"):
        list(lessons.check())


def test_images_are_read_once_while_they_have_room(
    processor: Processor, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    lessons = Lessons(read_examples(table()), processor, most_tokens=500)
    for kept, again in ((10**6, True), (0, False)):
        monkeypatch.setattr("osler.training.finetune.lessons._KEPT_BYTES", kept)
        lessons = Lessons(lessons.examples, processor, most_tokens=500)
        assert (lessons[0] is lessons[0]) is again


def model_of(processor: Processor) -> MedGemma:
    model = MedGemma(processor.config)
    randomise(model)
    return model.eval()


def task_of(lessons: Lessons, model: MedGemma, batch_size: int = 3) -> FinetuneTask:
    batches = LessonBatches(lessons, batch_size, pad=0, seed=0, ranks=Ranks())
    return FinetuneTask(model, batches, lessons, batch_size)


@torch.no_grad()
def test_the_loss_is_that_of_the_answers_alone(processor: Processor, table: Table) -> None:
    lessons = Lessons(read_examples(table()), processor, most_tokens=500)
    model = model_of(processor)
    task = task_of(lessons, model)
    batch = batch_of([lessons[0], lessons[1]], pad=0)
    total, tokens = 0.0, 0
    for index in (0, 1):
        lesson = lessons[index]
        ids = torch.tensor([lesson.sequence.ids])
        logits = model(ids, pixels_NCSS=lesson.pixels_NCSS)[0]
        for place, learn in enumerate(lesson.sequence.learn):
            if learn:
                total += F.cross_entropy(logits[place - 1], ids[0, place]).item()
                tokens += 1
    assert (
        task.size(batch).weight
        == tokens
        == sum(lessons[0].sequence.learn + lessons[1].sequence.learn)
    )
    assert task.loss(batch)[0].item() == pytest.approx(total / tokens, abs=1e-5)


@torch.no_grad()
def test_the_accuracy_counts_the_likeliest_labels(processor: Processor, table: Table) -> None:
    lessons = Lessons(read_examples(table()), processor, most_tokens=500)
    model = model_of(processor)
    right = 0
    for index, row in enumerate(lessons.examples.rows):
        scores = {}
        for label in lessons.examples.labels:
            sequence = lessons.with_answer(index, label)
            ids = torch.tensor([sequence.ids])
            logits = model(ids, pixels_NCSS=lessons[index].pixels_NCSS)[0].log_softmax(dim=-1)
            scores[label] = sum(
                logits[place - 1, ids[0, place]].item()
                for place, learn in enumerate(sequence.learn)
                if learn
            )
        right += max(scores, key=scores.__getitem__) == row.label
    figures = task_of(lessons, model).evaluate()
    assert figures["validation_accuracy"] == right / len(lessons)
    assert set(figures) == {"validation_loss", "validation_accuracy"}


def test_padding_and_text_alone(processor: Processor) -> None:
    texts = ("Hello?", "A much longer question, of more tokens?")
    lessons = [
        lessons_of(
            processor, {"role": "user", "content": t}, {"role": "assistant", "content": "Yes."}
        )[0]
        for t in texts
    ]
    batch = collate([x.sequence for x in lessons], [x.pixels_NCSS for x in lessons], pad=0)
    assert batch.pixels_NCSS is None
    short = len(lessons[0].sequence.ids)
    assert batch.ids_BL.shape == (2, len(lessons[1].sequence.ids))
    assert not batch.ids_BL[0, short:].any()
    assert not batch.learn_BL[0, short:].any()


def test_every_epoch_shows_every_lesson_once_in_a_new_order(
    processor: Processor, table: Table
) -> None:
    lessons = Lessons(read_examples(table(count=6)), processor, most_tokens=500)
    place_of = {lessons[i].pixels_NCSS.numpy().tobytes(): i for i in range(6)}

    def seen(batches: LessonBatches, count: int) -> list[int]:
        shown = []
        for _ in range(count):
            pixels = next(batches).pixels_NCSS
            assert pixels is not None
            shown += [place_of[image.numpy()[None].tobytes()] for image in pixels]
        return shown

    def batches(rank: int = 0, world: int = 1) -> LessonBatches:
        ranks = Ranks(rank=rank, world=world)
        return LessonBatches(lessons, 4, pad=0, seed=1, ranks=ranks)

    order = seen(batches(), 3)
    assert sorted(order[:6]) == sorted(order[6:]) == list(range(6))
    assert order[:6] != order[6:]
    resumed = batches()
    seen(resumed, 1)
    again = batches()
    again.load_state_dict(resumed.state_dict())
    assert seen(again, 2) == order[4:]
    shares = [seen(batches(rank, 2), 1) for rank in (0, 1)]
    assert shares[0] + shares[1] == order[:4]
