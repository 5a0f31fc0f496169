from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import VGG16_Weights
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F
from torchvision.transforms._presets import ImageClassification

from datamodules import DataError, DecodingError, Preprocess, decode_image
from datamodules.batch import INTERPOLATIONS


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """An image of random pixels, the worst case for resizing."""
    rng = np.random.default_rng(0)
    channels = {"L": 1, "RGB": 3, "RGBA": 4, "CMYK": 4, "LA": 2}[mode]
    pixels = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels.squeeze() if channels == 1 else pixels, mode)


def mode_of(path: Path) -> str:
    with Image.open(path) as image:
        return image.mode


def expected(path: Path) -> torch.Tensor:
    """torchvision's own transforms, without their normalization: its mean and deviation are taken as 0 and 1."""
    transforms = VGG16_Weights.IMAGENET1K_V1.transforms()
    transforms.mean, transforms.std = [0, 0, 0], [1, 1, 1]
    with Image.open(path) as image:
        return transforms(image.convert("RGB"))


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
class TestEqualsTorchvision:
    def check(self, path: Path) -> None:
        assert torch.equal(Preprocess()(decode_image(path)), expected(path))

    @pytest.mark.parametrize(
        "size",
        [(375, 500), (256, 256), (224, 224), (300, 301), (2000, 1333), (1, 1), (3, 2), (40, 1), (3000, 7), (5, 800)],
    )
    def test_sizes(self, tmp_path: Path, size: tuple[int, int]) -> None:
        noise(*size).save(tmp_path / "x.png")
        self.check(tmp_path / "x.png")

    @pytest.mark.parametrize(
        ("mode", "name"),
        [("RGB", "x.jpg"), ("L", "x.jpg"), ("CMYK", "x.jpg"), ("RGBA", "x.png"), ("LA", "x.png"), ("RGB", "x.webp")],
    )
    def test_modes(self, tmp_path: Path, mode: str, name: str) -> None:
        noise(320, 260, mode).save(tmp_path / name)
        self.check(tmp_path / name)

    def test_palette_with_transparency(self, tmp_path: Path) -> None:
        image = noise(320, 260).quantize(200)
        image.save(tmp_path / "x.png", transparency=bytes(range(200)))
        assert mode_of(tmp_path / "x.png") == "P"
        self.check(tmp_path / "x.png")

    @pytest.mark.photos
    def test_photos(self, photos: Path) -> None:
        files = sorted(photos.glob("*/*"))
        assert files
        for file in files:
            self.check(file)


