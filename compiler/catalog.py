"""The networks and data sets that come with the language, as facts: no torch is needed to check a call of one.

The runtime holds the code (`prunelang.runtime.zoo`, `prunelang.runtime.data`); a test compares both. Networks and data
sets that a user registers are described by the same types.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal, TypeAlias

from prunelang.compiler import shape_cache
from prunelang.compiler.arguments import ArgumentError, Parameter, Signature, Value
from prunelang.compiler.shapes import ShapeTable

Task: TypeAlias = Literal["classification", "language", "regression"]
Shape: TypeAlias = tuple[int, ...]

RUNTIME: Final = Path(__file__).parent.parent / "runtime"
# the code that tables depend on: its bytes are part of every cached table's key
TRACERS: Final = tuple(RUNTIME / f"{x}.py" for x in ("trace", "units", "following", "marks", "channels"))


@dataclass(frozen=True)
class Requirement:
    """A package beyond those that prunelang always has, and the extra of prunelang that brings it."""

    package: str
    extra: str

    @property
    def met(self) -> bool:
        """Whether it can be imported; it is looked for, not loaded."""
        return find_spec(self.package) is not None


@dataclass(frozen=True)
class ModelFacts:
    """A network: its signature, the shape of one input (without the batch dimension), and where its code stands.

    `input_shape` is None for a network that does not state one: it then takes the first shape its data set offers.
    """

    signature: Signature
    input_shape: Callable[[Mapping[str, Value]], Shape] | None
    source: Path | None = None
    input_dtype: Literal["float32", "int64"] = "float32"
    requires: Requirement | None = None

    @property
    def name(self) -> str:
        return self.signature.name

    def text(self, values: Mapping[str, Value]) -> str:
        """The canonical constructor text."""
        return self.signature.text(values)


@dataclass(frozen=True)
class DataFacts:
    """A data set: its signature and what can be said before reading it.

    `sample_shapes` gives, for a call's arguments, the shapes in which it can yield one input, the stored one first.
    It is None, `classes` 0 and `sizes` empty where only the file can tell. `sizes` are samples by split.
    """

    signature: Signature
    task: Task | None
    sample_shapes: Callable[[Mapping[str, Value]], tuple[Shape, ...]] | None = None
    classes: int = 0
    sizes: tuple[tuple[str, int], ...] = ()
    own_validation: bool | None = False  # None: the file decides
    own_test: bool | None = True
    source: Path | None = None

    @property
    def name(self) -> str:
        return self.signature.name


@dataclass(frozen=True)
class LossFacts:
    """A loss that a user registers: the signature holds its options, without the leading ``output, target``."""

    signature: Signature
    source: Path | None = None

    @property
    def name(self) -> str:
        return self.signature.name


def source_digest(path: Path) -> str:
    """sha256 of a source file, read as bytes and never imported."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ── arguments that every data set takes ──────────────────────────────────────────────────────────────────────────

BATCH: Final = Parameter("batch", "int", 128, "samples per step", low=1)
VALIDATION: Final = Parameter(
    "validation", "share", Fraction(1, 10), "share cut off train, if something reads it", low=0, high=1
)
SEED: Final = Parameter("seed", "int", 0, "of the validation split; `--seed` orders samples", low=0, high=2**63 - 1)

LOADING: Final = (BATCH, VALIDATION, SEED)

# ── networks ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _classes(default: int) -> Parameter:
    return Parameter("classes", "int", default, "outputs", low=1)


ACTIVATION: Final = Parameter("activation", "choice", "relu", "after every hidden layer", choices=("relu", "tanh"))


def _spiking(steps: int) -> tuple[Parameter, ...]:
    return (
        Parameter("T", "int", steps, "time steps of one input", low=1),
        Parameter("encoding", "choice", "direct", "an input as current, or as spikes", choices=("direct", "poisson")),
        Parameter("tau", "float", 2.0, "time constant of the neurons, in steps", low=1.01),
    )


READOUT: Final = Parameter(
    "readout", "choice", "current", "means of currents, or of spikes, are the output", choices=("current", "rate")
)
SNN: Final = Requirement("spikingjelly", "snn")


def _whole(values: Mapping[str, Value], name: str) -> int:
    value = values[name]
    assert isinstance(value, int)
    return value


def _first_size(values: Mapping[str, Value]) -> Shape:
    sizes = values["sizes"]
    assert isinstance(sizes, tuple)
    return sizes[:1]


def _image(values: Mapping[str, Value]) -> Shape:
    inputs = values["inputs"]
    assert isinstance(inputs, tuple)
    return inputs


