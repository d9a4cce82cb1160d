"""Networks of any library behind one pair of functions, ``init`` and ``apply``.

A network is called as ``network(x_t, t)``, or as ``network(x_t, t, labels)`` where a model has classes:
``x_t: f32[B, H, W, C]``, ``t: [B]`` levels in [1, T], ``labels: i32[B]``; it returns the shape of ``x_t``.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ddim_jax.unet import UNet


class Adapted(NamedTuple):
  """A network as two functions.

  Attributes:
    init: ``(key, shape: (H, W, C), conditional) -> params``, or None where parameters must be given.
    apply: ``(params, x_t, t, labels, keys=None) -> output``; ``labels`` is None for a network that takes
      none; ``keys``, one for each image, switch on dropout: training.
    params: Parameters that the network already holds, or None.
  """

  init: Callable[[jax.Array, tuple[int, ...], bool], Any] | None
  apply: Callable[..., jax.Array]
  params: Any = None


def adapt(network: Any) -> Adapted:
  """Any network as `Adapted`.

  Args:
    network: One of these. A `UNet`. Another Flax linen module, with parameters as its only variables;
      ``train=`` is passed if it takes that, and an rng "dropout". An NNX module. An Equinox module, called
      with a whole batch; ``key=`` is passed if it takes that. What ``haiku.transform`` returns. A pair
      ``(init, apply)``: ``init(key, x_t, t[, labels]) -> params``, ``apply(params, x_t, t[, labels])``. A
      function ``apply`` alone, if parameters are given. A dropout that takes one key for the batch gets that
      of its first image, so that its masks depend on the number of devices.

  Raises:
    ValueError: If it is none of these.
  """
  kinds = {kind.__module__.split(".")[0] for kind in type(network).__mro__}
  if isinstance(network, UNet):
    return _unet(network)
  if isinstance(network, nn.Module):
    return _linen(network)
  if "flax" in kinds and hasattr(network, "sow"):
    return _nnx(network)
  if "equinox" in kinds:
    return _equinox(network)
  if isinstance(network, tuple) and len(network) == 2 and all(map(callable, network)):
    init, apply = network
    if "haiku" in kinds:
      inner, drawn = apply, lambda keys: None if keys is None else keys[0]
      return Adapted(
        _from_example(init),
        lambda params, x, t, labels, keys=None: inner(params, drawn(keys), *_inputs(x, t, labels)),
      )
    return Adapted(_from_example(init), _plain(apply))
  if callable(network):
    return Adapted(None, _plain(network))
  raise ValueError(
    "network must be a UNet, a Flax, NNX or Equinox module, a transformed Haiku function, or (init, apply);"
    f" got {type(network).__name__}"
  )


def _inputs(x: jax.Array, t: Any, labels: Any) -> tuple[jax.Array, ...]:
  t = jnp.broadcast_to(jnp.asarray(t), x.shape[:1])
  return (x, t) if labels is None else (x, t, labels)


def _example(shape: tuple[int, ...], conditional: bool) -> tuple[jax.Array, ...]:
  labels = jnp.zeros((1,), jnp.int32) if conditional else None
  return _inputs(jnp.zeros((1, *shape)), jnp.ones((), jnp.int32), labels)


def _from_example(init: Callable[..., Any]) -> Callable[[jax.Array, tuple[int, ...], bool], Any]:
  def make(key: jax.Array, shape: tuple[int, ...], conditional: bool) -> Any:
    return init(key, *_example(shape, conditional))

  return make


def _plain(apply: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
  return lambda params, x, t, labels, keys=None: apply(params, *_inputs(x, t, labels))


def _unet(network: UNet) -> Adapted:
  def init(key: jax.Array, shape: tuple[int, ...], conditional: bool) -> Any:
    labels = None if network.num_classes is None else jnp.zeros((1,), jnp.int32)
    return network.init(key, jnp.zeros((1, *shape)), jnp.ones((), jnp.int32), labels)["params"]

  def apply(params: Any, x: jax.Array, t: Any, labels: Any, keys: Any = None) -> Any:
    return network.apply({"params": params}, x, t, labels, train=keys is not None, keys=keys)

  return Adapted(init, apply)


def _takes(function: Callable[..., Any], name: str) -> bool:
  return name in inspect.signature(function).parameters


def _linen(network: nn.Module) -> Adapted:
  mode = _takes(type(network).__call__, "train")

  def init(key: jax.Array, shape: tuple[int, ...], conditional: bool) -> Any:
    options: dict[str, Any] = {"train": False} if mode else {}
    variables = network.init(key, *_example(shape, conditional), **options)
    if extra := sorted(set(variables) - {"params"}):
      raise ValueError(f"network must have no variables besides params, got {', '.join(extra)}")
    return variables["params"]

  def apply(params: Any, x: jax.Array, t: Any, labels: Any, keys: Any = None) -> Any:
    options: dict[str, Any] = {} if keys is None else {"rngs": {"dropout": keys[0]}}
    options |= {"train": keys is not None} if mode else {}
    return network.apply({"params": params}, *_inputs(x, t, labels), **options)

  return Adapted(init, apply)


def _nnx(network: Any) -> Adapted:
  from flax import nnx

  graph, *states = nnx.split(network, nnx.Param, ...)
  state, rest = states

  def apply(params: Any, x: jax.Array, t: Any, labels: Any, keys: Any = None) -> Any:
    # Copies of the containers, of this trace: dropout counts in them.
    whole, others = jax.tree.map(lambda leaf: leaf, (state, rest))
    nnx.replace_by_pure_dict(whole, params)
    module = nnx.merge(graph, whole, others)
    if keys is None:
      module.eval()
    else:
      module.train()
      nnx.reseed(module, dropout=keys[0], default=keys[0])
    return module(*_inputs(x, t, labels))

  return Adapted(None, apply, nnx.to_pure_dict(state))


def _equinox(network: Any) -> Adapted:
  import equinox

  params, static = equinox.partition(network, equinox.is_inexact_array)
  keyed = _takes(type(network).__call__, "key")

  def apply(params: Any, x: jax.Array, t: Any, labels: Any, keys: Any = None) -> Any:
    module = equinox.nn.inference_mode(equinox.combine(params, static), keys is None)
    options = {"key": None if keys is None else keys[0]} if keyed else {}
    return module(*_inputs(x, t, labels), **options)

  return Adapted(None, apply, params)
