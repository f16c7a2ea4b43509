"""Nothing is lost: what a run writes while it trains, and how it is taken up again.

`canon` says what a spec means, `record` keeps it beside the run with its lock, `journal` writes the history and the
checkpoints, `resume` goes on from them.
"""
