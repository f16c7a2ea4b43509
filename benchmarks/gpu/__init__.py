"""One command that puts the whole of the runtime on an accelerator: laws, runs without waits, overhead, projection."""
