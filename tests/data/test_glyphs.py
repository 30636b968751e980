"""Glyphs: every image is a function of its index, and can be read."""

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from shortcut_models import InputError
from shortcut_models.data import choose, glyphs, take
from shortcut_models.data.glyphs import CHARACTERS, FONTS, LENGTH, Glyphs, GlyphSource
from shortcut_models.data.pipeline import batch_dataset

GOLDEN = Path(__file__).parents[1] / "golden" / "glyphs.npz"
SOME = np.arange(0, 62 * 40, 17)


@pytest.fixture(scope="module")
def source() -> GlyphSource:
    return Glyphs().open()


def stack(source: GlyphSource, indices: np.ndarray) -> np.ndarray:
    return take(source, indices)["image"]


def brightness(images: np.ndarray) -> np.ndarray:
    return images @ np.array(glyphs.BRIGHTNESS) / 255


def test_an_image_is_a_function_of_its_index(source: GlyphSource) -> None:
    images, again = stack(source, SOME), stack(Glyphs().open(), SOME[::-1])[::-1]
    np.testing.assert_array_equal(images, again)
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(SOME)


def test_images_and_labels_are_what_the_seam_asks_for(source: GlyphSource) -> None:
    assert choose("glyphs") == Glyphs()
    for index in (0, 61, 62, LENGTH - 1):
        example = source[index]
        assert example["image"].shape == Glyphs().shape == (32, 32, 3)
        assert example["image"].dtype == np.uint8
        assert example["image"].flags.c_contiguous
        assert example["label"] == index % 62
    for outside in (-1, LENGTH):
        with pytest.raises(IndexError, match=f"index {outside} is outside 0 to"):
            source[outside]


def test_labels_are_balanced_and_have_names(source: GlyphSource) -> None:
    assert len(source) == LENGTH == 62 * 2**24
    assert LENGTH < 2**31
    assert np.bincount([source[i]["label"] for i in range(62 * 3)]).tolist() == [3] * 62
    assert "".join(Glyphs().class_names) == CHARACTERS
    assert CHARACTERS[10] == "A"
    assert Glyphs().num_classes == 62


def test_the_held_out_split_has_draws_of_its_own(source: GlyphSource) -> None:
    held_out = Glyphs().open("test")
    assert len(held_out) == LENGTH
    train, test = ({image.tobytes() for image in stack(s, np.arange(500))} for s in (source, held_out))
    assert len(train | test) == 1000
    # It goes on where the first split ends: their numbers are disjoint.
    last, first = (glyphs.uniform(number) for number in (LENGTH - 1, LENGTH))
    masks = glyphs.render(font_folder())
    np.testing.assert_array_equal(source[LENGTH - 1]["image"], glyphs.draw(masks[61], last))
    np.testing.assert_array_equal(held_out[0]["image"], glyphs.draw(masks[0], first))


def font_folder() -> Path:
    import matplotlib as mpl

    return Path(mpl.get_data_path()) / "fonts" / "ttf"


def test_the_random_numbers_are_uniform_and_pinned() -> None:
    drawn = np.array([glyphs.uniform(number) for number in range(2000)])
    assert drawn.shape == (2000, 20)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    # Of 2,000 draws, means vary by 0.0065 and correlations by 0.022.
    assert np.abs(drawn.mean(axis=0) - 0.5).max() < 0.03
    assert np.abs(np.corrcoef(drawn.T) - np.eye(20)).max() < 0.1
    assert np.abs(np.corrcoef(drawn[:-1].T, drawn[1:].T)[:20, 20:]).max() < 0.1
    np.testing.assert_array_equal(glyphs.uniform(5)[:3], [0.6630649480445964, 0.7295394395539843, 0.7904880071000833])
    assert len({tuple(glyphs.uniform(2**k)) for k in range(60)}) == 60


def test_the_images_are_those_of_the_data_set() -> None:
    # Rotations and edges hang on the font renderer's and the C compiler's rounding; another font, colour or place
    # would differ by far more.
    stored = np.load(GOLDEN)
    for split, name in (("train", "train"), ("test", "held_out")):
        images = stack(Glyphs().open(split), stored["indices"]).astype(int)
        difference = np.abs(images - stored[name])
        assert difference.mean() < 1
        assert difference.max() < 48


def test_fonts_that_are_missing_are_named(tmp_path: Path) -> None:
    for name in FONTS[:-1]:
        (tmp_path / name).symlink_to(font_folder() / name)
    with pytest.raises(InputError, match=r"font cmtt10.ttf is not in .*: install a matplotlib that carries it"):
        glyphs.render(tmp_path)


def test_every_font_has_every_character_and_no_two_are_alike() -> None:
    masks = glyphs.render(font_folder())
    assert len(masks) == 62
    assert {len(row) for row in masks} == {len(FONTS)} == {21}
    flat = np.array([[np.asarray(mask) for mask in row] for row in masks]).reshape(62, 21, -1)
    assert flat.max(axis=2).min() > 150  # Even hairlines have their ink.
    for font in range(21):
        assert len({mask.tobytes() for mask in flat[:, font]}) == 62
    # Capitals are 17 pixels high and stand on pixel row 23, in all fonts; blurring adds a little at both ends.
    rows = np.array([np.flatnonzero((np.asarray(mask) > 100).any(axis=1))[[0, -1]] for mask in masks[17]])
    np.testing.assert_allclose(rows, [[6 * 4, 23 * 4 - 1]] * 21, atol=2)


