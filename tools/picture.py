"""Draws the README's picture: what the nano sees of the demonstration's radiograph, and its answer.

.venv/bin/python -m tools.picture docs/first-answer.png
"""

import sys
import textwrap

from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

import osler
from osler.tasks.show import seen_squares
from tools.demo import QUESTION, radiograph

SIDE_PX = 448
TEXT_PX = 640
MARGIN_PX = 32
LINE_PX = 30
PAPER, INK, FAINT = "#14181d", "#e8e6df", "#8f9aa5"


def main() -> int:
    path = radiograph()
    (seen,) = seen_squares(path)
    answer = osler.load("nano").ask(QUESTION, [path])
    lines = [
        (FAINT, f'$ osler ask {path.name} "{QUESTION}"'),
        (INK, ""),
        *((INK, line) for line in textwrap.wrap(answer.text, 50)),
        (INK, ""),
        *((FAINT, line) for line in textwrap.wrap(answer.notice, 58)),
    ]
    height = max(SIDE_PX, LINE_PX * len(lines)) + 2 * MARGIN_PX
    sheet = Picture.new("RGB", (SIDE_PX + TEXT_PX + 3 * MARGIN_PX, height), PAPER)
    square = Picture.fromarray(seen).resize((SIDE_PX, SIDE_PX), Picture.Resampling.NEAREST)
    sheet.paste(square, (MARGIN_PX, MARGIN_PX))
    draw = ImageDraw.Draw(sheet)
    for row, (colour, line) in enumerate(lines):
        font = ImageFont.load_default(22 if colour == INK else 19)
        place = (SIDE_PX + 2 * MARGIN_PX, MARGIN_PX + row * LINE_PX)
        draw.text(place, line, fill=colour, font=font)
    sheet.save(sys.argv[1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
