"""The figure of words on patches, from alignments written down."""

import os
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from harness.evaluate.alignment import Alignment, WordMatch
from harness.figures import style
from harness.figures.alignment import draw_alignment, matched

SIMILARITY = np.array([[0.9, 0.1], [-0.4, 0.0]], dtype=np.float32)


def word(text, weights, cosine=0.5, known=True):
    return WordMatch(text, known, SIMILARITY, np.array(weights, dtype=np.float32), cosine)


def alignment(*words):
    return Alignment(np.full((8, 8, 3), 200, dtype=np.uint8), words)


def drawn(*words):
    with style.house():
        return draw_alignment(alignment(*words), "a caption", "a run")


RED = word("red", [[1, 0], [0, 0]], 0.9)
CAR = word("car", [[1, 0], [0, 1]], -0.25)
LOST = word("lost", [[0, 0], [0, 0]], None, known=False)


def test_hard_matches_are_shown_on_their_patches_row_by_row():
    assert matched(CAR) == [(0, 0), (1, 1)]
    assert matched(LOST) == []


def test_soft_matches_are_shown_from_half_of_the_greatest_weight():
    assert matched(word("x", [[0.4, 0.19], [0.2, 0.01]])) == [(0, 0), (1, 0)]


def test_words_stand_in_order_with_their_cosines():
    titles = [ax.get_title(loc="left") for ax in drawn(RED, CAR, LOST).axes[1:4]]
    assert titles == ["1 red\n0.90", "2 car\n\N{MINUS SIGN}0.25", "3 lost\nunmatched, unseen"]


def test_a_long_word_is_cut():
    long = word("incomprehensibilities", [[1, 0], [0, 0]])
    (title,) = [ax.get_title(loc="left") for ax in drawn(long).axes[1:2]]
    assert title == "1 incomprehensib…\n0.50"  # 17 letters fit on 1.02 inches


def test_words_on_one_patch_share_its_width_in_their_own_colours():
    picture = drawn(RED, CAR, LOST).axes[0]
    outlines = [p for p in picture.patches if isinstance(p, Rectangle) and not p.get_fill()]
    places = [(round(p.get_x(), 2), round(p.get_y(), 2), round(p.get_width(), 2)) for p in outlines]
    assert places == [(0.03, 0.06, 0.44), (0.53, 0.06, 0.44), (1.06, 1.06, 0.88)]
    hues = style.colours(10, ordered=False)
    assert [to_hex(p.get_edgecolor()) for p in outlines] == [hues[0], hues[1], hues[1]]
    assert [label.get_text() for label in picture.texts] == ["1", "2", "2"]


def test_all_words_have_one_scale_from_the_least_to_the_greatest_cosine():
    figure = drawn(RED, WordMatch("car", True, SIMILARITY / 2, CAR.weights, 0.1))
    limits = [ax.images[0].get_clim() for ax in figure.axes[1:3]]
    assert limits == [pytest.approx((-0.4, 0.9))] * 2


@pytest.mark.parametrize(("words", "columns"), [(1, 3), (6, 3), (7, 4), (24, 4)])
def test_however_many_words_nothing_overlaps_or_leaves_the_figure(words, columns):
    figure = drawn(*[RED] * words)
    boxes = [ax.get_position() for ax in figure.axes]
    assert len(boxes) == words + 2  # the picture, the maps and the colour bar
    assert all(b.x0 >= 0 and b.x1 <= 1 and b.y0 >= 0 and b.y1 <= 1 for b in boxes)
    for i, one in enumerate(boxes):
        for other in boxes[i + 1 :]:
            apart_x = one.x1 <= other.x0 or other.x1 <= one.x0
            assert apart_x or one.y1 <= other.y0 or other.y1 <= one.y0
    assert len({round(b.x0, 6) for b in boxes[1:-1]}) == min(words, columns)


DRAW = """
import sys
from types import SimpleNamespace
import numpy as np
from harness.figures import style
from harness.figures.alignment import draw_alignment
heat = np.array([[0.9, 0.1], [-0.4, 0.0]])
words = [
    SimpleNamespace(text="red", known=True, similarity=heat, weights=heat > 0.5, cosine=0.9)
] * 7
shown = SimpleNamespace(picture=np.full((8, 8, 3), 200, np.uint8), grid=2, words=words)
with style.house():
    figure = draw_alignment(shown, "a caption", "a run")
    sys.stdout.buffer.write(style.svg(figure) + style.png(figure))
assert "torch" not in sys.modules  # drawing needs none of it
"""


@pytest.mark.thorough
def test_another_process_draws_the_same_bytes():
    outputs = {
        subprocess.run(
            [sys.executable, "-c", DRAW],
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert len(outputs.pop()) > 10_000
