"""Training runs: what is minimised, by which optimiser. Needs the ``train`` extra."""
