"""Messages with images to what a MedGemma takes: token ids and pixels.

Shapes: N images and crops, S image side.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from osler.errors import CheckpointError, PromptError
from osler.models.config import MedGemmaConfig
from osler.models.hf_config import read_medgemma_config
from osler.preprocess.chat import ImagePart, Message, Turn, read_turns, render_chat
from osler.preprocess.image_settings import ImageSettings, read_image_settings
from osler.preprocess.json_file import read_json_object_if_there
from osler.preprocess.pixels import PixelMaker
from osler.preprocess.sources import ImageSource, as_image
from osler.preprocess.squaring import Display, Squaring
from osler.preprocess.tokenizer import Tokenizer
from osler.preprocess.windows import ct_windows_hu

__all__ = ["ImageSource", "Processor", "Prompt", "Squaring"]


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What a model is given.

    Attributes:
        ids: the tokens; every image and crop is `mm_tokens_per_image` times the image token.
        pixels: float32 (N, 3, S, S), -1 to 1, images and crops in reading order.
        text: what the tokens say, control pieces and all.
        input_sha256: hex digests of the images' files in reading order.
    """

    ids: list[int]
    pixels: NDArray[np.float32] = field(
        default_factory=lambda: np.zeros((0, 3, 0, 0), dtype=np.float32)
    )
    text: str = ""
    input_sha256: tuple[str, ...] = ()


class Processor:
    """A MedGemma's preparation of its input.

    Attributes:
        tokenizer: the checkpoint's.
        config: the checkpoint's sizes, with the version whose CT windows are used.
    """

    def __init__(
        self, tokenizer: Tokenizer, config: MedGemmaConfig, settings: ImageSettings | None
    ) -> None:
        """Most callers want `from_folder`.

        Args:
            tokenizer: the checkpoint's.
            config: the checkpoint's.
            settings: how to prepare images; None for a model without a vision tower.
        """
        self.tokenizer = tokenizer
        self.config = config
        self._pixel_maker = None
        if settings is not None:
            self._pixel_maker = PixelMaker(settings, config.medgemma_version)
        soft = tokenizer.image_soft * config.mm_tokens_per_image
        self._image_text = f"\n\n{tokenizer.start_of_image}{soft}{tokenizer.end_of_image}\n\n"

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        version: str | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> "Processor":
        """Read the tokenizer and the settings of a checkpoint.

        Args:
            folder: a Hugging Face folder; its weights are not read.
            version: "1" or "1.5", for the CT windows; None for what the folder says.
            tokenizer: the folder's, where it has been read already.

        Raises:
            CheckpointError: a file is missing or broken, or two of them contradict each other.
            PromptError: an unknown version.
        """
        folder = Path(folder)
        config = read_medgemma_config(folder)
        if version is not None:
            ct_windows_hu(version)  # refuses an unknown one
            config = replace(config, medgemma_version=version)
        tokenizer = tokenizer or Tokenizer.from_folder(folder)
        if tokenizer.vocab_size > (size := config.text_config.vocab_size):
            raise CheckpointError(
                f"{folder}: the tokenizer has {tokenizer.vocab_size} ids, the model {size}"
            )
        if config.vision_config is None:
            return cls(tokenizer, config, None)
        settings = read_image_settings(folder, ImageSettings())
        length = read_json_object_if_there(folder / "processor_config.json").get("image_seq_length")
        for what, prepared, modelled in (
            ("side of an image", settings.side_px, config.vision_config.image_size),
            ("image token", tokenizer.id_of(tokenizer.image_soft), config.image_token_id),
            ("start of an image", tokenizer.id_of(tokenizer.start_of_image), config.boi_token_id),
            ("end of an image", tokenizer.id_of(tokenizer.end_of_image), config.eoi_token_id),
            ("number of tokens of an image", length, config.mm_tokens_per_image),
        ):
            # A prompt made all the same would be one that the model does not understand.
            if prepared not in (modelled, None):
                raise CheckpointError(
                    f"{folder}: the {what} is {prepared} for the processor and {modelled} for "
                    "the model"
                )
        return cls(tokenizer, config, settings)

    def __call__(
        self,
        messages: Sequence[Message],
        *,
        squaring: Squaring = "pad",
        pan_and_scan: bool = False,
    ) -> Prompt:
        """Make a prompt, the model to answer next.

        Args:
            messages: as `chat.read_turns` takes them.
            squaring: "pad" with zeros to a square, as MedGemma was trained, or "stretch", as the
                plain `transformers` processor does. Crops are squared like images.
            pan_and_scan: add crops of images that are far from square.

        Raises:
            InputError: messages that make no prompt, or an image that cannot be read.
        """
        turns = read_turns(messages)
        images = [
            part.source for turn in turns for part in turn.parts if isinstance(part, ImagePart)
        ]
        if self._pixel_maker is None:
            if images:
                self._pixels_of_images()
            ids, text = self._encoded(turns, [])
            return Prompt(ids=ids, text=text)
        prepared = self._pixel_maker.prepare(images, squaring=squaring, pan_and_scan=pan_and_scan)
        texts = [self._text_of_image(squares - 1) for squares in prepared.squares]
        ids, text = self._encoded(turns, texts)
        return Prompt(
            ids=ids,
            pixels=prepared.pixels_N3SS,
            text=text,
            input_sha256=tuple(prepared.sha256),
        )

    def length(self, messages: Sequence[Message]) -> int:
        """Count the tokens of a prompt without reading its images, each taken for one square.

        Args:
            messages: as in a call; anything may stand for an image.

        Raises:
            PromptError: messages that make no prompt, or images for a model without vision.
        """
        turns = read_turns(messages)
        images = sum(isinstance(part, ImagePart) for turn in turns for part in turn.parts)
        if images:
            self._pixels_of_images()
        return len(self._encoded(turns, [self._image_text] * images)[0])

    def _encoded(self, turns: Sequence[Turn], image_texts: Sequence[str]) -> tuple[list[int], str]:
        """The ids and the text of a prompt."""
        spans = render_chat(
            turns,
            image_texts,
            bos=self.tokenizer.bos,
            control_pieces=self.tokenizer.control_pieces,
        )
        ids: list[int] = []
        for span in spans:
            encode = self.tokenizer.spell if span.is_literal else self.tokenizer.encode
            ids += encode(span.text)
        return ids, "".join(span.text for span in spans)

    def seen(
        self, image: ImageSource, *, squaring: Squaring = "pad", pan_and_scan: bool = False
    ) -> list[Display]:
        """What the model will see of an image, before normalisation.

        Args:
            image: as in a message.
            squaring: as in a call.
            pan_and_scan: as in a call.

        Returns:
            uint8 (S, S, 3) of the whole image, then of its crops, if any.

        Raises:
            InputError: an image that cannot be read.
        """
        return self._pixels_of_images().squares(
            as_image(image), squaring=squaring, pan_and_scan=pan_and_scan
        )

    def _pixels_of_images(self) -> PixelMaker:
        if self._pixel_maker is None:
            raise PromptError("this model reads text only; it has no vision tower")
        return self._pixel_maker

    def _text_of_image(self, crops: int) -> str:
        if not crops:
            return self._image_text
        # Word for word what the model was tuned with.
        return (
            f"Here is the original image {self._image_text} and here are some crops to help you "
            f"see better {' '.join([self._image_text] * crops)}"
        )
