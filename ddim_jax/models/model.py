"""A trained model: all that is needed to draw from it, whoever trained it."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ddim_jax import ranges
from ddim_jax.denoisers import Denoiser
from ddim_jax.interop.schedulers import Inputs, as_it_is
from ddim_jax.models import denoising, drawing, tables, tree, unets
from ddim_jax.models.classes import Label, numbers
from ddim_jax.models.conditions import Condition, size_of, vectors
from ddim_jax.models.config import Config
from ddim_jax.models.networks import Adapted, adapt
from ddim_jax.parameterisation import Parameterisation
from ddim_jax.places import local
from ddim_jax.scaling import BYTES, Scaling
from ddim_jax.schedules import Schedule
from ddim_jax.solvers import Solver


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
  """A network with its parameters, its noise, and how to sample from it: a pytree of parameters and schedule.

  Made by `ddim_jax.load`, `ddim_jax.runs.fit` or `ddim_jax.models.from_network`. Immutable; `replace` gives
  a changed copy. What it compiles, it keeps: another eta, seed or label does not compile again, nor does
  another S up to 64 (beyond that, up to the next power of two), or another guidance weight than 1. `invert`
  compiles for every S.

  Attributes:
    network: The network: a `ddim_jax.UNet`, or whatever it was made from.
    params: Its parameters, numpy; those of the EMA if it was trained here. None before training.
    schedule: Noise schedule.
    parameterisation: What the network predicts.
    spacing: ``S -> [S+1]``: the levels of S steps.
    restrict: ``(denoise, schedule) -> Denoiser``: how predictions of x0 are clipped.
    shape: ``(H, W, C)`` of its images.
    classes: Names of the classes that it can be asked for; empty if it is unconditional.
    null_label: The label that stands for no class, or None if it was never trained without labels.
    step: Updates behind the parameters; 0 if they are of another project.
    config: What decides it, as its files keep it.
    scaling: What the numbers of its data set mean: ``scaling.to_values(model.sample(8))`` is of their type
      and range, ``scaling.to_data`` the way back.
    conditions: The same of the vectors that it is conditioned on; None if there are none.
    decode: ``values -> pictures``: what to look at where samples are no pictures themselves, such as latents:
      of arrays as the data set holds them, ``u8`` or ``f32[B, H, W, C]`` in [-1, 1]. Not kept in files:
      ``load(where).replace(decode=...)``.
    inputs: ``(schedule, x_t, t) -> (x, level)``: what the network is given for a sample and its level; other
      coordinates for EDM and flow matching.
    solver: What draws unless another solver is asked for: a key of `ddim_jax.models.SOLVERS`, or the solver
      that another project's files name.
  """

  network: Any = dataclasses.field(repr=False)
  params: Any = dataclasses.field(repr=False)
  schedule: Schedule = dataclasses.field(repr=False)
  parameterisation: Parameterisation = dataclasses.field(repr=False)
  spacing: tables.Spacing = dataclasses.field(repr=False)
  restrict: Callable[[Denoiser, Schedule], Denoiser] = dataclasses.field(repr=False)
  shape: tuple[int, ...]
  classes: tuple[str, ...]
  null_label: int | None
  step: int
  config: Config = dataclasses.field(repr=False)
  scaling: Scaling = BYTES
  conditions: Scaling | None = None
  decode: Callable[[np.ndarray], Any] | None = dataclasses.field(default=None, repr=False)
  inputs: Inputs = dataclasses.field(default=as_it_is, repr=False)
  solver: str | Solver = dataclasses.field(default="ddim", repr=False)

  def replace(self, **changes: Any) -> "Model":
    """A copy with other values of some attributes."""
    return dataclasses.replace(self, **changes)

  @property
  def solver_name(self) -> str:
    """What its solver is called: "ddim", or as its class in diffusers."""
    return tables.name_of(self.solver)

  @functools.cached_property
  def adapted(self) -> Adapted:
    """The network as ``init`` and ``apply``."""
    return adapt(self.network)

  @functools.cached_property
  def programs(self) -> dict[Any, Any]:
    """What has been compiled for this model, see `ddim_jax.models.drawing`."""
    return {}

  def apply(
    self, params: Any, x_t: jax.Array, t: Any, labels: Any = None, keys: Any = None, conditions: Any = None
  ) -> jax.Array:
    """The network's prediction for samples ``[B, ...]`` at level ``t``; with ``keys: [B]`` as in training.

    Of a network that also predicts variances, without these. Conditions are standardised, see `vectors`; a
    row of NaN is none.
    """
    output = self.outputs(params, x_t, t, labels, keys, conditions)
    return output[..., : x_t.shape[-1]] if self.predicts_variance else output

  def outputs(self, params: Any, x_t: jax.Array, t: Any, *given: Any) -> jax.Array:
    """All channels of the network's output, those for variances included; arguments as of `apply`."""
    return self.adapted.apply(params, *self.inputs(self.schedule, x_t, t), *given)

  @property
  def predicts_variance(self) -> bool:
    """Whether the network has as many channels again for variances: see `variance`."""
    return unets.predicts_variance(self.network)

  def template(self) -> Any:
    """Shapes and dtypes of the parameters; the parameters themselves of a network that cannot make any."""
    return self.params if self.adapted.init is None else self._shapes

  @functools.cached_property
  def _shapes(self) -> Any:
    return jax.eval_shape(self.init, jax.random.key(0))

  def init(self, key: jax.Array) -> Any:
    """Random parameters.

    Raises:
      ValueError: If the network cannot make any.
    """
    if self.adapted.init is None:
      raise ValueError("params must be given: this network is a function that makes none")
    return self.adapted.init(key, self.shape, bool(self.classes), self.condition_size)

  @property
  def condition_size(self) -> int:
    """Numbers in a condition, 0 for none."""
    return size_of(self.conditions)

  @property
  def own_steps(self) -> int:
    """Steps S that it takes unless asked for others: those that it was distilled for, or 50."""
    return self.config.distilled or min(50, self.schedule.T)

  @property
  def visible(self) -> bool:
    """Whether `pictures` can show its samples."""
    return len(self.shape) == 3 or self.decode is not None

  def vectors(self, condition: Condition | None) -> Any:
    """Conditions standardised, ``f32[K]``, or ``f32[B, K]`` for one for each image; None stays None.

    Raises:
      ValueError: If the model takes none, or these are not such, or not finite.
    """
    return vectors(condition, self.conditions)

  def pictures(self, samples: np.ndarray) -> np.ndarray:
    """Samples as pictures to look at: decoded, or as they are.

    Args:
      samples: Floating point ``[B, *shape]``, as of `sample`.

    Returns:
      ``u8[B, H, W, C]``. Without `decode`, what has no limits is shown from -3 to 3 standard deviations.

    Raises:
      ValueError: If the samples are no pictures and there is no `decode`.
    """
    return drawing.pictures(self, samples)

  def labels(self, label: Label | None) -> Any:
    """Classes as numbers: ``i32[]``, or ``i32[B]`` for one class for each image; None stays None.

    Raises:
      ValueError: If the model has no such class, or none at all.
    """
    return numbers(label, self.classes)

  def denoiser(
    self,
    *,
    label: Label | None = None,
    condition: Condition | None = None,
    guidance: float | jax.Array = 1.0,
    clip: bool = True,
  ) -> Denoiser:
    """The model as ``(x_t, t) -> Prediction``, for `ddim_jax.sample`, `ddim_jax.inpaint` and all the others.

    In a jitted function, let the model be an argument, ``jax.jit(lambda model, x: model.denoiser()(x, t))``:
    then its weights are arguments of the compiled program, too, and not constants in it.

    Args:
      label: A class by number or name, or one for each image, ``i32[B]``, perhaps traced; None is no class.
      condition: A vector in the numbers of the data set, ``f32[K]``, or one for each image, ``f32[B, K]``,
        perhaps traced; None is no condition.
      guidance: Weight of classifier-free guidance, ``f32[]`` or ``f32[B]``, perhaps traced: away from no
        class and no condition; 1.0 is none and asks the network once instead of twice.
      clip: Clip predictions of x0: to [-1, 1], or as the model's files say; those of data without limits
        never are. Inversion needs False.

    Returns:
      A pure function that works under jit, vmap and grad.

    Raises:
      ValueError: On a class or guidance that the model does not have.
    """
    return denoising.pair(self, label, condition, guidance, clip, once=False)[0]

  def variance(self, *, label: Label | None = None, condition: Condition | None = None) -> denoising.Variance:
    """What a network predicts of its variances, ``(x_t, t) -> v``, for `ddim_jax.ddpm`: "ddpm-learned".

    Args:
      label: As in `denoiser`.
      condition: Likewise.

    Raises:
      ValueError: If the network predicts none.
    """
    variance = denoising.pair(self, label, condition, 1.0, False, once=False)[1]
    if variance is None:
      raise ValueError(tables.NO_VARIANCE)
    return variance

  def levels(self, steps: int, spacing: str | tables.Spacing | None = None) -> np.ndarray:
    """The levels of ``steps`` steps, ``[S+1]``: the model's own spacing, a function, or one of a name.

    Raises:
      ValueError: If there is no such spacing, or ``steps`` is out of range.
    """
    if isinstance(spacing, str):
      spacing = tables.spacing(spacing, self.schedule)
    return (spacing or self.spacing)(steps)

  def sample(
    self,
    num: ranges.Positive,
    *,
    steps: ranges.Positive | None = None,
    eta: ranges.Unit = 0.0,
    solver: str | Solver | None = None,
    label: Label | None = None,
    condition: Condition | None = None,
    guidance: float = 1.0,
    seed: ranges.Seed = 0,
    spacing: str | tables.Spacing | None = None,
    clip: bool = True,
    batch_size: ranges.Positive = 64,
  ) -> np.ndarray:
    """Draws images 0 to ``num - 1`` of a seed.

    Image i depends on the seed and i alone (up to rounding: not on ``num``, ``batch_size`` or the devices),
    and is what ``ddim sample`` draws as number i. All local devices share the work.

    Args:
      num: How many, at least 1.
      steps: Number of steps S, from 1 to T; by default 50, or what the model was distilled for.
      eta: Noise of DDIM in [0, 1]: 0 is deterministic, 1 as DDPM; of another solver 0.
      solver: A `ddim_jax.Solver` (keep it: a new one compiles anew), a key of `ddim_jax.models.SOLVERS`, or
        None for the model's own: DDIM, or what another project's files say.
      label: A class by number or name, or one for each image; by default image i is of class i modulo the
        number of classes.
      condition: A vector in the numbers of the data set, ``f32[K]``, or one for each image; None is no
        condition.
      guidance: Weight w of classifier-free guidance, ``eps_u + w (eps_c - eps_u)``: 1 is the conditional
        model itself, 0 the unconditional one, more is stronger. Any but 1 asks the network twice.
      seed: In [0, 2^63).
      spacing: Which levels to visit: "uniform", "quadratic", "leading", "trailing", "linspace", "log-snr",
        "karras", or a function ``S -> [S+1]``; by default the model's own.
      clip: Clip predictions of x0, see `denoiser`.
      batch_size: Images at a time on each device.

    Returns:
      ``f32[num, *shape]``, numpy, in data units: pictures lie in [-1, 1], and what was standardised has mean
      0 and variance 1. ``model.scaling.to_values`` gives them the type and the range of the data set,
      `pictures` makes them bytes.

    Raises:
      ValueError: On a value out of its range; names it.
      FloatingPointError: If an image is not finite.
    """
    ranges.check_all(Model.sample, locals())
    return drawing.sampled(
      self, num, self.levels(steps or self.own_steps, spacing), eta, batch_size,
      solver=solver, label=self.labels(label), condition=condition, guidance=guidance, clip=clip, seed=seed,
    )  # fmt: skip

  def invert(
    self,
    images: np.ndarray | jax.Array,
    *,
    steps: ranges.Positive = 50,
    refine: ranges.Count = 0,
    label: Label | None = None,
    condition: Condition | None = None,
    spacing: str | tables.Spacing | None = None,
    batch_size: ranges.Positive = 64,
  ) -> np.ndarray:
    """The noise that deterministic DDIM turns into ``images``; see `ddim_jax.invert`.

    Args:
      images: ``f32[N, *shape]`` in data units, as of ``model.scaling.to_data``: [-1, 1].
      steps: Number of steps S; another S compiles anew.
      refine: Largest number of fixed-point iterations per step, at least 0.
      label: As in `denoiser`.
      condition: Likewise.
      spacing: As in `sample`.
      batch_size: Images at a time on each device.

    Returns:
      ``f32[N, *shape]``, numpy, at level ``model.levels(steps, spacing)[0]``. `ddim_jax.sample` with
      ``model.denoiser(clip=False)`` leads back.

    Raises:
      ValueError: If the images are not such an array, or a value is out of its range.
      FloatingPointError: If what was found is not finite.
    """
    ranges.check_all(Model.invert, locals())
    ts = self.levels(steps, spacing)
    self.scaling.check_data("images", np.asarray(images))
    return drawing.inverted(self, np.asarray(images), ts, refine, self.labels(label), condition, batch_size)

  def save(self, path: str | Path, *, half: bool = True) -> None:
    """Writes the model: one file if ``path`` ends in .safetensors, else a folder for diffusers.

    Args:
      path: What to write; a folder must not exist, or be empty.
      half: Of a file, round the parameters to float16 (half the size); a folder holds float32.

    Raises:
      ValueError: If the path has another suffix, or the model cannot be written so; names why.
    """
    from ddim_jax.models import exported

    exported.save(self, local(path), half)


tree.register(Model)
