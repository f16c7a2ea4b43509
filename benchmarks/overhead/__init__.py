"""Seconds per epoch of compiled `lc` and `ista` over a bare hand-written loop."""