class TestDecoding:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "the file is empty"),
            (b"this is text", "not an image"),
            (b"\xff\xd8\xff\xe0 broken", "(?i)not an image|truncated"),
        ],
    )
    def test_no_image(self, tmp_path: Path, content: bytes, message: str) -> None:
        (tmp_path / "x.jpg").write_bytes(content)
        for source in (tmp_path / "x.jpg", content):
            with pytest.raises(DecodingError, match=message):
                decode_image(source)

    def test_missing_and_directory(self, tmp_path: Path) -> None:
        with pytest.raises(DecodingError, match="No such file"):
            decode_image(tmp_path / "x.jpg")
        (tmp_path / "x.jpg").mkdir()
        with pytest.raises(DecodingError, match="Is a directory"):
            decode_image(tmp_path / "x.jpg")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_permissions(self, tmp_path: Path) -> None:
        noise(10, 10).save(tmp_path / "x.png")
        (tmp_path / "x.png").chmod(0)
        with pytest.raises(DecodingError, match="Permission denied"):
            decode_image(tmp_path / "x.png")

    def test_bomb_is_refused_before_decoding(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Image.new("L", (12000, 10000)).save(tmp_path / "x.png")
        monkeypatch.setattr(Image.Image, "convert", None)
        with pytest.raises(DecodingError, match="12000 × 10000 pixels are more than 100,000,000"):
            decode_image(tmp_path / "x.png")

    def test_first_frame_of_an_animation(self, tmp_path: Path) -> None:
        frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
        frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
        assert decode_image(tmp_path / "x.gif").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(
    ("size", "resize_size", "input_size"),
    [
        ((500, 375), 232, 224),
        ((131, 257), 64, 64),
        ((40, 90), 31, 64),
        ((90, 41), 30, 63),
        ((64, 64), 64, 64),
        ((300, 200), 80, 120),
    ],
)
def test_equals_torchvisions_preset(
    size: tuple[int, int], resize_size: int, input_size: int, interpolation: str
) -> None:
    mode = InterpolationMode(interpolation)
    preset = ImageClassification(
        crop_size=input_size, resize_size=resize_size, mean=(0, 0, 0), std=(1, 1, 1), interpolation=mode
    )
    image = noise(*size)
    assert torch.equal(Preprocess(resize_size, input_size, interpolation)(image), preset(image))


class TestPreprocess:
    def test_a_strip_that_would_be_resized_to_gigabytes(self) -> None:
        with pytest.raises(DecodingError, match="20000 × 3 pixels would be resized to 1,706,666 × 256, more than"):
            Preprocess()(noise(20000, 3))

    def test_an_image_of_the_right_size_is_used_as_it_is(self) -> None:
        image = noise(224, 224)
        pixels = F.convert_image_dtype(F.pil_to_tensor(image), torch.float32)
        assert torch.equal(Preprocess(None, 224)(image), pixels)
        assert torch.equal(Preprocess(None, 224)(noise(300, 224)), F.to_tensor(F.center_crop(noise(300, 224), [224])))
        assert Preprocess(None, 224).view(224, 224) == (0, 0, 224, 224)
        boxes = torch.tensor([[3.0, 5.0, 100.0, 224.0]])
        assert torch.equal(Preprocess(None, 224).move_boxes(boxes, 224, 224), boxes)
        assert not torch.equal(Preprocess(256, 224)(image), pixels)
        for size in ((500, 375), (100, 300)):
            assert torch.equal(Preprocess(None, 224)(noise(*size)), Preprocess(224, 224)(noise(*size)))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"resize_size": 0}, "resize_size must be from 1 to 10,000 pixels, got 0"),
            ({"input_size": -1}, "input_size must be from 1 to 10,000 pixels, got -1"),
            ({"interpolation": "cubic"}, "interpolation should be one of nearest, bilinear, bicubic, .*got 'cubic'"),
        ],
    )
    def test_bad_options(self, options: dict, message: str) -> None:
        with pytest.raises(DataError, match=message):
            Preprocess(**options)

    @pytest.mark.parametrize("size", [(500, 375), (375, 500), (131, 257), (128, 128)])
    @pytest.mark.parametrize(
        "preprocess", [Preprocess(128, 112), Preprocess(None, 128), Preprocess(89, 112, "bicubic")]
    )
    def test_boxes_move_with_the_pixels(self, size: tuple[int, int], preprocess: Preprocess) -> None:
        """A bright rectangle is found, after preprocessing, where its box was moved to."""
        width, height = size
        box = torch.tensor([[width * 0.4, height * 0.45, width * 0.6, height * 0.7]]).round()
        left, top, right, bottom = (int(v) for v in box[0])
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[top:bottom, left:right] = 255
        bright = preprocess(Image.fromarray(pixels))[0] > 0.5
        rows, columns = bright.any(1).nonzero()[:, 0], bright.any(0).nonzero()[:, 0]
        found = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        assert (preprocess.move_boxes(box, width, height)[0] - found).abs().max() <= 1

    def test_boxes_are_clipped(self) -> None:
        boxes = torch.tensor([[0.0, 0.0, 500.0, 375.0], [0.0, 0.0, 10.0, 10.0]])
        moved = Preprocess().move_boxes(boxes, 500, 375)
        assert moved[0].tolist() == [0, 0, 224, 224]
        assert (moved[1, 2:] - moved[1, :2]).prod() == 0

    def test_view_covers_the_crop(self) -> None:
        image = noise(500, 375)
        left, top, right, bottom = Preprocess().view(500, 375)
        assert F.resize(image, [256]).size == Preprocess().resized(500, 375)
        assert right - left == pytest.approx(bottom - top, abs=0.5)
        assert (left + right) / 2 == pytest.approx(250, abs=1)
        assert (top + bottom) / 2 == pytest.approx(187.5, abs=1)
