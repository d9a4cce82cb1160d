"""The training loop: pmapped over all devices of all hosts, resumed from its folder."""

import contextlib
import dataclasses
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from ddim_jax import checkpoints, data, plots, ranges, training
from ddim_jax.atomic import alone
from ddim_jax.console import say
from ddim_jax.models import Model, build, drawing, from_network
from ddim_jax.models.config import UNKNOWN, Data, Optimisation
from ddim_jax.models.tables import named
from ddim_jax.packing import unpack
from ddim_jax.places import for_checkpoints, local
from ddim_jax.ranges import Count, Positive, PositiveReal, Rate, Seed, Several
from ddim_jax.runs import evaluation, hosts, logs, objective
from ddim_jax.runs.start import checked, rest_of_the_data, start
from ddim_jax.runs.update import local_batch, on_every_device, pmapped_update
from ddim_jax.runs.waiting import waiting
from ddim_jax.seeds import key_of

_LAG = 2
"""Updates between one and reading its metrics, so that reading never makes the device wait."""
_GRID = 64
_BY_LEVEL_EVERY = 10
"""Updates between those that record their loss by level."""


class Interrupted(KeyboardInterrupt):
  """Ctrl-C, after which a run has saved its state; the text says at which step and where."""


def fit(
  workdir: str | Path,
  model: Any,
  images: data.Source | np.ndarray,
  *,
  steps: Positive,
  labels: np.ndarray | None = None,
  classes: Sequence[str] = (),
  batch_size: Positive = 128,
  accumulate: Positive = 1,
  flip: bool = False,
  optimizer: Callable[..., optax.GradientTransformation] | optax.GradientTransformation = optax.adam,
  learning_rate: PositiveReal | optax.Schedule = 2e-4,
  warmup: Count = 5000,
  clip: PositiveReal = 1.0,
  ema: Rate = 0.9999,
  emas: Sequence[Rate] = (),
  weighting: str | training.Weighting | None = None,
  minimise: Callable[[Model], tuple[Callable[..., Any], training.Levels]] | None = None,
  antithetic: bool = False,
  label_dropout: Rate = 0.1,
  seed: Seed = 0,
  max_minutes: PositiveReal | None = None,
  max_skipped: Count = 0,
  save_every: Positive = 5000,
  keep: Positive = 2,
  keep_every: Positive | None = None,
  sample_every: Count = 5000,
  eval_every: Count = 0,
  eval_num: Several = 1000,
  inception: str | Path | None = None,
  log: Callable[[int, dict[str, float]], None] | None = None,
  progress: bool = True,
  record: Data | None = None,
  origin: str | None = None,
  compiled: Callable[[], Any] | None = None,
) -> Model:
  """Trains a model, or goes on with the run in ``workdir``.

  Every device of every process is used; the result does not depend on their number. The folder gets
  checkpoints, metrics.jsonl, TensorBoard events and grids of samples. A run that ended, whatever ended it,
  goes on from its newest sound checkpoint when the same call is made again; arguments that do not decide what
  the model computes may then be others, such as ``steps`` and ``learning_rate``. SIGTERM, SIGHUP and Ctrl-C
  save first, in the main thread.

  Args:
    workdir: Folder of the run; created.
    model: A `Model`, with parameters to start from (fine-tuning) or without; or a network that
      `ddim_jax.models.from_network` takes, which then predicts eps under the linear schedule of 1,000 levels.
    images: ``u8[N, H, W, C]``, or ``f32`` of that shape in [-1, 1], or a `ddim_jax.data.Source`.
    steps: Train until this many updates, from the first of the run on.
    labels: ``i32[N]``, for arrays.
    classes: Names of the labels, for arrays; their numbers by default.
    batch_size: Size of the global batch of an update; a multiple of all devices.
    accumulate: Compute an update in so many parts, one after another: less memory, the same update.
    flip: Mirror each image left to right with probability 1/2.
    optimizer: ``(learning_rate) -> optimiser``, such as ``optax.adamw``; or a finished optimiser, which is
      used as it is: then learning_rate, warmup and clip have no effect.
    learning_rate: Its value after the warm-up; or an optax schedule, which has its own warm-up.
    warmup: Updates over which the learning rate rises from 0.
    clip: Largest global norm of a gradient.
    ema: Decay of the EMA of the parameters, in [0, 1), counted in updates.
    emas: Decays of further EMAs, to be chosen from afterwards: ``ddim_jax.load(workdir, ema=...)``.
    weighting: Weighting of the loss: "min_snr", "p2", "variational", or a function, see
      `ddim_jax.training.Weighting`; None is L_simple.
    minimise: ``model -> (losses, levels)``, as `ddim_jax.training.make_train_step` takes them, to minimise
      something else, without weighting, antithetic and label_dropout; see `ddim_jax.distillation`.
    antithetic: Draw levels in pairs t and T + 1 - t.
    label_dropout: Fraction of labels hidden, for classifier-free guidance, in [0, 1).
    seed: Decides initialisation, noise, order and flips; at least 0.
    max_minutes: Stop and save after this time, compilation included.
    max_skipped: Updates that may be left out because loss or gradient was not finite, before the run stops.
    save_every: Updates between checkpoints.
    keep: Newest checkpoints to keep.
    keep_every: Also keep, for ever, checkpoints whose step is a multiple of this.
    sample_every: Updates between grids of samples in ``workdir``/samples; 0 for none.
    eval_every: Updates between evaluations, whose best step is kept; 0 for none.
    eval_num: Images an evaluation draws, with 50 steps; distances of different numbers cannot be compared.
    inception: Weights of the FID's Inception network, for evaluation; None is EfficientNet-Lite0, or for
      grey images a classifier.
    log: ``(step, values)``, called in order for every update with "loss", "grad_norm", "skipped" and, where
      there are any, "frechet" and losses by level: ``lambda step, values: wandb.log(values, step)``.
    progress: Show a header and a progress bar.
    record: What checkpoints say of the data, by which commands find its test split again.
    origin: What checkpoints call the weights that the run started from.
    compiled: Called once after the first update, when all that every update needs is compiled.

  Returns:
    The model with the EMA of its parameters; ``model.step`` is less than ``steps`` if the run was stopped.

  Raises:
    ValueError: If an argument is out of its range, or the folder holds a run of another model; names it.
    FloatingPointError: If more than ``max_skipped`` updates were not finite.
    Interrupted: After Ctrl-C, once the state is saved.
    OSError: If something could not be written; what was saved before stays.
  """
  ranges.check_all(fit, locals())
  _check_batch(batch_size, accumulate)
  workdir, source = for_checkpoints(workdir), as_source(images, labels, classes)
  if not isinstance(model, Model):
    wanted = source.classes if getattr(model, "num_classes", None) is not None else ()
    model = from_network(model, source.shape, classes=wanted)
  if model.shape != source.shape:
    raise ValueError(f"the model is for images of {model.shape}, these are {source.shape}")
  config = dataclasses.replace(
    model.config,
    data=Data(UNKNOWN) if record is None else record,
    network=dataclasses.replace(model.config.network, label_dropout=label_dropout),
    diffusion=dataclasses.replace(
      model.config.diffusion, antithetic=antithetic, weighting=_named(weighting or "none")
    ),
    optimisation=Optimisation(
      _named(optimizer), batch_size, 0.0 if callable(learning_rate) else float(learning_rate),
      warmup, clip, ema, tuple(emas), seed,
    ),
  )  # fmt: skip
  model = model.replace(config=config)
  weigh = named(objective.WEIGHTINGS, weighting, "weighting")() if isinstance(weighting, str) else weighting
  made = objective.optimizer(optimizer, learning_rate, warmup, clip)
  if minimise is None:
    losses, levels = (
      objective.losses(model, weigh, label_dropout),
      objective.levels(antithetic, model.schedule.T),
    )
  else:
    losses, levels = minimise(model)
  losses = objective.accumulated(losses, accumulate)
  batch = partial(local_batch, source, batch_size=batch_size, seed=seed, flip=flip)

  workdir.mkdir(parents=True, exist_ok=True)
  chief = jax.process_index() == 0
  with contextlib.ExitStack() as stack:
    stop = stack.enter_context(hosts.StopRequest(max_minutes))
    if chief:
      stack.enter_context(alone(workdir, "is training there"))
    folder = workdir / "checkpoints"
    manager = stack.enter_context(checkpoints.open_manager(folder, keep=keep, keep_every=keep_every))
    saved = checkpoints.restore_newest_sound(manager, lambda text: say(f"warning: {text}"))
    tuned = "from" in saved.config if saved is not None else model.params is not None
    begun = None if saved is None else saved.config.get("from")
    description = describe(model, source, begun or origin or "given weights" if tuned else None)
    changes = [] if saved is None else checked(workdir, saved.config, description)
    packed = optimizer in objective.ALIKE
    state = start(model, made, seed=seed, emas=len(emas), packed=packed, saved=saved)
    decay = training.constant_decay if tuned else training.warm_decay
    update = pmapped_update(
      losses, levels, made, decay(ema), [decay(value) for value in emas],
      level_edges=evaluation.level_edges(model.schedule.T), scaling=source.scaling,
    )  # fmt: skip
    state = on_every_device(state)
    evaluate = None
    if eval_every:
      evaluate = evaluation.evaluator(
        model, source, folder=workdir, num=eval_num, seed=seed, decays=emas,
        inception=None if inception is None else local(inception, "inception"), name=model.config.data.data,
      )  # fmt: skip
    first = int(state.step)
    shown = progress and chief
    if shown:
      say("\n".join(header(workdir, source, state, batch_size, steps)))
      for change in changes:
        say(f"changed     {change}")
      if warning := rest_of_the_data(model.schedule):
        say(warning)
    key, flags = key_of(seed), np.zeros(jax.local_device_count(), np.int32)
    if first < steps:
      with waiting("compiling", shown):
        # JAX keeps it for the calls below.
        program = update.lower(state, key, *batch(first), flags).compile()
      if shown and (flops := flops_of(program)):
        say(f"a step      about {flops / 1e9:,.1f} GFLOP")
    book = stack.enter_context(
      logs.open_log(workdir, first, steps, batch_size, chief=chief, progress=progress, deadline=stop.deadline)
    )
    reader = _Reader(book, log if chief else None, max_skipped, model.schedule.T, manager)
    grid = _grid_sampler(model, seed) if sample_every and chief else None

    step, urgency = first, 0
    for step, (pixels, numbers) in enumerate(data.prefetch(batch, first, steps), first + 1):
      flags = np.full(jax.local_device_count(), stop.urgency(), np.int32)
      state, metrics = update(state, key, pixels, numbers, flags)
      if step == first + 1 and compiled is not None:
        jax.block_until_ready(metrics)
        compiled()
      last = step == steps
      judged = evaluate is not None and (last or step % eval_every == 0)
      if evaluate is not None and judged:
        with waiting(f"drawing {eval_num:,} images to evaluate", shown):
          metrics |= evaluate(*unpack(jax.device_get((state.ema, state.emas))))
      reader.add(step, metrics)
      due = last or judged or step % save_every == 0
      urgency = reader.read(0 if due else _LAG)
      if due or urgency:
        urgency = max(urgency, reader.read(0))
        book.flush()
        checkpoints.save(manager, step, state, description, metrics["frechet"] if judged else None)
      if grid is not None and (last or step % sample_every == 0):
        try:
          with waiting("drawing samples", shown):
            picture = grid(unpack(jax.device_get(state.ema)))
          plots.save_png(workdir / "samples" / f"step_{step:08d}.png", picture)
        except FloatingPointError as error:
          say(f"warning: no samples of step {step:,}: {error}")
      if urgency:
        break
    result: Model = model.replace(params=unpack(jax.device_get(state.ema)), step=step)
  if urgency == 2:
    raise Interrupted(f"stopped and saved at step {step:,} in {workdir}")
  return result