def _image_in_two_stages(values: Mapping[str, Value]) -> ArgumentError | None:
    inputs, convs = _image(values), _whole(values, "convs")
    if len(inputs) != 3:
        return ArgumentError("inputs", f"`inputs` is channels, height and width, not {len(inputs)} numbers")
    if min(inputs[1:]) < 4:
        return ArgumentError(
            "inputs", f"two maxima over 2 × 2 need 4 × 4 pixels or more, not {inputs[1]} × {inputs[2]}"
        )
    if convs % 2:
        near = [str(convs - 1), str(convs + 1)] if convs > 2 else ["2"]
        return ArgumentError("convs", f"`convs` is even, two stages of as many: not {convs}", near)
    return None


def _image_to_convolve(values: Mapping[str, Value]) -> ArgumentError | None:
    inputs, channels = _image(values), values["channels"]
    assert isinstance(channels, tuple)
    least = 2 ** (len(channels) + 1) - 1
    if len(inputs) != 3:
        return ArgumentError("inputs", f"`inputs` is channels, height and width, not {len(inputs)} numbers")
    if min(inputs[1:]) >= least:
        return None
    what = "a convolution" if len(channels) == 1 else f"{len(channels)} convolutions"
    return ArgumentError(
        "inputs", f"{what} of stride 2 need {least} × {least} pixels or more, not {inputs[1]} × {inputs[2]}"
    )


def _six_n_plus_two(values: Mapping[str, Value]) -> ArgumentError | None:
    depth = _whole(values, "depth")
    if depth % 6 == 2:
        return None
    low = depth - (depth - 2) % 6
    return ArgumentError("depth", f"`depth` is 6n + 2, not {depth}", [str(n) for n in (low, low + 6) if n >= 8])


def _heads_divide(values: Mapping[str, Value]) -> ArgumentError | None:
    width, heads = _whole(values, "width"), _whole(values, "heads")
    if width % heads == 0:
        return None
    return ArgumentError("heads", f"`heads` divides `width`: {width} / {heads} is not whole")


_ZOO: Final = (
    ModelFacts(
        Signature(
            "mlp",
            (Parameter("sizes", "ints", doc="inputs, hidden widths, outputs", low=1, length=2), ACTIVATION),
            "Fully connected layers fc1, fc2, …",
        ),
        _first_size,
        RUNTIME / "zoo/mlp.py",
    ),
    ModelFacts(
        Signature(
            "lenet_300_100",
            (Parameter("inputs", "int", 784, "entries of one input", low=1), _classes(10), ACTIVATION),
            "LeNet-300-100: fc1, fc2, fc3.",
        ),
        lambda v: (_whole(v, "inputs"),),
        RUNTIME / "zoo/lenet.py",
    ),
    ModelFacts(
        Signature("lenet_5", (_classes(10),), "LeNet-5 as in Caffe, 20-50-500: conv1, conv2, fc1, fc2."),
        lambda v: (1, 28, 28),
        RUNTIME / "zoo/lenet.py",
    ),
    ModelFacts(
        Signature(
            "strided_cnn",
            (
                Parameter("channels", "ints", (32,), "of each convolution", low=1, length=1),
                Parameter("hidden", "ints", (1024, 1024), "widths of the linear layers but the last", low=1, length=1),
                Parameter("inputs", "ints", (1, 28, 28), "channels, height and width of an image", low=1, length=3),
                _classes(10),
            ),
            "Convolutions 3 × 3 of stride 2 and linear layers, ReLU between: conv1, …, fc1, fc2, ….",
            _image_to_convolve,
        ),
        _image,
        RUNTIME / "zoo/strided.py",
    ),
    ModelFacts(
        Signature("resnet20", (_classes(10),), "ResNet-20 for 32 × 32 images."),
        lambda v: (3, 32, 32),
        RUNTIME / "zoo/resnet.py",
    ),
    ModelFacts(
        Signature(
            "resnet_cifar",
            (
                Parameter("depth", "int", doc="6n + 2 layers", low=8),
                Parameter("width", "int", 16, "channels of the first stage", low=1),
                _classes(10),
            ),
            "Residual network for 32 × 32 images: 3 stages of n blocks, depth = 6n + 2.",
            _six_n_plus_two,
        ),
        lambda v: (3, 32, 32),
        RUNTIME / "zoo/resnet.py",
    ),
    ModelFacts(
        Signature("resnet50", (_classes(1000),), "ResNet-50 for 224 × 224 images, stride in the 3 × 3 convolution."),
        lambda v: (3, 224, 224),
        RUNTIME / "zoo/resnet.py",
    ),
    ModelFacts(
        Signature(
            "byte_transformer",
            (
                Parameter("layers", "int", 4, "blocks", low=1),
                Parameter("width", "int", 128, "entries of one position's vector", low=1),
                Parameter("heads", "int", 4, "attention heads; they divide the width", low=1),
                Parameter("context", "int", 128, "positions of one input", low=1),
                Parameter("tied", "bool", False, "the head shares the embedding's tensor"),
            ),
            "Causal transformer over bytes: block1.q, .k, .v, .o, .fc1, .fc2, …, head.",
            _heads_divide,
        ),
        lambda v: (_whole(v, "context"),),
        RUNTIME / "zoo/transformer.py",
        "int64",
    ),
    ModelFacts(
        Signature(
            "snn_mlp",
            (Parameter("sizes", "ints", doc="inputs, hidden widths, outputs", low=1, length=2), *_spiking(8), READOUT),
            "Fully connected spiking network: fc1, fc2, … with leaky integrate-and-fire neurons between.",
        ),
        _first_size,
        RUNTIME / "zoo/spiking.py",
        requires=SNN,
    ),
    ModelFacts(
        Signature(
            "snn_conv",
            (
                Parameter("width", "int", 32, "channels of every convolution", low=1),
                *_spiking(8),
                READOUT,
                Parameter("inputs", "ints", (3, 32, 32), "channels, height and width of an image", low=1, length=3),
                _classes(10),
                Parameter("convs", "int", 6, "convolutions, half of them before the first maximum", low=2),
                Parameter("dropout", "float", 0.0, "share dropped before the linear layers", low=0.0, high=0.99),
            ),
            "Spiking convolutional network: conv1, …, fc1, fc2, of six convolutions and two linear layers.",
            _image_in_two_stages,
        ),
        _image,
        RUNTIME / "zoo/spiking.py",
        requires=SNN,
    ),
    ModelFacts(
        Signature(
            "sew_resnet18",
            (
                *_spiking(4)[:1],
                Parameter("width", "int", 64, "channels of the first stage", low=1),
                *_spiking(4)[1:],
                _classes(10),
            ),
            "Spike-element-wise ResNet-18 for 32 × 32 images.",
        ),
        lambda v: (3, 32, 32),
        RUNTIME / "zoo/spiking.py",
        requires=SNN,
    ),
)

