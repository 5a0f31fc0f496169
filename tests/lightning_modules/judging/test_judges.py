from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from datamodules.imagenet import imagenet_class_names
from datamodules.preprocess import Preprocess
from lightning_modules import InputError, Network, WeightsError, as_network
from lightning_modules.judging import Judge, load_judges, warn_of_judges
from lightning_modules.judging.judges import with_verdicts


class Brightness(nn.Module):
    """Logits that are the mean of the image's red, green, blue, times what is wanted; as many classes as weights."""

    def __init__(self, weights: Sequence[float] = (1, 2, 3)) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights, dtype=torch.float32))

    def forward(self, images: Tensor) -> Tensor:
        channels = images.mean((2, 3))
        return torch.stack([channels[:, k % 3] for k in range(len(self.weights))], 1) * self.weights


def network(names: Sequence[str] | None = ("red", "green", "blue"), size: int = 8, **options: object) -> Network:
    weights = options.pop("weights", (1, 2, 3))
    module = Brightness(weights)  # type: ignore[arg-type]
    return as_network(module.eval(), class_names=names, input_size=size, **options).freeze()  # type: ignore[arg-type]


MAKER = ("red", "blue", "green")


def judge(
    names: Sequence[str] | None = ("red", "green", "blue"), maker: Sequence[str] = MAKER, **options: object
) -> Judge:
    maker_network = network([str(k) for k in range(len(maker))], weights=(4, 5, 6)[: len(maker)])
    other = network(None, **options)
    maker_network.options["class_names"] = list(maker)  # past what is checked where they are said
    other.options["class_names"] = list(names) if names else [*"012"]
    other.sources["class_names"] = "the user" if names else "nobody"
    return Judge("other", other, maker_network)


def verdict(judge: Judge, pixels: np.ndarray, target: int) -> dict[str, Any]:
    return with_verdicts({}, [judge], pixels, target)


def picture(size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)


class TestWhatItSays:
    @pytest.mark.parametrize("size", [8, 12, 5])
    def test_by_hand(self, size: int) -> None:
        pixels = picture(size)
        image = Preprocess(None, 8, "bilinear")(Image.fromarray(pixels)).double()
        logits = image.mean((1, 2)) * torch.tensor([1.0, 2.0, 3.0])
        order = logits.argsort(descending=True).tolist()
        row = verdict(judge(), pixels, 1)  # blue, which is the judge's class 2
        assert row["judge.other.rank"] == order.index(2) + 1
        assert row["judge.other.probability"] == pytest.approx(float(logits.softmax(0)[2]), rel=1e-5)
        assert row["judge.other.prediction_name"] == ("red", "green", "blue")[order[0]]

    def test_its_own_interpolation(self) -> None:
        pixels = picture(20)
        found = [
            verdict(judge(interpolation=way), pixels, 0)["judge.other.probability"] for way in ("nearest", "bicubic")
        ]
        for way, value in zip(("nearest", "bicubic"), found):
            image = Preprocess(None, 8, way)(Image.fromarray(pixels))
            logits = network(interpolation=way)(image[None])[0]
            assert value == pytest.approx(float(logits.softmax(0)[0]), rel=1e-6)
        assert found[0] != found[1]

    def test_equal_logits_have_one_order(self) -> None:
        black = np.zeros((8, 8, 3), np.uint8)
        ranks = {name: verdict(judge(), black, target) for target, name in enumerate(MAKER)}
        assert [ranks[name]["judge.other.rank"] for name in ("red", "green", "blue")] == [1, 2, 3]
        assert {row["judge.other.prediction_name"] for row in ranks.values()} == {"red"}

    def test_what_is_no_number_fails(self) -> None:
        broken = judge()
        with torch.no_grad():
            broken.network.module.weights[0] = torch.nan
        error = "the judge other: the network's logits are NaN"
        assert verdict(broken, picture(), 0) == {"status": "failed", "error": error}

    def test_neither_inference_mode_nor_autocast_matter(self) -> None:
        asked = judge()
        plain = verdict(asked, picture(), 0)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            assert verdict(asked, picture(), 0) == plain


