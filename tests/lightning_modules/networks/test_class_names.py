from __future__ import annotations

import pytest

from datamodules.imagenet import imagenet_class_names
from lightning_modules.errors import InputError
from lightning_modules.networks.class_names import find_class, find_target


def test_a_class_by_name_by_wordnet_id_and_by_index() -> None:
    assert [find_class(wanted, ["cat", "dog"]) for wanted in ("dog", "0", 1)] == [1, 0, 1]
    assert [find_class(wanted, imagenet_class_names()) for wanted in ("tabby", "n02123045", "281")] == [281] * 3
    assert find_class("0", ["1", "0"]) == 1


@pytest.mark.parametrize("wanted", ["2", 2, -1])
def test_an_index_out_of_range(wanted: str | int) -> None:
    with pytest.raises(InputError, match=f"There is no class {wanted}: the network has classes 0 to 1\\."):
        find_class(wanted, ["cat", "dog"])


def test_a_name_that_is_none() -> None:
    with pytest.raises(InputError, match=r"The network has no class 'rin'\. Did you mean one of: ring\?"):
        find_class("rin", ["arrow", "ring"])
    with pytest.raises(InputError, match=r"no class 'n02123045'\. Did you mean one of: cat, dog\?"):
        find_class("n02123045", ["cat", "dog"])


def test_a_name_of_two_classes() -> None:
    with pytest.raises(InputError, match="'cat' may be one of 2 classes of the network: class 0"):
        find_class("cat", ["cat", "cat"])


def test_words_mean_the_same_with_every_network() -> None:
    words = ("label", "predicted")
    assert find_target("label", ["cat", "dog"], words) == "label"
    assert find_target("dog", ["cat", "dog"], words) == 1
    assert find_target("least_likely", ["cat", "least_likely"], words) == 1  # no word of this option
    with pytest.warns(UserWarning, match="model.target predicted means the class that each image is predicted to be"):
        assert find_target("predicted", ["cat", "predicted"], words) == "predicted"