def test_a_glyph_lies_inside_the_image_and_stands_out(source: GlyphSource) -> None:
    # The border is background; the ink is darker than all of a bright one, and brighter than all of a dark one.
    images = brightness(stack(source, SOME))
    border = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
    bright = np.median(border, axis=1) > 0.5
    darker, brighter = border.min(axis=1) - images.min(axis=(1, 2)), images.max(axis=(1, 2)) - border.max(axis=1)
    contrast = np.where(bright, darker, brighter)
    assert 0.4 < bright.mean() < 0.6
    assert np.mean(contrast > 0.2) > 0.97  # The others touch the border, or are thin.
    assert np.median(contrast) > 0.4


def test_half_of_the_backgrounds_are_plain(source: GlyphSource) -> None:
    images = stack(source, SOME).astype(int)
    corners = images[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    plain = np.mean(np.ptp(corners, axis=1).max(axis=1) == 0)
    assert 0.4 < plain < 0.6


def test_a_colour_has_the_brightness_that_was_drawn() -> None:
    rng = np.random.default_rng(0)
    for level, *rgb in rng.uniform(size=(200, 4)):
        for low, high in (glyphs.DARK, glyphs.LIGHT):
            colour = glyphs._colour((low, high), level, *rgb)
            assert colour.min() >= -1e-6
            assert colour.max() <= 1 + 1e-6
            assert float(brightness(255 * colour[:, 0])) == pytest.approx(low + (high - low) * level, abs=1e-5)


def test_an_image_is_ink_over_paper_by_hand() -> None:
    # Nothing turned, scaled or shifted: a pixel is the mean of the mask's four samples at its centre.
    u = [0.0, 0.5, 0.5, 0.5, 0.5, 0.1, 0.2, 0.3, *np.linspace(0.1, 0.9, 12)]
    mask = glyphs.render(font_folder())[11][0]
    found = glyphs.draw([mask], u)
    fine = np.asarray(mask).astype(float).reshape(32, 4, 32, 4)
    cover = fine[:, 1:3, :, 1:3].mean(axis=(1, 3))[..., None] / 255
    start, end = (glyphs._colour(glyphs.LIGHT, *u[i : i + 4])[:, 0] for i in (8, 12))
    ink = glyphs._colour(glyphs.DARK, *u[16:])[:, 0]
    place = (np.arange(32) + 0.5) / 32 - 0.5
    x, y = np.meshgrid(place, place)
    cos, sin = np.cos(0.6 * np.pi), np.sin(0.6 * np.pi)
    share = (0.5 + (x * cos + y * sin) / (abs(cos) + abs(sin)))[..., None]
    assert share.min() > 0
    assert share.max() < 1
    expected = 255 * (cover * ink + (1 - cover) * (start + (end - start) * share))
    np.testing.assert_allclose(found, expected, atol=1.5)


def bar(place: int, extreme: float) -> tuple[float, float, float, float]:
    """Centre, relative size and angle in degrees of a bar, when one of the draws is at its end."""
    mask = Image.new("L", (128, 128))
    mask.paste(255, (40, 56, 88, 72))  # 12 pixels by 4, in the middle.
    u = [0.0, 0.5, 0.5, 0.5, 0.5, 0.1, 0.9, *[0.5] * 13]
    u[place] = extreme
    picture = glyphs.draw([mask.filter(ImageFilter.GaussianBlur(1.4))], u).astype(float).mean(axis=2)
    ink = picture.max() - picture
    ink /= ink.max()
    y, x = np.mgrid[:32, :32] - 15.5
    (right, down), total = ((ink * axis).sum() / ink.sum() for axis in (x, y)), ink.sum()
    spread = np.cov(x.ravel(), y.ravel(), aweights=ink.ravel())
    angle = 0.5 * np.arctan2(2 * spread[0, 1], spread[0, 0] - spread[1, 1])
    return right, down, float(np.sqrt(total / 48)), float(np.degrees(angle))


@pytest.mark.parametrize(
    ("place", "lowest", "highest"),
    [
        (1, (0, 0, 1, -12), (0, 0, 1, 12)),
        (2, (0, 0, 0.88, 0), (0, 0, 1.12, 0)),
        (3, (-1.5, 0, 1, 0), (1.5, 0, 1, 0)),
        (4, (0, -1.5, 1, 0), (0, 1.5, 1, 0)),
    ],
    ids=["turn", "size", "right", "down"],
)
def test_a_draw_moves_the_ink_as_far_as_it_says(
    place: int, lowest: tuple[float, ...], highest: tuple[float, ...]
) -> None:
    for extreme, expected in ((0.0, lowest), (1.0, highest)):
        np.testing.assert_allclose(bar(place, extreme), expected, atol=0.1)


def test_training_reads_them_in_an_order_of_the_seed() -> None:
    class Labels(GlyphSource):
        """Counts what is asked for."""

        def __getitem__(self, index: int) -> dict[str, object]:
            asked.append(index)
            return super().__getitem__(index)

    asked: list[int] = []
    started = time.process_time()
    one, two = batch_dataset(Labels(0), 64, seed=1), batch_dataset(Labels(0), 64, seed=1)
    np.testing.assert_array_equal(one[10**6]["image"], two[10**6]["image"])
    assert asked[:64] == asked[64:]
    assert len(set(asked)) == 64
    assert max(asked) > LENGTH / 2  # The order is not cut off.
    assert not np.array_equal(batch_dataset(Labels(0), 64, seed=2)[10**6]["label"], one[10**6]["label"])
    assert len(one) > 2**40  # Without end, in steps.
    assert time.process_time() - started < 2
