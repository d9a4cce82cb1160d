"""The one place where a `Model` is made: from a configuration, from another project's files, from a network.

Nothing outside this module asks where a model came from.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from ddim_jax import interop, ranges
from ddim_jax.denoisers import clip_x0, ends_in_noise
from ddim_jax.models import tables, unets
from ddim_jax.models.conditions import size_of
from ddim_jax.models.config import UNKNOWN, Config, Data, Diffusion, Network, Optimisation
from ddim_jax.models.model import Model
from ddim_jax.scaling import BYTES, Scaling
from ddim_jax.schedules import Schedule, zero_terminal_snr
from ddim_jax.solvers import Solver
from ddim_jax.unet import UNet

_SECTIONS = {"data": Data, "model": Network, "diffusion": Diffusion, "optimisation": Optimisation}
_FIELDS = {"model": "network"}
"""Sections of the JSON whose field in `Config` has another name."""
PATHS = ("data_dir", "table")
"""Fields of the data that say where things lie."""
_OPEN = {
  "model": ("label_dropout", "dtype", "remat"),
  "diffusion": ("weighting", "level_distribution", "antithetic", "spacing", "solver"),
}
"""What a network with weights of its own leaves to the options."""
WHOLE = ("imported", "custom", "distilled", "distilled_by")
"""Entries of the JSON beside the sections."""


def from_config(
  config: Config,
  shape: tuple[int, ...],
  classes: tuple[str, ...] = (),
  params: Any = None,
  step: int = 0,
  *,
  scaling: Scaling = BYTES,
  conditions: Scaling | None = None,
) -> Model:
  """The model that a configuration stands for.

  Args:
    config: What decides it.
    shape: ``(H, W, C)`` of its images.
    classes: Names of the data set's classes; empty if it has none.
    params: Its parameters; None if it is still to be trained.
    step: Updates behind them.
    scaling: What the numbers of the data set mean.
    conditions: The same of the vectors that come with its images; None if none do.

  Raises:
    ValueError: If the network does not fit such images or classes, or an option is out of its range.
  """
  if len(shape) != 3:
    raise ValueError(
      f"a U-Net is for images [H, W, C], not for examples of shape {shape}: give ddim_jax.runs.fit a network"
      " of your own"
    )
  network, described = _network(config, shape[-1], len(classes), size_of(conditions)), None
  if config.imported is not None:
    described = interop.describe(**config.imported)
  schedule = named_schedule(config.diffusion) if described is None else described.schedule
  predict = tables.named(tables.PREDICTIONS, config.diffusion.predict, "predict")
  if described is None and config.diffusion.predict == "eps" and ends_in_noise(schedule):
    raise ValueError(
      "predict must be x0, v, edm or flow, got eps: with this schedule nothing is left of the data at level"
      f" {schedule.T}, where eps does not determine x0"
    )
  model = Model(
    network=network,
    params=params,
    schedule=schedule,
    parameterisation=predict if described is None else described.parameterisation,
    spacing=_spacing(config, schedule, described),
    restrict=clip_x0 if described is None else described.restrict,
    shape=shape,
    classes=() if network.num_classes is None else tuple(classes),
    null_label=unets.null_label(network, len(classes)),
    step=step,
    config=config,
    scaling=scaling,
    conditions=conditions,
    solver=_solver(config, described),
  )
  return model if described is None else model.replace(inputs=described.inputs)


def _spacing(config: Config, schedule: Schedule, described: interop.Pretrained | None) -> tables.Spacing:
  """The configuration's own spacing, or that of another project's files, or uniform."""
  if described is not None and config.diffusion.spacing is None:
    return described.timesteps
  return tables.spacing(config.diffusion.spacing or "uniform", schedule)


def _solver(config: Config, described: interop.Pretrained | None) -> str | Solver:
  """The configuration's own solver, or that of another project's files, or DDIM."""
  if config.diffusion.solver is not None:
    tables.named(tables.SOLVERS, config.diffusion.solver, "solver")
    return config.diffusion.solver
  return (None if described is None else described.own_solver) or "ddim"


def from_pretrained(pretrained: interop.Pretrained, size: int | None = None) -> Model:
  """A network of another project as a `Model`.

  Args:
    pretrained: From `ddim_jax.interop`.
    size: Height of its images in pixels, where its files do not say, or other than they say.

  Raises:
    ValueError: If the height of its images is not known, or it cannot be used as a model.
  """
  said = pretrained.config["sample_size"] if size is None else size
  if said is None:
    raise ValueError("the files do not say how large the images are: give size, their height in pixels")
  height, width = said if isinstance(said, list) else (said, said)
  imported = {"config": pretrained.config | {"sample_size": said}, "scheduler": pretrained.scheduler}
  classes = tuple(str(label) for label in range(pretrained.model.num_classes or 0))
  shape = (height, width, pretrained.model.input_channels)
  config = Config(data=Data(data=UNKNOWN), imported=imported)
  return from_config(config, shape, classes, pretrained.variables.get("params"))


def to_pretrained(model: Model) -> interop.Pretrained:
  """The model as `ddim_jax.interop.save_diffusers` takes it.

  Raises:
    ValueError: If diffusers has no such network, schedule or prediction; names what.
  """
  variables = {"params": model.params}
  height, width = model.shape[:2]
  size = height if height == width else [height, width]  # perhaps other than of the files it began with
  if model.config.imported is not None:
    made = interop.describe(**model.config.imported)._replace(variables=variables)
    return made._replace(config=made.config | {"sample_size": size})
  if not isinstance(model.network, UNet):
    kind = type(model.network).__name__
    raise ValueError(f"diffusers has no such network: {kind} is not a ddim_jax.UNet")  # noqa: TRY004
  made = interop.from_ours(
    model.network, variables, model.schedule, model.parameterisation, size=height,
    clip=model.restrict is clip_x0,
  )  # fmt: skip
  return made._replace(config=made.config | {"sample_size": size})


def _network(config: Config, channels: int, num_classes: int, condition_size: int) -> UNet:
  options = config.network
  # What a run minimised may be a function of its own, whose name nothing here looks for.
  for section in (config.data, options, dataclasses.replace(config.diffusion, weighting="none")):
    ranges.check_all(section)
  if config.imported is None:
    return unets.from_options(options, channels, num_classes, condition_size)
  network = interop.describe(**config.imported).model
  unets.check_fits(network, channels, num_classes)
  if condition_size:
    raise ValueError("an imported network takes no conditions, and the data set has some")
  return network.clone(dtype=jnp.dtype(options.dtype), remat=options.remat, conv=options.conv)


def named_schedule(options: Diffusion) -> Schedule:
  """The noise schedule of a configuration."""
  made = tables.named(tables.SCHEDULES, options.schedule, "schedule")(options.levels)
  return zero_terminal_snr(made) if options.zero_terminal_snr else made


def adopt(asked: Config, origin: Config) -> Config:
  """``asked``, with the network and the noise of ``origin``, whose weights it starts from.

  Raises:
    ValueError: If a network of another project is asked to become conditional.
  """

  def section(name: str) -> Any:
    field = _FIELDS.get(name, name)
    left_open = {key: getattr(getattr(asked, field), key) for key in _OPEN[name]}
    return dataclasses.replace(getattr(origin, field), **left_open)

  network = section("model")
  if origin.imported is None:
    network = dataclasses.replace(
      network, conditional=origin.network.conditional or asked.network.conditional
    )
  elif asked.network.conditional:
    raise ValueError("conditional does not go with an imported network: its files say whether it is")
  return dataclasses.replace(asked, network=network, diffusion=section("diffusion"), imported=origin.imported)


def to_predict_v(config: Config) -> Config:
  """The configuration with v as the prediction, also in the scheduler of another project's files."""
  diffusion = dataclasses.replace(config.diffusion, predict="v")
  imported = config.imported
  if imported is not None:
    imported = imported | {"scheduler": imported["scheduler"] | {"prediction_type": "v_prediction"}}
  return dataclasses.replace(config, diffusion=diffusion, imported=imported)


