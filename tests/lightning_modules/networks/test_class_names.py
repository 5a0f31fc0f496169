from __future__ import annotations

import pytest

from datamodules.batch import ClassTable, DataError
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


class TestText:
    """Text is looked up as a name before it is read as a number, and never read as another number than it shows."""

    NAMES = (*map(str, range(12)), "012", "twelve", "1_0", "on", "null", "1e3")

    @pytest.mark.parametrize(
        ("wanted", "index"), [("012", 12), ("1_0", 14), ("on", 15), ("null", 16), ("1e3", 17), ("13", 13), (12, 12)]
    )
    def test_names_that_look_like_numbers(self, wanted: str | int, index: int) -> None:
        assert find_class(wanted, self.NAMES) == index

    def test_zeros_in_front_of_an_index(self) -> None:
        assert find_class("012", list("abcdefghijklmnop")) == 12

    def test_a_number_that_may_mean_a_name(self) -> None:
        with pytest.raises(InputError, match=r"'12' may be one of 2 classes of the network: class 11.*'012'.*class 12"):
            find_class("12", [*map(str, range(11)), "012", "x", "y"])

    @pytest.mark.parametrize("wanted", ["1_0", "1e1", "0x1", "+1", "٣", "1.0", "", " 1"])
    def test_what_is_no_number(self, wanted: str) -> None:
        with pytest.raises(InputError, match="has no class"):
            find_class(wanted, list("abcdefghijklmnop"))

    def test_two_classes_of_one_name(self) -> None:
        with pytest.raises(InputError, match=r"'crane' may be one of 2 classes.*class 0, called 'crane': 0.*class 2"):
            find_class("crane", ["crane", "heron", "crane"])
        assert find_class(2, ["crane", "heron", "crane"]) == 2

    def test_unicode(self) -> None:
        composed, decomposed = "caf\u00e9", "cafe\u0301"
        assert find_class(composed, ["tea", decomposed]) == find_class(decomposed, ["tea", composed]) == 1

    def test_underscores(self) -> None:
        assert find_class("great_white_shark", imagenet_class_names()) == 2
        assert find_class("a b", ["x", "a_b"]) == 1
        assert find_class("a_b", ["a b", "a_b"]) == 1  # the exact name goes first
        with pytest.raises(InputError, match="may be one of 2 classes"):
            find_class("a_b c", ["a b c", "a_b_c"])

    def test_suggestions_go_by_the_letters_alone(self) -> None:
        with pytest.raises(InputError, match="Did you mean one of: great white shark"):
            find_class("Great_White_Sharc", imagenet_class_names())


@pytest.mark.parametrize("names", ["cat", {"cat": 0}, [1, 2], {"cat", "dog"}, b"cat"])
def test_names_that_are_no_list_of_texts(names: object) -> None:
    with pytest.raises(DataError, match="class_names should be a list of the classes' names as text"):
        ClassTable(names)  # type: ignore[arg-type]


class TestTarget:
    def test_words_and_classes(self) -> None:
        assert find_target("label", ["cat", "dog"], ["label"]) == "label"
        assert find_target("1", ["cat", "dog"], ["label"]) == find_target(1, ["cat", "dog"], ["label"]) == 1

    def test_a_class_that_is_called_like_a_word(self) -> None:
        with pytest.warns(
            UserWarning, match=r"model.target label means the class of each image's folder, not .* class 1"
        ):
            assert find_target("label", ["cat", "label"], ["label"]) == "label"

    def test_a_word_of_another_option_is_a_name(self) -> None:
        assert find_target("least_likely", ["cat", "least_likely"], ["label", "predicted"]) == 1
