"""``ddim export``: a model as one file."""

from collections.abc import Sequence

from ddim_jax.commands import options, outputs
from ddim_jax.console import say
from ddim_jax.ranges import Count, Rate


def export(
  model: options.Where,
  out: options.Out,
  *,
  step: Count | None = None,
  ema: Rate | None = None,
  half: bool = True,
  image_size: options.Size = None,
  flags: options.Flags = None,
) -> None:
  """Writes the weights and the configuration of a model as safetensors; every command takes such a file.

  ddim export runs/mine mine.safetensors

  Args:
    model: The model.
    out: File to write, ending in .safetensors.
    step: Checkpoint of a run to use; the newest by default.
    ema: Decay of the EMA to use, of those the run has kept; its main one by default.
    half: Round the weights to float16.
    image_size: See `options.Size`.
    flags: See `options.Flags`.
  """
  out = outputs.place(out, model, "", (".safetensors",))
  found = options.model(model, step, ema, size=image_size, flags=flags)
  found.save(out, half=half)
  seen = found.step * found.config.optimisation.batch_size
  say(f"wrote {out}: step {found.step:,}, {seen:,} images seen, {out.stat().st_size / 1e6:.2f} MB")


def main(argv: Sequence[str]) -> None:
  """Parses, writes and exits."""
  options.run(export, argv, "ddim export")
