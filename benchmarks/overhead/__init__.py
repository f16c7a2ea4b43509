"""Seconds per epoch of compiled `lc`, `ista` and `gda` over a bare hand-written loop."""
