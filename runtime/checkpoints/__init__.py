"""Checkpoints: the state of a run as plain data, written whole or not at all, and put back bit for bit.

`tree` turns values into JSON beside tensors, `parts` knows the objects that a machine holds, `state` the machine,
`folder` the numbered directories with their digests.
"""