def to_json(config: Config) -> dict[str, Any]:
  """JSON values; paths become strings. What imported files decide stands only under "imported"."""
  values = dataclasses.asdict(config)
  sections = {name: values[_FIELDS.get(name, name)] for name in _SECTIONS}
  sections["data"] |= {key: sections["data"][key] and str(sections["data"][key]) for key in PATHS}
  if config.imported is not None:
    sections |= {
      section: {name: sections[section][name] for name in names} for section, names in _OPEN.items()
    }
  return sections | {name: values[name] for name in WHOLE if values[name]}


def from_json(values: dict[str, Any]) -> Config:
  """The inverse of `to_json`; a field younger than the checkpoint has its default.

  Raises:
    ValueError: If a section or field is unknown.
  """
  sections = {}
  for name, kind in _SECTIONS.items():
    found = values.get(name, {})
    if unknown := set(found) - {field.name for field in dataclasses.fields(kind)}:
      raise ValueError(f"the checkpoint is of a newer version: {name} has {sorted(unknown)}")
    found = {key: tuple(v) if isinstance(v, list) else v for key, v in found.items()}
    if kind is Data:
      found |= {key: Path(found[key]) for key in PATHS if found.get(key)}
      found |= {key: str(found[key]) for key in ("image_size", "crop") if found.get(key)}  # once integers
    sections[_FIELDS.get(name, name)] = kind(**found)
  return Config(**sections, **{name: values[name] for name in WHOLE if name in values})