def as_source(
  images: data.Source | np.ndarray, labels: np.ndarray | None = None, classes: Sequence[str] = ()
) -> data.Source:
  """Arrays as a source; a source stays as it is.

  Raises:
    ValueError: If the arrays are not as `fit` says, or come with what goes with a source only.
  """
  if isinstance(images, data.Source):
    if labels is not None or classes:
      raise ValueError("labels and classes are for arrays: a Source has its own")
    return images
  images = np.asarray(images)
  if labels is not None:
    labels = np.asarray(labels, np.int32)
    classes = tuple(classes) or tuple(str(i) for i in range(int(labels.max(initial=0)) + 1))
    if labels.min(initial=0) < 0 or labels.max(initial=0) >= len(classes):
      raise ValueError(f"labels must be in [0, {len(classes) - 1}], got {labels.min()} to {labels.max()}")
  values = None if images.dtype == np.uint8 else (-1.0, 1.0)
  return data.in_memory("array", images, labels, tuple(classes), values=values)


def describe(model: Model, source: data.Source, origin: str | None) -> dict[str, Any]:
  """What a checkpoint keeps beside its arrays, see `ddim_jax.models.build.describe`."""
  description = build.describe(model) | {"classes": list(source.classes), "images": source.size}
  del description["step"]
  return description if origin is None else description | {"from": origin}


