from __future__ import annotations

from pathlib import Path

import pytest

from datamodules.boxes import Annotation, read_annotation, write_annotation
from datamodules.errors import AnnotationError

# As in the official files of ILSVRC 2012.
OFFICIAL = """<annotation>
	<folder>val</folder><filename>ILSVRC2012_val_00000001</filename>
	<source><database>ILSVRC_2012</database></source>
	<size><width>500</width><height>375</height><depth>3</depth></size>
	<segmented>0</segmented>
	<object><name>n01751748</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>
		<bndbox><xmin>111</xmin><ymin>108</ymin><xmax>441</xmax><ymax>193</ymax></bndbox></object>
</annotation>
"""


def test_official_layout(tmp_path: Path) -> None:
    (tmp_path / "x.xml").write_text(OFFICIAL)
    assert read_annotation(tmp_path / "x.xml") == Annotation(500, 375, ("n01751748",), ((111, 108, 442, 194),))


def test_round_trip(tmp_path: Path) -> None:
    annotation = Annotation(30, 20, ("a", "b & <c>"), ((0.0, 1.0, 2.0, 3.0), (4.0, 5.0, 30.0, 20.0)))
    write_annotation(tmp_path / "x.xml", annotation)
    assert read_annotation(tmp_path / "x.xml") == annotation


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</annotation>", "", "no element found"),
        ("<width>500</width>", "", "<size><width> should be a number, got None"),
        ("<width>500</width>", "<width>inf</width>", "<size><width> should be a number, got 'inf'"),
    ],
)
def test_malformed(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in OFFICIAL
    (tmp_path / "x.xml").write_text(OFFICIAL.replace(old, new))
    with pytest.raises(AnnotationError, match=rf"x\.xml: .*{message}"):
        read_annotation(tmp_path / "x.xml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<xmin>111</xmin>", "<xmin>left</xmin>", "could not convert"),
        ("<xmin>111</xmin>", "<xmin>nan</xmin>", "<bndbox><xmin> should be a number, got 'nan'"),
        ("<xmax>441</xmax>", "<xmax>11</xmax>", "a box has xmin 111, ymin 108, xmax 11, ymax 193"),
        ("<name>n01751748</name>", "<name/>", "<name> is missing or empty"),
        ("<xmin>111</xmin>", "<xmin>502</xmin>", "a box has"),
        ("<width>500</width>", "<width>90</width>", "a box lies outside the image: xmin 111"),
    ],
)
def test_bad_box_is_left_out_and_told(tmp_path: Path, old: str, new: str, message: str) -> None:
    good = "<object><name>dog</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></object>"
    text = OFFICIAL.replace(old, new).replace("</annotation>", good + "</annotation>")
    (tmp_path / "x.xml").write_text(text)
    annotation = read_annotation(tmp_path / "x.xml")
    assert annotation.names == ("dog",)
    assert annotation.boxes == ((1, 2, 4, 5),)
    (problem,) = annotation.problems
    assert "x.xml: " in problem
    assert message in problem


def test_box_beyond_the_border_is_clipped_and_told(tmp_path: Path) -> None:
    (tmp_path / "x.xml").write_text(OFFICIAL.replace("<xmin>111<", "<xmin>-5<").replace("<xmax>441<", "<xmax>600<"))
    annotation = read_annotation(tmp_path / "x.xml")
    assert annotation.boxes == ((0, 108, 500, 194),)
    assert "was clipped to the image: xmin -5, ymin 108, xmax 600" in annotation.problems[0]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="No such file"):
        read_annotation(tmp_path / "x.xml")
