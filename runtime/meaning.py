"""The meaning of a problem as canonical JSON: what has to stay the same for two specs to be the same problem.

Blanks, comments, the order of a mapping and the way a bound is written (``5%`` or ``13310``) have no meaning; labels
have, since outcomes go by them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from fractions import Fraction
from typing import Any

from prunelang.compiler.problem import Problem
from prunelang.runtime.exact import written

WITHOUT_MEANING = frozenset({"span", "text", "asked"})


def meaning(problem: Problem) -> str:
    """sha256 of `canonical`."""
    return hashlib.sha256(canonical(problem).encode()).hexdigest()


def canonical(problem: Problem) -> str:
    """The same problem always gives the same text. Raises TypeError for a part that is no plain data."""
    return json.dumps(plain(problem), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def plain(part: Any) -> Any:
    """Plain data of which equal parts of a problem, and they alone, are made. Raises TypeError for other parts."""
    if part is None or isinstance(part, bool | int | str):
        return part
    if isinstance(part, Fraction):
        return written(part)
    if isinstance(part, float):
        return {"float": part.hex()}
    if isinstance(part, Mapping):
        return {str(k): plain(v) for k, v in part.items()}
    if isinstance(part, frozenset | set):
        return sorted((plain(x) for x in part), key=json.dumps)
    if isinstance(part, tuple | list):
        return [plain(x) for x in part]
    if is_dataclass(part) and not isinstance(part, type):
        kept = {f.name: plain(getattr(part, f.name)) for f in fields(part) if f.name not in WITHOUT_MEANING}
        return {"is": type(part).__name__, **kept}
    raise TypeError(f"a problem holds {type(part).__name__}, which has no canonical form")