MODELS: Final[Mapping[str, ModelFacts]] = {m.name: m for m in _ZOO}

# ── data sets ────────────────────────────────────────────────────────────────────────────────────────────────────

_IDX: Final = (
    Parameter("root", "path", None, "folder of the four idx files; else PRUNELANG_DATA is searched"),
    Parameter("center", "bool", True, "subtract the mean image of train, after dividing by 255"),
    Parameter("download", "bool", False, "fetch missing files, checked by md5"),
)


def _idx_facts(name: str, doc: str) -> DataFacts:
    return DataFacts(
        Signature(name, _IDX, doc),
        "classification",
        lambda v: ((1, 28, 28), (784,)),
        10,
        (("train", 60_000), ("test", 10_000)),
        source=RUNTIME / "data/mnist.py",
    )


_DATA: Final = (
    DataFacts(
        Signature("digits", (), "1797 handwritten digits of 8 × 8 pixels, scaled to 0…1; nothing to download."),
        "classification",
        lambda v: ((64,), (1, 8, 8)),
        10,
        (("train", 1437), ("test", 360)),
        source=RUNTIME / "data/digits.py",
    ),
    _idx_facts("mnist", "70 000 handwritten digits of 28 × 28 pixels."),
    _idx_facts("fashion_mnist", "70 000 articles of clothing of 28 × 28 pixels."),
    DataFacts(
        Signature(
            "text",
            (
                Parameter("path", "path", doc="any file; its bytes are the tokens"),
                Parameter("context", "int", 128, "positions of one sample", low=1),
                Parameter("test", "share", Fraction(1, 10), "share at the end of the file", low=0, high=1),
            ),
            "A file as a sequence of bytes; the target of each is the next.",
        ),
        "language",
        lambda v: ((_whole(v, "context"),),),
        256,
        source=RUNTIME / "data/text.py",
    ),
    DataFacts(
        Signature(
            "tensors",
            (Parameter("path", "path", doc="a .safetensors or .npz file"),),
            "x_train, y_train, x_test, y_test and, if present, x_validation, y_validation from one file.",
        ),
        None,
        own_validation=None,
        own_test=None,
        source=RUNTIME / "data/tensors.py",
    ),
)

DATA: Final[Mapping[str, DataFacts]] = {d.name: d for d in _DATA}


def cached_shapes(name: str, values: Mapping[str, Value]) -> ShapeTable | None:
    """The shape table of a network of the zoo if it was traced before, read without torch."""
    facts = MODELS[name]
    assert facts.input_shape is not None and facts.source is not None
    text = facts.text(values)
    return shape_cache.read(shape_cache.key(text, facts.input_shape(values), (facts.source, *TRACERS)), text)
