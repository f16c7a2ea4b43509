"""The LC toolkit's own setting on LeNet-300-100, run as a spec."""
