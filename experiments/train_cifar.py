"""Trains the paper's model of CIFAR-10: ``python -m experiments.train_cifar --workdir DIR``.

The same as ``ddim train cifar10``; every option of it works here too.
"""

import sys

from ddim_jax.commands.main import main

if __name__ == "__main__":
  main(["train", "cifar10", *sys.argv[1:]])
