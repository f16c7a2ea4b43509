"""Spiking neurons, encodings and state: a thin adapter over spikingjelly (2.x, ``activation_based``).

Sequences are time-major, ``T × N × …``, as spikingjelly has them. Only `lif` needs spikingjelly to be imported.
"""
