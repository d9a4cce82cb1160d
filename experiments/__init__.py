"""What a person runs: thin programs over `ddim_jax`. Start with ``python -m experiments.demo``."""
