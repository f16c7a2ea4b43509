"""`given`: the name that a spec has for a network, and for data, that the program which embeds it hands over."""

from __future__ import annotations

from typing import Final

from prunelang.compiler.arguments import Signature
from prunelang.compiler.catalog import DataFacts, ModelFacts

GIVEN: Final = "given"

NETWORK: Final = ModelFacts(Signature(GIVEN, (), "A network handed over as `prunelang.compile(…, model=net)`."), None)
SAMPLES: Final = DataFacts(
    Signature(GIVEN, (), "Data that a loop of one's own reads: `bind(…, loader=, evaluate=)`."),
    None,
    own_validation=None,
    own_test=None,
)
