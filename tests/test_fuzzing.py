"""Whatever comes from outside raises our errors, which name what is wrong, or none."""

from __future__ import annotations

import io
import os
import socketserver
import sys
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import evaluate_attribution
import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from datamodules import DataError, DecodingError, LabelFile, Preprocess, decode_image
from datamodules.boxes import Annotation, read_annotation
from datamodules.classes import ClassTable
from datamodules.errors import AnnotationError
from datamodules.image_sources import download
from datamodules.loader import ThreadedLoader
from datamodules.reader import SampleReader, collate
from datamodules.source import ListingOptions
from datamodules.tar import TarSource
from lightning_modules import VGG16, InputError, WeightsError, load_vgg16, save_vgg16
from lightning_modules.running.folder.run_folder import RunError

BOOST = int(os.environ.get("VGG_LENS_FUZZ", "1"))
"""How many times as many examples are tried; if more, other ones each time."""

FUZZ = settings(
    deadline=None,
    derandomize=BOOST == 1,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def told(error: Exception, prefix: str = "", name: str = "") -> None:
    assert len(str(error)) > len(prefix)
    assert str(error).startswith(prefix)
    assert name in str(error)


def examples(number: int) -> settings:
    return settings(FUZZ, max_examples=number * BOOST)


def mutated(*contents: bytes) -> st.SearchStrategy[bytes]:
    """One of the contents with some bytes changed, put in or cut out, and perhaps the rest cut off."""
    change = st.tuples(st.floats(0, 1), st.binary(max_size=4), st.integers(0, 4))

    def mutate(content: bytes, changes: list[tuple[float, bytes, int]], length: float) -> bytes:
        for place, new, n_old in changes:
            # Rather near the start, where the headers are.
            start = int(place**3 * len(content))
            content = content[:start] + new + content[start + n_old :]
        return content[: int(length * len(content) + 0.5)]

    lengths = st.one_of(st.just(1.0), st.floats(0, 1))
    return st.builds(mutate, st.sampled_from(contents), st.lists(change, min_size=1, max_size=4), lengths)


def encoded(name: str, **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 15, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, name, **options)
    return buffer.getvalue()


IMAGES = [
    *(encoded(name) for name in ("JPEG", "PNG", "GIF", "WebP", "TIFF", "BMP", "PPM")),
    encoded("JPEG", progressive=True, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
    encoded("TIFF", compression="tiff_lzw"),
    b"P6 0 3 255\n",
    b"P5 3 0 255\n",
]


@pytest.mark.slow
@examples(400)
@given(st.one_of(mutated(*IMAGES), st.binary(max_size=50), st.sampled_from(IMAGES)))
def test_images(content: bytes) -> None:
    try:
        image = decode_image(content)
    except DecodingError as error:
        told(error)
        return
    assert image.mode == "RGB"
    pixels = Preprocess(40, 32)(image)
    assert pixels.shape == (3, 32, 32)
    assert pixels.min() >= 0
    assert pixels.max() <= 1


XML = """<?xml version="1.0" encoding="{}"?><annotation><size><width>{}</width><height>{}</height></size>
<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>1</ymin><xmax>{}</xmax><ymax>7</ymax></bndbox></object></annotation>"""
NUMBERS = st.sampled_from(
    ["8", "0", "-3", "nan", "-inf", "1e400", "1e308", "9" * 400, "1_0", "٣", "", " ", "x", "<a/>"]
)


@examples(300)
@given(
    st.one_of(
        st.builds(XML.format, st.sampled_from(["utf-8", "utf-7", "x"]), *[NUMBERS] * 2, st.just("cat"), *[NUMBERS] * 2)
        .map(str.encode),
        mutated(XML.format("utf-8", 8, 9, "cat", 1, 7).encode(), XML.format("utf-16", 8, 9, "cat", 1, 7).encode()),
        st.binary(max_size=50),
    )
)  # fmt: skip
def test_annotations(content: bytes) -> None:
    try:
        annotation = read_annotation(Path("x.xml"), content)
    except AnnotationError as error:
        told(error, "x.xml: ")
        return
    assert isinstance(annotation, Annotation)
    boxes = torch.tensor(annotation.boxes).reshape(-1, 4)
    assert len(boxes) == len(annotation.names) <= 1
    # Boxes lie in the image, as far as numbers of this size can be told apart.
    assert (boxes[:, 2] <= annotation.width).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    Preprocess(40, 32).move_boxes(boxes, annotation.width, annotation.height)


LABELS = [
    b"path,label\na.jpg,tench\nd/b.jpg,goldfish\n",
    b"a.jpg 0\nd/b.jpg 1\n",
    '\ufefffilename;class;split\n"a.jpg";tench;val\n'.encode("utf-16"),
    b"0\n1\n",
]
CELLS = st.sampled_from(
    ["a.jpg", "d/b.jpg", "b", "0", "1", "-1", "7", "1e3", "tench", "label", "path", "", '"', "\t", "é"]
)


@pytest.mark.slow
@examples(300)
@given(
    st.one_of(
        mutated(*LABELS),
        st.binary(max_size=50),
        st.lists(st.lists(CELLS, max_size=3).map(",".join), max_size=4).map(lambda lines: "\n".join(lines).encode()),
    )
)
def test_label_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    try:
        labels = LabelFile(tmp_path / "labels.csv")
        texts, notes = labels.match(pa.array(["a.jpg", "d/b.jpg"]))
        indices = labels.indices(texts.drop_null().to_pylist(), ClassTable(["tench", "goldfish"]))
    except DataError as error:
        told(error, name="labels.csv")
        return
    assert all("labels.csv" in note for note in notes)
    assert set(indices.values()) <= {0, 1}


def shard_of(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


SHARDS = [
    shard_of(("a.png", IMAGES[1]), ("a.cls", b"1"), ("b.jpg", IMAGES[0]), ("b.cls", b"tench")),
    shard_of(("goldfish/a.png", IMAGES[1]), ("goldfish/a.xml", XML.format("utf-8", 8, 9, "tench", 1, 7).encode())),
]
MEMBERS = st.tuples(
    st.sampled_from(["a.png", "a.cls", "a.xml", "a.json", "b.cls", "tench/c.jpg", "..", "a", ".png", "é.png"]),
    st.sampled_from([b"", b"0", b"-1", b"9", b"tench", b"{", b"\xff", *IMAGES[:2]]),
)


@pytest.mark.slow
@examples(150)
@given(st.one_of(mutated(*SHARDS), st.binary(max_size=50), st.lists(MEMBERS, max_size=4).map(lambda m: shard_of(*m))))
def test_shards(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.tar").write_bytes(content)
    try:
        source = TarSource.open(tmp_path / "s.tar", ListingOptions(["tench", "goldfish"]))
        read = partial(source.read, reader=SampleReader(Preprocess(40, 32)))
        batches = list(ThreadedLoader(read, range(len(source)), 2, 0, collate))
    except DataError as error:
        told(error, name="s.tar")
        return
    for batch in batches:
        assert len(batch["image"]) == len(batch["path"]) == len(batch["label"])
        assert set(batch["label"].tolist()) <= {-1, 0, 1}
        assert all(len(message) > 0 for _, message in batch["failed"])


DESCRIPTION = {"class_names": ["a", "b"], "width": 1 / 32, "hidden_features": 4, "input_size": 32, "resize_size": 40}
PLAIN = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.lists(st.integers(), max_size=3)),
    st.sampled_from([0, -1, 1e9, 10**12, 2**70, float("inf"), ["a", 5], ["a", "a"], "ab", {"a": 1}]),
)


def small_checkpoint() -> tuple[dict[str, Any], bytes]:
    network = VGG16(**DESCRIPTION).initialize(0).network()  # type: ignore[arg-type]
    buffer = io.BytesIO()
    save_vgg16(network, buffer)  # type: ignore[arg-type]
    return network.state_dict(), buffer.getvalue()


STATE, CHECKPOINT = small_checkpoint()


def check_weights(file: Path) -> None:
    try:
        network = load_vgg16(file)
    except WeightsError as error:
        told(error)
        return
    size = network.input_size
    assert network(torch.rand(1, 3, size, size)).shape == (1, len(network.class_names))


@examples(80)
@given(content=st.one_of(mutated(CHECKPOINT), st.binary(max_size=30), st.just(CHECKPOINT)))
def test_checkpoints(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    check_weights(tmp_path / "x.pth")


@examples(80)
@given(
    description=st.dictionaries(st.sampled_from([*DESCRIPTION, "batch_norm", "other", 5]), PLAIN, max_size=2),
    state=st.dictionaries(
        st.sampled_from([*STATE, "x", 5]),
        st.sampled_from([0, torch.ones(2), torch.ones(2, dtype=torch.cfloat), torch.ones(2, 3).to_sparse(), "x"]),
        max_size=1,
    ),
)
@pytest.mark.slow
def test_checkpoints_of_other_things(tmp_path: Path, description: dict, state: dict) -> None:
    torch.save({"vgg16": DESCRIPTION | description, "state_dict": STATE | state}, tmp_path / "x.pth")
    check_weights(tmp_path / "x.pth")


@pytest.mark.parametrize("vgg16", [5, "x", [1], {1: 2}])
def test_checkpoints_without_a_description(tmp_path: Path, vgg16: Any) -> None:
    torch.save({"vgg16": vgg16, "state_dict": STATE}, tmp_path / "x.pth")
    with pytest.raises(WeightsError):
        load_vgg16(tmp_path / "x.pth")


class Raw(socketserver.BaseRequestHandler):
    """Answers with whatever it was told to."""

    def handle(self) -> None:
        self.request.recv(65536)
        self.request.sendall(self.server.answer)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def server() -> Iterator[socketserver.TCPServer]:
    with socketserver.TCPServer(("127.0.0.1", 0), Raw) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def answer(status: str, headers: list[str], body: bytes) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode() + body


HEADERS = st.sampled_from(
    [
        *(f"Content-Encoding: {name}" for name in ("gzip", "deflate", "br", "zstd", "x", "gzip, gzip")),
        *(f"Content-Length: {number}" for number in (0, 5, 10**6, -1, "x", 10**30)),
        *(f"Location: {address}" for address in ("/", "http://[", "ftp://x", "//", "http://127.0.0.1:1/", "http://ü..")),
        *("Transfer-Encoding: chunked", "Set-Cookie: =;=", "Content-Type: text/html; charset=x", "no colon", ": x"),
        "x" * 70_000,
    ]
)  # fmt: skip


@examples(150)
@given(
    content=st.one_of(
        st.builds(
            answer,
            st.sampled_from(["200 OK", "206 x", "301 x", "304 x", "404 x", "999 x", "0", "x", "100 Continue", "204 x"]),
            st.lists(HEADERS, max_size=3),
            st.one_of(
                st.binary(max_size=40), st.sampled_from([b"5\r\nabcde\r\n0\r\n\r\n", b"zz\r\nx", encoded("PNG")])
            ),
        ),
        st.binary(max_size=60),
        mutated(answer("200 OK", ["Content-Encoding: gzip", "Content-Length: 10"], b"\x1f\x8b\x08" + bytes(9))),
    )
)
def test_responses(server: socketserver.TCPServer, content: bytes) -> None:
    server.answer = content  # type: ignore[attr-defined]
    try:
        assert isinstance(download(f"http://127.0.0.1:{server.server_address[1]}/x.png", timeout=2), bytes)
    except DecodingError as error:
        told(error)


OPTIONS = [
    *("data.root", "data.batch_size", "data.num_workers", "data.boxes", "model.weights", "model.methods"),
    *(
        "model.metrics",
        "model.target",
        "model.n_figures",
        "trainer.devices",
        "trainer.precision",
        "trainer.accelerator",
    ),
    *(
        "trainer.strategy",
        "trainer.limit_test_batches",
        "out",
        "seed_everything",
        "config",
        "data",
        "model",
        "trainer",
        "x",
    ),
]
VALUES = st.one_of(
    PLAIN,
    st.sampled_from(
        ["GradCAM", ["GradCAM"], [{"class_path": "GradCAM", "init_args": {"layer": 5}}], {"class_path": 5}]
    ),
    st.sampled_from(["cpu", "1", "auto", "heart", "os.system", "shapes", [[]]]),
)


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        group, _, option = name.partition(".")
        if option:
            tree[group] = tree[group] if isinstance(tree.get(group), dict) else {}
            tree[group][option] = value
        else:
            tree[group] = value
    return tree


@pytest.mark.slow
@examples(40)
@given(
    text=st.one_of(
        st.dictionaries(st.sampled_from(OPTIONS), VALUES, min_size=1, max_size=3).map(nested).map(yaml.dump),
        st.text(max_size=20),
        st.sampled_from(
            [
                "*x",
                "a: [",
                "!!python/object:os.system {}",
                "\t",
                "&x [*x]",
                "- 1",
                "5",
                "1: 2",
                "config: false",
                "model:\n  weights: null",
            ]
        ),
    )
)
def test_configurations(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """No image is there to be read, so none of these can run to the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["script"])
    monkeypatch.setattr("sys.path", [*sys.path])
    (tmp_path / "x.yaml").write_text(text)
    (tmp_path / "empty").mkdir(exist_ok=True)
    args = ["--data.root", "empty", "--model.weights", "shapes", "--trainer.accelerator", "cpu", "--out", "run"]
    try:
        evaluate_attribution.main([*args, "--config", "x.yaml"])
    except (DataError, InputError, RunError, MisconfigurationException) as error:
        told(error)
    except ValueError as error:
        # The parser wraps what is raised while it passes a value on; run_main tells the cause.
        if not isinstance(error.__cause__, DataError | InputError):
            raise
    except SystemExit:
        assert "error: " in capsys.readouterr().err
    else:
        pytest.fail("It ran.")
