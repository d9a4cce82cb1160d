"""``python -m ddim_jax``: the command ``ddim``."""

from ddim_jax.commands.main import main

if __name__ == "__main__":
  main()
