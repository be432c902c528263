"""Tables of images with labels, or with questions and answers.

    image,label            scans/1.png,benign
    SOPInstanceUID,label   1.2.840.1,benign          DICOM objects anywhere below the table's folder
    image,question,answer  scans/1.png,What is it?,A cyst.
    question,answer        text only

Other columns are not looked at. Commas, semicolons or tabs part the columns, as spreadsheets of
different countries write them.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from osler.errors import InputError, UnreadableFileError
from osler.ingest.dicom.attributes import MALFORMED
from osler.preprocess.chat import Message
from osler.training.finetune.examples import (
    BadRows,
    Example,
    Examples,
    existing_image,
    refuse_file,
)

IMAGE, UID, LABEL, QUESTION, ANSWER = "image", "sopinstanceuid", "label", "question", "answer"
_FORMS = "image,label or SOPInstanceUID,label or image,question,answer"
_KNOWN = (IMAGE, UID, LABEL, QUESTION, ANSWER)

# Number of the line, and its cells by the names of the columns that we know.
Cells = tuple[int, dict[str, str]]


def read_table(
    path: Path, *, question: str | None = None, labels: Sequence[str] | None = None
) -> Examples:
    """Read a CSV file.

    Args:
        path: UTF-8, with a line of column names.
        question: what is asked about an image with a label; None for one that names all labels.
        labels: the labels there may be, such as those of the training data; None for any.

    Raises:
        UnreadableFileError: not such a file, columns of other names, or rows that are not whole:
            the message has their lines.
    """
    bad = BadRows(path)
    rows = list(_read_cells(path, bad))
    if not rows:
        bad.refuse_if_any()
        refuse_file(path, "no rows below the column names")
    by_uid = _dicom_files(path.parent) if UID in rows[0][1] else {}
    found: list[tuple[int, Path | None, dict[str, str]]] = []
    for line, cells in rows:
        try:
            found.append((line, _image(path.parent, cells, by_uid), cells))
        except InputError as error:
            bad.add(line, error)
        if labels is not None and LABEL in cells and cells[LABEL] not in labels:
            bad.add(line, "a label that the training data do not have")
    bad.refuse_if_any()
    if LABEL not in rows[0][1]:
        return Examples(path=path, rows=tuple(_answered(*row) for row in found))
    names = tuple(labels or sorted({cells[LABEL] for _, cells in rows}))
    if len(names) < 2:
        refuse_file(path, "one label only; there is nothing to tell apart")
    asked = question or f"Which of these does the image show: {', '.join(names)}?"
    return Examples(path=path, rows=tuple(_labelled(*row, asked) for row in found), labels=names)


def _answered(line: int, image: Path | None, cells: dict[str, str]) -> Example:
    return _example(line, image, cells[QUESTION], cells[ANSWER], None)


def _labelled(line: int, image: Path | None, cells: dict[str, str], question: str) -> Example:
    return _example(line, image, question, cells[LABEL], cells[LABEL])


def _example(
    line: int, image: Path | None, question: str, answer: str, label: str | None
) -> Example:
    content: list[Message] = [{"type": "text", "text": question}]
    if image is not None:
        content.insert(0, {"type": "image", "image": image})
    messages = ({"role": "user", "content": content}, {"role": "assistant", "content": answer})
    return Example(
        line=line, messages=messages, images=() if image is None else (image,), label=label
    )


def _read_cells(path: Path, bad: BadRows) -> Iterator[Cells]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            delimiter = max(",;\t", key=header.count)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            columns = _columns(path, next(reader, []))
            width = max(columns.values()) + 1
            line = reader.line_num + 1
            for row in reader:
                if row:
                    cells = {name: row[i].strip() for name, i in columns.items() if i < len(row)}
                    empty = [name for name, value in cells.items() if not value]
                    if len(row) < width:
                        bad.add(line, f"{len(row)} cells where the columns reach to {width}")
                    elif empty:
                        bad.add(line, f"{empty[0]} is empty")
                    else:
                        yield line, cells
                line = reader.line_num + 1
    except UnicodeDecodeError:
        refuse_file(path, "not UTF-8 text; save it as CSV UTF-8")
    except csv.Error as error:
        raise UnreadableFileError(f"{path}, line {reader.line_num}: {error}") from None


def _columns(path: Path, header: Sequence[str]) -> dict[str, int]:
    """Where the columns stand that make one of the forms."""
    names = [name.strip().lower() for name in header]
    known = {name: names.index(name) for name in _KNOWN if name in names}
    sources, answers = {IMAGE, UID} & known.keys(), {LABEL, ANSWER} & known.keys()
    whole = (LABEL in known and sources) or {QUESTION, ANSWER} <= known.keys()
    if not whole or len(sources) > 1 or len(answers) > 1:
        has = ", ".join(name.strip() for name in header if name.strip()) or "none"
        raise UnreadableFileError(f"{path}, line 1: the columns must be {_FORMS}; it has {has}")
    if LABEL in known:
        known.pop(QUESTION, None)
    return known


def _image(folder: Path, cells: dict[str, str], by_uid: dict[str, Path]) -> Path | None:
    if IMAGE in cells:
        return existing_image(folder, cells[IMAGE])
    if UID not in cells:
        return None
    if cells[UID] not in by_uid:
        raise UnreadableFileError(f"no DICOM object of this SOPInstanceUID below {folder}")
    return by_uid[cells[UID]]


def _dicom_files(folder: Path) -> dict[str, Path]:
    """The DICOM objects below a folder, by the UID that their file begins with (PS3.10 7.1)."""
    found: dict[str, Path] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            uid = read_file_meta_info(path).get("MediaStorageSOPInstanceUID")
        except (InvalidDicomError, *MALFORMED):
            continue  # another kind of file; a row that means it will say that it is missing
        if uid:
            found.setdefault(str(uid), path)
    return found
