"""`prune report --html`: a run directory as a page that is read without scripts and without a network."""
