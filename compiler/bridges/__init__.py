"""Bridges: one reformulation a file, each from a (function, set) pair to another that more solvers take."""

from prunelang.compiler.bridges.base import AbstractBridge, Bridged, bridge, bridges

__all__ = ["AbstractBridge", "Bridged", "bridge", "bridges"]
