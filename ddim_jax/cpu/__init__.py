"""What exists only because of XLA's CPU compiler and glibc; programs for other platforms contain none of it.

The network chooses when a program is lowered (`ddim_jax.unet.operations`), so that one exported from a laptop
for a TPU is one for a TPU. Programs call `devices` before, and `heap` before and after, their first
compilation.
Each piece with its gain, the benchmark that shows it (``python -m experiments.bench``), and when it can go:

- `winograd`: 3x3 convolutions in a quarter of the products (``sample``, ``train``); when XLA's own do it.
- `depthwise`: convolutions of single channels as sums (``features``); when XLA's own are as fast.
- `parts`: a network's batch in parts that stay in the caches (``features``); when XLA does it.
- `groups`: GroupNorm without an integer division for each pixel (``train``); when XLA fuses a reshape so.
- `recomputation`: ``remat`` saves memory (``memory``); when XLA keeps the barriers of `jax.checkpoint`.
- `devices`: small convolutions use all cores (``scaling``); when one device spreads them over all cores.
- `heap`: memory is not cleared and mapped again at each call (``sample``, ``train``); when XLA keeps buffers.
"""