class TestClassesByTheirNames:
    def test_the_same_table_is_direct(self) -> None:
        """Also where two classes are called the same."""
        double = judge(("red", "red", "blue"), maker=("red", "red", "blue"))
        assert [double.class_of(k) for k in range(3)] == [0, 1, 2]

    def test_another_order_and_underscores(self) -> None:
        other = judge(("b l", "green", "red"), maker=("red", "b_l", "green"))
        assert [other.class_of(k) for k in range(3)] == [2, 0, 1]

    def test_a_class_that_it_lacks(self) -> None:
        other = judge(("red", "green", "cyan"))
        other.check([0, 2])
        with pytest.raises(InputError, match=r"other has no class called 'blue', of which .* are red, green, cyan\. "):
            other.check([0, 1, 2])

    @pytest.mark.parametrize(("its", "makers"), [(("red", "red", "blue"), MAKER), (MAKER, ("red", "red", "blue"))])
    def test_two_classes_of_a_name(self, its: Sequence[str], makers: Sequence[str]) -> None:
        with pytest.raises(InputError, match=r"model.judges: other is asked .* 'red' may be one of 2 classes"):
            judge(its, maker=makers).check([0])

    def test_numbers_are_no_names(self) -> None:
        numbered = judge(None, maker=("2", "1", "0"))
        with pytest.raises(InputError, match="no class called '2'"):
            numbered.check([0])

    def test_as_many_numbers_are_told(self) -> None:
        numbered = Judge("other", network(None), network(None, weights=(3, 2, 1)))
        assert numbered.class_of(2) == 2
        with pytest.warns(UserWarning, match="nobody says what the classes of other are called"):
            warn_of_judges([numbered], 0, 1)


class TestLoading:
    def test_names(self) -> None:
        maker = network()
        lite = {"network": "efficientnet_lite0", "weights": "random", "input_size": 32}
        squeeze = {"class_path": "torchvision.models.squeezenet1_1", "init_args": {"num_classes": 3}}
        options = {"class_names": ["red", "green", "blue"], "input_size": 64, "weights": "random"}
        judges = load_judges([lite, {**squeeze, **options}, {**lite, "name": "my own"}], maker)
        assert [each.name for each in judges] == ["efficientnet_lite0", "squeezenet1_1", "my_own"]
        assert [each.n_classes for each in judges] == [1000, 3, 1000]
        assert judges[0].network.class_names == imagenet_class_names()
        assert not any(parameter.requires_grad for parameter in judges[1].network.parameters())

    def test_one_network_with_two_weights(self, tmp_path: Path) -> None:
        torch.save(Brightness().state_dict(), tmp_path / "a.b.pth")
        torch.save(Brightness((3, 2, 1)).state_dict(), tmp_path / "c.pth")
        common = {"network": f"{__name__}.Brightness", "class_names": list(MAKER), "input_size": 8}
        of_files = [{**common, "weights": str(tmp_path / name)} for name in ("a.b.pth", "c.pth")]
        with pytest.warns(UserWarning, match="how its images are normalized"):
            assert [each.name for each in load_judges(of_files, network())] == ["Brightness_a.b", "Brightness_c"]

    @pytest.mark.parametrize(
        ("wanted", "message"),
        [
            ("vgg17", r"model.judges, vgg17: network is 'vgg17': neither vgg16 nor efficientnet_lite0 nor"),
            ({"network": "vgg16", "weights": "no.pth"}, r"model.judges, vgg16: No weights are called 'no.pth'"),
            ({"network": "vgg16", "wieghts": "shapes"}, "a judge has no option 'wieghts'; it has network, weights, "),
            ({"weights": "shapes"}, "names no network"),
            (3, "3 is no network"),
            ({"network": "vgg16", "weights": "shapes", "mean": [1]}, "model.judges, vgg16: .*mean and std belong"),
        ],
    )
    def test_refused(self, wanted: object, message: str) -> None:
        with pytest.raises(InputError, match=message) as found:
            load_judges([wanted], network())  # type: ignore[list-item]
        assert isinstance(found.value, WeightsError) == ("no.pth" in message)
        assert len(str(found.value).splitlines()) == 1

    def test_two_of_one_name(self) -> None:
        with pytest.raises(InputError, match=r"two are called vgg16_shapes\. Give each a name"):
            load_judges([{"network": "vgg16", "weights": "shapes"}] * 2, network())


def test_the_maker_as_its_own_judge_is_told() -> None:
    own = Judge("own", network(size=6), network(size=8))
    assert own.had_part
    assert not judge().had_part
    with pytest.warns(UserWarning, match="own has the weights of the network that makes the images"):
        warn_of_judges([own], 0, 1)


@pytest.mark.parametrize(("n_channels", "words"), [(2, "2 of the 3 units"), (3, "all units")])
def test_channels_are_told(n_channels: int, words: str) -> None:
    with pytest.warns(UserWarning, match=f"{words} of data.classes are channels"):
        warn_of_judges([judge()], n_channels, 3)