def _check_batch(batch_size: int, accumulate: int) -> None:
  devices = jax.device_count()
  if batch_size % (devices * accumulate):
    parts = f" in {accumulate} parts each" if accumulate != 1 else ""
    raise ValueError(
      f"batch_size must be a positive multiple of the {devices} devices{parts}, got {batch_size}"
    )


def _named(choice: Any) -> Any:
  """What a record calls a choice: its own name, or that of its function."""
  return choice if isinstance(choice, str) else getattr(choice, "__name__", "custom")


class _Reader:
  """Metrics of updates that are still being computed, read a little later."""

  def __init__(self, book: logs.Log, log: Any, max_skipped: int, T: int, manager: Any):
    self._pending: deque[tuple[int, dict[str, Any]]] = deque()
    self._book, self._log, self._max_skipped, self._T, self._manager = book, log, max_skipped, T, manager

  def add(self, step: int, metrics: dict[str, Any]) -> None:
    """Takes the metrics of an update, perhaps before they are computed."""
    self._pending.append((step, metrics))

  def read(self, limit: int) -> int:
    """Logs metrics until at most ``limit`` updates are unread; returns the highest urgency seen."""
    urgency = 0
    while len(self._pending) > limit:
      step, metrics = self._pending.popleft()
      arrays = {name: np.asarray(value) for name, value in metrics.items()}
      by_level = evaluation.by_level(arrays, self._T) if step % _BY_LEVEL_EVERY == 0 else {}
      values = {name: value.item() for name, value in arrays.items() if value.ndim == 0} | by_level
      urgency = max(urgency, int(values.pop("stop")))
      self._book.step(step, values)
      if self._log is not None:
        self._log(step, values)
      if values["skipped"] > self._max_skipped:
        self._manager.wait_until_finished()
        newest = self._manager.latest_step()
        raise FloatingPointError(
          f"loss or gradient was not finite at step {step} (loss {values['loss']}); that update was left out."
          f" Last checkpoint: {'none' if newest is None else f'step {newest}'}. Lower the learning rate, or"
          " allow some such updates with max_skipped."
        )
    return urgency


