"""Entropy coding of tensors: one description of the model, read forwards by an encoder and by a decoder."""
