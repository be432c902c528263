"""What was done, file by file, for people and programs; nothing that stood in a file is in it."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from osler.errors import InputError
from osler.ingest.file_part import FilePart
from osler.privacy.profile import Profile

REPORT = "report.json"
SUMMARY = "report.txt"


@dataclass(frozen=True, kw_only=True)
class CleanFile:
    """A file that was written.

    Attributes:
        input: its number among the files in the order of their names, from 1: names may identify.
        kind: "dicom", "fhir" or "text".
        output: its path in the new folder.
        actions: how often each thing was done, by action and place.
    """

    input: int
    kind: str
    output: str
    actions: dict[str, dict[str, int]]


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A file that has no place among the clean ones.

    Attributes:
        input: its number, as of a `CleanFile`.
        reason: why.
    """

    input: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A file that was not written.

    Attributes:
        input: its number, as of a `CleanFile`.
        name: the file's, for who ran it; not in the report on disk.
        reason: why.
    """

    input: int
    name: str
    reason: str

    @classmethod
    def of(cls, number: int, part: FilePart | InputError, error: InputError) -> "Refusal":
        """Take the name and the reason apart, which an error's message holds both."""
        if isinstance(part, FilePart):
            return cls(
                input=number, name=part.name, reason=str(error).removeprefix(f"{part.name}: ")
            )
        name, _, reason = str(error).rpartition(": ")
        return cls(input=number, name=name, reason=reason)


@dataclass(frozen=True, kw_only=True)
class Report:
    """One run.

    Attributes:
        profile: what was asked for.
        key_fingerprint: tells runs of different keys apart, and says nothing of the key.
        files: what was written.
        left_out: what need not be.
        refused: what could not be.
    """

    profile: Profile
    key_fingerprint: str
    files: list[CleanFile]
    left_out: list[LeftOut]
    refused: list[Refusal]

    def totals(self) -> dict[str, dict[str, int]]:
        """How often each thing was done in all files."""
        totals: dict[str, Counter[str]] = {}
        for file in self.files:
            for action, places in file.actions.items():
                totals.setdefault(action, Counter()).update(places)
        return {action: dict(places.most_common()) for action, places in sorted(totals.items())}

    def record(self) -> dict[str, Any]:
        """What is written to disk, and printed for programs."""
        return {
            "profile": [{"code": code, "meaning": meaning} for code, meaning in self.profile.codes],
            "key_fingerprint": self.key_fingerprint,
            "totals": self.totals(),
            "files": [asdict(file) for file in self.files],
            "left_out": [asdict(one) for one in self.left_out],
            "refused": [{"input": one.input, "reason": one.reason} for one in self.refused],
        }

    def summary(self) -> str:
        """A page for people."""
        kinds = Counter(file.kind for file in self.files)
        counted = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
        files = "file" if len(self.files) == 1 else "files"
        lines = [f"{len(self.files):,} {files} written: {counted or 'none'}"]
        lines += [f"  by {code} {meaning}" for code, meaning in self.profile.codes]
        for action, places in self.totals().items():
            lines.append(f"{action}: {sum(places.values()):,}")
            lines += [f"  {count:>7,}  {place}" for place, count in places.items()]
        lines += [f"left out: file {one.input}: {one.reason}" for one in self.left_out]
        if self.refused:
            lines.append(f"refused: {len(self.refused):,}")
            lines += [f"  file {one.input}: {one.reason}" for one in self.refused]
        return "\n".join(lines)


def write_report(report: Report, folder: Path) -> None:
    """Write both forms beside the files."""
    text = json.dumps(report.record(), ensure_ascii=False, indent=2)
    (folder / REPORT).write_text(f"{text}\n", "utf-8")
    (folder / SUMMARY).write_text(f"{report.summary()}\n", "utf-8")
