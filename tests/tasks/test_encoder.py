from pathlib import Path

import numpy as np
import pytest

import osler
from osler.errors import PromptError
from osler.models.medsiglip import MedSiglip
from osler.tasks.encoder import ImageTextEncoder

LABELS = ["normal chest X-ray", "pneumonia", "brain MRI"]


@pytest.fixture(scope="module")
def encoder(medsiglip_folder: Path) -> ImageTextEncoder:
    return osler.load_encoder(medsiglip_folder)


def test_embeddings_have_length_one(
    encoder: ImageTextEncoder, picture: Path, radiograph: Path
) -> None:
    images = encoder.embed_images([picture, radiograph])
    texts = encoder.embed_texts(LABELS)
    for rows, count in ((images, 2), (texts, 3)):
        assert rows.shape == (count, 32)
        assert rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert not np.allclose(images[0], images[1])


def test_bfloat16_rows_have_length_one_too(medsiglip_folder: Path, picture: Path) -> None:
    rows = osler.load_encoder(medsiglip_folder, dtype="bfloat16").embed_images([picture])
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_nothing_embeds_to_no_rows(encoder: ImageTextEncoder) -> None:
    assert encoder.embed_images([]).shape == (0, 32)
    assert encoder.embed_texts([]).shape == (0, 32)


def test_classify_is_the_softmax_of_the_models_logits(
    encoder: ImageTextEncoder, picture: Path
) -> None:
    (result,) = encoder.classify([picture], LABELS)
    assert isinstance(encoder.model, MedSiglip)
    scale = encoder.model.logit_scale.detach().exp().item()
    assert scale == pytest.approx(50)
    logits = (encoder.embed_images([picture]) @ encoder.embed_texts(LABELS).T)[0] * scale
    expected = np.exp(logits) / np.exp(logits).sum()
    assert list(result.probabilities) == LABELS
    np.testing.assert_allclose(list(result.probabilities.values()), expected, atol=1e-6)
    assert result.label == LABELS[int(expected.argmax())]
    assert result.source == "colours.png"
    assert result.notice.startswith("Random weights.")


def test_a_label_stands_where_its_prompts_point(encoder: ImageTextEncoder, picture: Path) -> None:
    (plain,) = encoder.classify([picture], ["normal", "pneumonia"])
    doubled = {"normal": ["normal", "normal"], "pneumonia": ["pneumonia"]}
    (same,) = encoder.classify([picture], doubled)
    mixed = {"normal": ["normal", "brain MRI"], "pneumonia": ["pneumonia"]}
    (other,) = encoder.classify([picture], mixed)
    assert same.probabilities["normal"] == pytest.approx(plain.probabilities["normal"], abs=1e-6)
    assert other.probabilities["normal"] != pytest.approx(plain.probabilities["normal"], abs=1e-6)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [(["one"], "two or more"), (["one", "one"], "two or more"), ({"a": ["a"], "b": []}, "no prom")],
)
def test_labels_that_leave_no_choice(
    encoder: ImageTextEncoder, picture: Path, labels: list[str], reason: str
) -> None:
    with pytest.raises(PromptError, match=reason):
        encoder.classify([picture], labels)


def test_progress_counts_up_to_all(encoder: ImageTextEncoder, picture: Path) -> None:
    done: list[int] = []
    encoder.embed_images([picture] * 10, progress=done.append)
    assert done[-1] == 10
    assert done == sorted(done)


def test_a_saved_folder_embeds_the_same(
    encoder: ImageTextEncoder, tmp_path: Path, picture: Path
) -> None:
    encoder.save(tmp_path)
    copy = osler.load_encoder(tmp_path)
    np.testing.assert_array_equal(copy.embed_images([picture]), encoder.embed_images([picture]))
    np.testing.assert_array_equal(copy.embed_texts(LABELS), encoder.embed_texts(LABELS))
    assert copy.notice == encoder.notice


def test_one_image_or_text_is_not_a_list(encoder: ImageTextEncoder, picture: Path) -> None:
    with pytest.raises(PromptError, match="a list of images"):
        encoder.embed_images(str(picture))
    with pytest.raises(PromptError, match="a list of texts"):
        encoder.embed_texts("pneumonia")
