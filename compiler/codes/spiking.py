"""P470–P474: spiking networks."""

from __future__ import annotations

from prunelang.compiler.codes.base import Code

SPIKING = (
    Code(
        "P470",
        "network of an extra that is not installed",
        "A network of the zoo needs a package that prunelang does not always bring.",
        "Spiking networks are made of the neurons of spikingjelly, which nothing else here uses.",
        'Install the extra: `pip install "prunelang[snn]"`. Beside a CPU build of torch, where torchvision does not '
        "load, `pip install --no-deps spikingjelly loguru tqdm` is enough.",
    ),
    Code(
        "P471",
        "spikes drawn from centred images",
        "`encoding = poisson` reads entries as probabilities of a spike, and the data set subtracts its mean image.",
        "An entry of 0 or less never fires, so that everything darker than the mean would be lost.",
        "Write `center = false` in `data`, or let the network read currents: `encoding = direct`.",
    ),
)
