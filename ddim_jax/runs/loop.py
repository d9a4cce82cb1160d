"""The training loop: pmapped over all devices of all hosts, resumed from its folder."""

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from ddim_jax import checkpoints, data, ranges, training, tuning
from ddim_jax.atomic import alone
from ddim_jax.console import say
from ddim_jax.models import Model
from ddim_jax.models.config import Data, LevelDistribution, Optimisation, RateSchedule
from ddim_jax.packing import unpack
from ddim_jax.places import for_checkpoints, local
from ddim_jax.ranges import Count, Positive, PositiveReal, Rate, Seed, Several
from ddim_jax.runs import between, evaluation, hosts, inputs, logs, objective
from ddim_jax.runs.header import header
from ddim_jax.runs.outlook import say_outlook
from ddim_jax.runs.start import begin, for_source
from ddim_jax.runs.update import local_batch, on_every_device, pmapped_update
from ddim_jax.runs.waiting import waiting
from ddim_jax.seeds import key_of


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
  conditions: np.ndarray | None = None,
  decode: Callable[[np.ndarray], Any] | None = None,
  batch_size: Positive = 128,
  accumulate: Positive = 1,
  flip: bool = False,
  optimizer: Callable[..., optax.GradientTransformation] | optax.GradientTransformation = optax.adam,
  learning_rate: PositiveReal | optax.Schedule = 2e-4,
  warmup: Count = 5000,
  learning_rate_schedule: RateSchedule = "constant",
  clip: PositiveReal = 1.0,
  ema: Rate = 0.9999,
  emas: Sequence[Rate] = (),
  weighting: str | training.Weighting | None = None,
  minimise: Callable[[Model], tuple[Callable[..., Any], training.Levels]] | None = None,
  level_distribution: LevelDistribution = "uniform",
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
  log: between.LogFunction | None = None,
  log_samples: between.PictureFunction | None = None,
  progress: bool = True,
  record: Data | None = None,
  origin: str | None = None,
  compiled: Callable[[], Any] | None = None,
) -> Model:
  """Trains a model, or goes on with the run in ``workdir``.

  Every device of every process is used; the result does not depend on their number. The folder gets
  checkpoints, metrics.jsonl, TensorBoard events and grids of samples. A run that ended, whatever ended it,
  goes on from its newest sound checkpoint when the same call is made again. Arguments may then be others,
  such as ``steps`` and ``learning_rate``, which the log says; but not the network, the schedule, what is
  predicted, the shape, classes, scaling or conditions of the data, or ``emas``. SIGTERM, SIGHUP and Ctrl-C
  save first, in the main thread.

  Args:
    workdir: Folder of the run; created.
    model: A `Model`, with parameters to start from (fine-tuning) or without; or a network that
      `ddim_jax.models.from_network` takes, which then predicts eps under the linear schedule of 1,000 levels.
    images: ``u8[N, H, W, C]``, or ``f32`` of that shape in [-1, 1], or a `ddim_jax.data.Source`, which says
      what its numbers mean: the model remembers it, see ``model.scaling``.
    steps: Train until this many updates, from the first of the run on.
    labels: ``i32[N]``, for arrays.
    classes: Names of the labels, for arrays; their numbers by default.
    conditions: ``f[N, K]``, for arrays: a vector for each image, which the model standardises. A `UNet` takes
      them with ``condition_size=K``, other networks with ``from_network(network, shape, conditions=K)``.
    decode: What makes pictures of samples for grids and evaluations, where they are none, such as latents:
      ``values -> u8, or f32 in [-1, 1], [B, H, W, C]``; see `Model`.
    batch_size: Size of the global batch of an update; a multiple of all devices.
    accumulate: Compute an update in so many parts, one after another: less memory, the same update.
    flip: Mirror each image left to right with probability 1/2.
    optimizer: ``(learning_rate) -> optimiser``, such as ``optax.adamw``; or a finished optimiser, which is
      used as it is: then learning_rate, warmup and clip have no effect.
    learning_rate: Its value after the warm-up; or an optax schedule, which has its own warm-up.
    warmup: Updates over which the learning rate rises from 0. The default is the paper's, for 800,000
      updates: in a short run give about a tenth of ``steps``.
    learning_rate_schedule: What a number as learning_rate does then: "constant"; "cosine", to 0 after
      ``steps``; or "inverse_sqrt", see `ddim_jax.training.inverse_sqrt_rate`.
    clip: Largest global norm of a gradient.
    ema: Decay of the EMA of the parameters, in [0, 1), counted in updates.
    emas: Decays of further EMAs, to be chosen from afterwards: ``ddim_jax.load(workdir, ema=...)``.
    weighting: Weighting of the loss: "min_snr", "p2", "variational", or a function, see
      `ddim_jax.training.Weighting`; None is L_simple, for a network that also predicts variances with 0.001
      times the variational bound, see `ddim_jax.training.hybrid_losses`.
    minimise: ``model -> (losses, levels)``, as `ddim_jax.training.make_train_step` takes them, to minimise
      something else, without weighting, level_distribution, antithetic and label_dropout; see
      `ddim_jax.distillation`.
    level_distribution: How levels are drawn: "uniform" from 1 to T, or as real numbers "log_normal", as EDM
      does, or "logit_normal", as flow matching does, see `ddim_jax.continuous`.
    antithetic: Draw levels in pairs t and T + 1 - t.
    label_dropout: Fraction of labels and conditions hidden, for classifier-free guidance, in [0, 1).
    seed: Decides initialisation, noise, order and flips; at least 0.
    max_minutes: Stop and save after this time, compilation included.
    max_skipped: Updates that may be left out because loss or gradient was not finite, before the run stops.
    save_every: Updates between checkpoints.
    keep: Newest checkpoints to keep.
    keep_every: Also keep, for ever, checkpoints whose step is a multiple of this.
    sample_every: Updates between grids of samples in ``workdir``/samples; 0 for none.
    eval_every: Updates between evaluations, whose best step is kept; 0 for none.
    eval_num: Images an evaluation draws by DDIM, with 50 steps, or as many as the model was distilled for;
      distances of different numbers cannot be compared.
    inception: Weights of the FID's Inception network, for evaluation; None is EfficientNet-Lite0, or for
      grey images a classifier.
    log: ``(step, values)``, called in order for every update with what TensorBoard gets: "loss", "grad_norm",
      "skipped", "learning_rate" (unless the optimiser is a finished one); and where there are any,
      "images_per_second", "frechet" and losses by level: ``lambda step, values: wandb.log(values, step)``.
    log_samples: ``(step, u8[H, W, C])``, called with every grid of samples, after what ``log`` gets of that
      step: ``lambda step, grid: wandb.log({"samples": wandb.Image(grid)}, step)``.
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
  inputs.check_batch(batch_size, accumulate)
  workdir, source = for_checkpoints(workdir), inputs.as_source(images, labels, classes, conditions)
  optimisation = Optimisation(
    inputs.name_of(optimizer), batch_size, 0.0 if callable(learning_rate) else float(learning_rate), warmup,
    learning_rate_schedule, inputs.weight_decay_of(optimizer), clip, ema, tuple(emas), seed,
  )  # fmt: skip
  learning_rate = objective.schedule(learning_rate, learning_rate_schedule, warmup, steps)
  found = for_source(inputs.as_model(model, source), source, decode)
  model = inputs.recorded(
    found, optimisation, record, label_dropout=label_dropout, distribution=level_distribution,
    antithetic=antithetic, weighting=weighting, minimise=minimise,
  )  # fmt: skip
  made = objective.optimizer(optimizer, learning_rate, warmup, clip)
  losses, levels = (minimise or objective.simple(weighting, level_distribution, antithetic, label_dropout))(
    model
  )
  batch = partial(local_batch, source, batch_size=batch_size, seed=seed, flip=flip)
  chief, key = jax.process_index() == 0, key_of(seed)
  shown = progress and chief
  workdir.mkdir(parents=True, exist_ok=True)
  with contextlib.ExitStack() as stack:
    stop = stack.enter_context(hosts.StopRequest(max_minutes))
    if chief:
      stack.enter_context(alone(workdir, "is training there"))
    folder = workdir / "checkpoints"
    manager = stack.enter_context(checkpoints.open_manager(folder, keep=keep, keep_every=keep_every))
    begun = begin(workdir, manager, model, source, made, packed=objective.alike(optimizer), origin=origin)
    decay = training.constant_decay if begun.tuned else training.warm_decay
    update = pmapped_update(
      objective.accumulated(losses, accumulate), levels, made, decay(ema), [decay(value) for value in emas],
      level_edges=evaluation.level_edges(model.schedule.T), scaling=source.scaling,
      rate=objective.rate(optimizer, learning_rate, warmup),
    )  # fmt: skip
    state, first = on_every_device(begun.state), int(begun.state.step)
    judge = None if not eval_every else evaluation.evaluator(
      model, source, folder=workdir, num=eval_num, seed=seed, decays=emas,
      inception=None if inception is None else local(inception, "inception"), name=model.config.data.data,
    )  # fmt: skip
    if shown:
      say("\n".join(header(workdir, source, model.schedule, state, batch_size, steps, begun.changes)))
    if first < steps:
      with waiting("tracing", shown):
        flags = np.zeros(jax.local_device_count(), np.int32)
        lowered = update.lower(state, key, *batch(first), flags)
      told = not shown or say_outlook(lowered, accumulate, steps - first)
      with waiting("compiling", shown):
        program = lowered.compile(compiler_options=tuning.options())
      if not told:
        say_outlook(program, accumulate, steps - first)
      if jax.process_count() == 1:  # else pmap makes global arrays of the hosts' parts
        update = program
    book = stack.enter_context(
      logs.open_log(workdir, first, steps, batch_size, chief=chief, progress=progress, deadline=stop.deadline)
    )
    drawn = sample_every and chief and model.visible
    shown_to = [book.picture] if log_samples is None else [book.picture, log_samples]
    habits = between.Habits(
      between.checkpointer(manager, begun.description), save_every, judge, eval_every,
      between.grids(model, source, seed, workdir, shown_to) if drawn else None, sample_every, compiled, shown,
    )  # fmt: skip
    reader = between.Reader(book, log if chief else None, max_skipped, model.schedule.T, manager)
    batches = data.prefetch(batch, first, steps)
    state, step, urgency = between.train(update, state, key, batches, steps, habits, reader, stop)
    result: Model = model.replace(params=unpack(jax.device_get(state.ema)), step=step)
  if urgency == 2:
    raise Interrupted(f"stopped and saved at step {step:,} in {workdir}")
  return result