def _grid_sampler(model: Model, seed: int) -> Callable[[Any], np.ndarray]:
  """``(ema) -> picture`` of the first images of a seed, with 50 deterministic steps."""
  ts = model.levels(min(50, model.schedule.T))
  size, draw = drawing.numbered_pictures(model, ts, seed=seed, at_once=_GRID)
  return lambda ema: plots.grid(draw(np.arange(size), params=ema)[:_GRID])


def flops_of(program: Any) -> float:
  """Floating point operations of a call of a compiled program, on all devices; 0 where XLA counts none."""
  cost = program.cost_analysis()
  cost = cost[0] if isinstance(cost, list) else cost
  return max(0.0, float((cost or {}).get("flops", 0.0))) * jax.device_count()


def header(workdir: Path, source: data.Source, state: Any, batch_size: int, steps: int) -> list[str]:
  """What is said before a run begins."""
  parameters = sum(x.size for x in jax.tree.leaves(state.params))
  device = jax.devices()[0]
  classes = f", {len(source.classes)} classes" if source.classes else ""
  processes = f"{jax.process_count()} process" + "es" * (jax.process_count() > 1)
  return [
    f"devices     {jax.device_count()} x {device.device_kind} ({device.platform}), {processes}",
    f"network     {parameters:,} parameters",
    f"data        {source.name}: {source.size:,} images {'x'.join(map(str, source.shape))}{classes}",
    f"batch       {batch_size} = {jax.device_count()} x {batch_size // jax.device_count()}",
    f"run         {workdir.absolute()}, step {int(state.step):,} of {steps:,}",
  ]
