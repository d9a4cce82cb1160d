"""Networks of any library behind one pair of functions, ``init`` and ``apply``.

A network is called as ``network(x_t, t)``, as ``network(x_t, t, labels)`` where a model has classes, and with
``conditions`` after these where it has such: ``x_t: f32[B, H, W, C]``, ``t: [B]`` levels in [1, T], ``labels:
i32[B]``, ``conditions: f32[B, K]``, standardised; it returns the shape of ``x_t``.
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
    init: ``(key, shape: (H, W, C), conditional, condition_size) -> params``, or None where parameters must be
      given.
    apply: ``(params, x_t, t, labels, keys=None, conditions=None) -> output``; ``labels`` and ``conditions``
      are None for a network that takes none; ``keys``, one for each image, switch on dropout: training. A row
      of NaN in ``conditions`` is no condition: a `UNet` has a learned vector for it, other networks get
      zeros.
    params: Parameters that the network already holds, or None.
  """

  init: Callable[[jax.Array, tuple[int, ...], bool, int], Any] | None
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
        lambda params, x, t, labels, keys=None, conditions=None: inner(
          params, drawn(keys), *_inputs(x, t, labels, conditions)
        ),
      )
    return Adapted(_from_example(init), _plain(apply))
  if callable(network):
    return Adapted(None, _plain(network))
  raise ValueError(
    "network must be a UNet, a Flax, NNX or Equinox module, a transformed Haiku function, or (init, apply);"
    f" got {type(network).__name__}"
  )


def _inputs(x: jax.Array, t: Any, labels: Any, conditions: Any = None) -> tuple[jax.Array, ...]:
  found: tuple[jax.Array, ...] = (x, jnp.broadcast_to(jnp.asarray(t), x.shape[:1]))
  if labels is not None:
    found = (*found, labels)
  if conditions is not None:
    found = (*found, jnp.where(jnp.isnan(conditions), 0, conditions))
  return found


def _given(conditional: bool, condition_size: int) -> tuple[jax.Array | None, jax.Array | None]:
  """Labels and conditions of one example."""
  labels = jnp.zeros((1,), jnp.int32) if conditional else None
  return labels, jnp.zeros((1, condition_size), jnp.float32) if condition_size else None


def _example(shape: tuple[int, ...], conditional: bool, condition_size: int) -> tuple[jax.Array, ...]:
  return _inputs(
    jnp.zeros((1, *shape), jnp.float32), jnp.ones((), jnp.int32), *_given(conditional, condition_size)
  )


def _from_example(init: Callable[..., Any]) -> Callable[[jax.Array, tuple[int, ...], bool, int], Any]:
  def make(key: jax.Array, shape: tuple[int, ...], conditional: bool, condition_size: int) -> Any:
    return init(key, *_example(shape, conditional, condition_size))

  return make


def _plain(apply: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
  return lambda params, x, t, labels, keys=None, conditions=None: apply(
    params, *_inputs(x, t, labels, conditions)
  )


def _unet(network: UNet) -> Adapted:
  def init(key: jax.Array, shape: tuple[int, ...], conditional: bool, condition_size: int) -> Any:
    labels, _ = _given(network.num_classes is not None, 0)
    return network.init(key, jnp.zeros((1, *shape), jnp.float32), jnp.ones((), jnp.int32), labels)["params"]

  def apply(params: Any, x: jax.Array, t: Any, labels: Any, keys: Any = None, conditions: Any = None) -> Any:
    variables, train = {"params": params}, keys is not None
    return network.apply(variables, x, t, labels, train=train, keys=keys, conditions=conditions)

  return Adapted(init, apply)


def _takes(function: Callable[..., Any], name: str) -> bool:
  return name in inspect.signature(function).parameters


def _linen(network: nn.Module) -> Adapted:
  mode = _takes(type(network).__call__, "train")

  def init(key: jax.Array, shape: tuple[int, ...], conditional: bool, condition_size: int) -> Any:
    options: dict[str, Any] = {"train": False} if mode else {}
    variables = network.init(key, *_example(shape, conditional, condition_size), **options)
    if extra := sorted(set(variables) - {"params"}):
      raise ValueError(f"network must have no variables besides params, got {', '.join(extra)}")
    return variables["params"]

  def apply(params: Any, x: jax.Array, t: Any, labels: Any, keys: Any = None, conditions: Any = None) -> Any:
    options: dict[str, Any] = {} if keys is None else {"rngs": {"dropout": keys[0]}}
    options |= {"train": keys is not None} if mode else {}
    return network.apply({"params": params}, *_inputs(x, t, labels, conditions), **options)

  return Adapted(init, apply)


def _nnx(network: Any) -> Adapted:
  from flax import nnx

  graph, *states = nnx.split(network, nnx.Param, ...)
  state, rest = states

  def apply(params: Any, x: jax.Array, t: Any, labels: Any, keys: Any = None, conditions: Any = None) -> Any:
    # Copies of the containers, of this trace: dropout counts in them.
    whole, others = jax.tree.map(lambda leaf: leaf, (state, rest))
    nnx.replace_by_pure_dict(whole, params)
    module = nnx.merge(graph, whole, others)
    if keys is None:
      module.eval()
    else:
      module.train()
      nnx.reseed(module, dropout=keys[0], default=keys[0])
    return module(*_inputs(x, t, labels, conditions))

  return Adapted(None, apply, nnx.to_pure_dict(state))


def _equinox(network: Any) -> Adapted:
  import equinox

  params, static = equinox.partition(network, equinox.is_inexact_array)
  keyed = _takes(type(network).__call__, "key")

  def apply(params: Any, x: jax.Array, t: Any, labels: Any, keys: Any = None, conditions: Any = None) -> Any:
    module = equinox.nn.inference_mode(equinox.combine(params, static), keys is None)
    options = {"key": None if keys is None else keys[0]} if keyed else {}
    return module(*_inputs(x, t, labels, conditions), **options)

  return Adapted(None, apply, params)
