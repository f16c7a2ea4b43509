"""Coded files of LeNet-300-100 beside the other formats and general compressors."""
