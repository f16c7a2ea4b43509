"""Bits for a text: model and data against general compressors."""
