"""What every proof is given: the data, the run that it looks at, a folder of its own."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from osler.errors import InputError
from osler.ingest.image_pack import PackedImage
from osler.training.recipes.job import Job
from osler.training.recipes.nano_images import HELD_OUT


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One call of the bench.

    Attributes:
        data: the data pack.
        run: folder of `osler train nano`; only read.
        out: whatever the proofs train and find.
        quick: a few steps on a few images, to see that all works; its figures mean nothing.
    """

    data: Path
    run: Path
    out: Path
    quick: bool = False

    def few(self, full: int, quick: int) -> int:
        """A number of steps or images."""
        return quick if self.quick else full

    def phase(self, name: str) -> Path:
        """The model that a phase of the run left.

        Raises:
            InputError: it is not there.
        """
        folder = self.run / name / "model"
        if not folder.is_dir():
            raise InputError(f"{folder}: not there; has the run's phase {name} ended?")
        return folder

    @property
    def chat_model(self) -> Path:
        """The MedGemma that the run leaves at its end.

        Raises:
            InputError: it is not there.
        """
        folder = self.run / "medgemma-nano"
        if not folder.is_dir():
            raise InputError(f"{folder}: not there; has the run ended?")
        return folder

    @cached_property
    def pack(self) -> Path:
        """The data without the sets that no phase may see, as a folder of links."""
        folder = self.out / "data"
        for name in ("images", "text"):
            (folder / name).mkdir(parents=True, exist_ok=True)
            for file in sorted((self.data / name).resolve().iterdir()):
                link = folder / name / file.name
                if file.name.rpartition("-")[0] not in HELD_OUT and not link.exists():
                    link.symlink_to(file)
        return folder

    def job(self, out: Path, model: Path, steps: int, learning_rate: float | None = None) -> Job:
        """A recipe's call on this pack, which goes on where it was stopped."""
        plain = False if self.quick else None
        return Job(
            data=self.pack,
            out=out,
            resume=True,
            model=str(model),
            steps=steps,
            learning_rate=learning_rate,
            bf16=plain,
            compile=plain,
        )


def image_id(item: PackedImage) -> tuple[str, str]:
    """The patient, lesion or case of an image, which other sets may number alike."""
    return item.set_name, item.group
