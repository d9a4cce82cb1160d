"""Options of the scripts of improved-diffusion and guided-diffusion: what they say of a network's weights."""

import shlex
from collections.abc import Mapping
from typing import Any

from ddim_jax.interop.adm_configs import FLAGS, Shape
from ddim_jax.interop.scheduler_defaults import choose

Flags = Mapping[str, Any] | str
"""By name; or in one line, in the words of their scripts: ``"num_head_channels 64 image_size 256"``."""
TOLD: dict[str, Any] = {
  "num_channels": 128,
  "num_res_blocks": 2,
  "channel_mult": "",
  "attention_resolutions": "",
  "class_cond": False,
  "learn_sigma": False,
  "use_scale_shift_norm": True,
  "resblock_updown": False,
}
"""Options that weights tell: where they are given, they must be what the weights say."""
_ASIDE = dict.fromkeys(("use_fp16", "use_checkpoint", "use_kl", "rescale_learned_sigmas"), False)
"""Options of their command lines that have no effect on what a trained network computes."""
_ALL = FLAGS | TOLD | _ASIDE | {"image_size": 64}
_BOOLS = {"true": True, "t": True, "yes": True, "y": True, "1": True}
_BOOLS |= {"false": False, "f": False, "no": False, "n": False, "0": False}


def parse(flags: Flags | None) -> dict[str, Any]:
  """Flags by name, each of the type of its default.

  Args:
    flags: A line has names and values in turn, perhaps with ``=`` between and dashes before the names.

  Raises:
    ValueError: If there is no such flag, or its value is none.
  """
  if not isinstance(flags, str):
    return {name: _value(name, value) for name, value in (flags or {}).items()}
  words = shlex.split(flags.replace("=", " "))
  if len(words) % 2:
    raise ValueError(f"flags must be names and values in turn, such as 'num_head_channels 64', got {flags!r}")
  return {name: _value(name, word) for name, word in _pairs(words)}


def _pairs(words: list[str]) -> list[tuple[str, str]]:
  return [(name.lstrip("-"), word) for name, word in zip(words[::2], words[1::2], strict=True)]


def _value(name: str, value: Any) -> Any:
  if name not in _ALL:
    raise ValueError(f"flags must be some of {', '.join([*FLAGS, *TOLD])}, got {name}")
  kind = type(_ALL[name])
  found: Any = value
  if isinstance(value, str) and kind is not str:
    try:
      found = _BOOLS[value.lower()] if kind is bool else kind(value)
    except (KeyError, ValueError):
      found = None
  whole = kind is int and isinstance(found, int) and not isinstance(found, bool)
  right = whole or isinstance(found, (int, float) if kind is float else kind)
  if kind is int:
    right = whole and (found >= 1 or (name, found) == ("num_head_channels", -1))
  if kind is float:
    right = right and 0 <= found < 1
  if not right:
    allowed = {int: "a positive integer", float: "in [0, 1)", bool: "True or False", str: "text"}[kind]
    raise ValueError(f"flags: {name} must be {allowed}, got {value!r}")
  return found


def completed(shape: Shape, both: bool, given: dict[str, Any], published: Any, source: str) -> dict[str, Any]:
  """What weights do not tell: given, published, or the defaults of guided-diffusion; in this order.

  Args:
    shape: What the weights tell.
    both: Whether the network also predicts variances.
    given: From `parse`.
    published: Flags of the published network of this shape, or None.
    source: What to call the weights in messages.

  Raises:
    ValueError: If none are known, or one contradicts the weights.
  """
  if published is None and not given:
    raise ValueError(
      f"{source} has not the shape of a published network of improved-diffusion or guided-diffusion; its"
      f" weights do not tell {', '.join(FLAGS)}: give flags, those that it was trained with where they differ"
      " from the defaults of guided-diffusion, such as 'image_size 64 num_head_channels 64'"
    )
  chosen = FLAGS | (published or {}) | {name: value for name, value in given.items() if name in FLAGS}
  choose(chosen, "noise_schedule", dict.fromkeys(("linear", "cosine")))
  numbers = lambda text: tuple(float(part) for part in text.split(",") if part)
  size, deepest = chosen["image_size"], 2 ** (len(shape.multipliers) - 1)
  says: dict[str, Any] = {
    "num_channels": shape.channels, "num_res_blocks": shape.blocks, "class_cond": shape.conditional,
    "learn_sigma": both, "use_scale_shift_norm": shape.scale_shift, "resblock_updown": shape.updown,
  }  # fmt: skip
  says |= {"channel_mult": shape.multipliers, "attention_resolutions": set(shape.rates)}
  for name in given.keys() & TOLD.keys():
    value: Any = given[name]
    try:
      if name == "channel_mult":
        value = numbers(value) or shape.multipliers
      if name == "attention_resolutions":
        rates = {size / resolution for resolution in numbers(value)} if size else set(shape.rates)
        value = {rate for rate in rates if rate <= deepest}
    except (ValueError, ZeroDivisionError):
      raise ValueError(f"flags: {name} must be numbers with commas between, got {given[name]!r}") from None
    if value != says[name]:
      told = (
        f"{says[name]}" if name != "attention_resolutions" else f"rates {sorted(shape.rates)} of the size"
      )
      raise ValueError(f"flags: {name} is {told} by the weights of {source}, got {given[name]!r}")
  return chosen
