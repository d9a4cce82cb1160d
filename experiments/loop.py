"""The training loop: pmapped over all devices of all hosts, resumed from its folder."""

import contextlib
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ddim_jax
from ddim_jax import checkpoints, data, plots, training
from ddim_jax.models import Model, build, datasets
from ddim_jax.runs import objective
from ddim_jax.runs import start as starting
from experiments import heap, hosts, logs, quality
from experiments.presets import Args

AXIS = "devices"
"""Name of the axis over which a batch is split."""
_LAG = 2
"""Steps between an update and reading its metrics, so that reading never makes the device wait."""
_GRID = 64
_LEVELS_EVERY = 10
"""Steps between those that record their loss by level."""


def train(args: Args) -> int:
  """Trains until ``args.run.steps`` or until told to stop; returns the exit status."""
  with hosts.connected(args.run), hosts.StopRequest(args.run.max_minutes) as stop:
    return _train(args, stop)


def _train(args: Args, stop: hosts.StopRequest) -> int:
  run, optimisation = args.run, args.optimisation
  if optimisation.batch_size < 1 or optimisation.batch_size % jax.device_count():
    raise ValueError(
      f"--batch-size must be a positive multiple of the {jax.device_count()} devices,"
      f" got {optimisation.batch_size}"
    )
  if run.eval_every < 0 or run.eval_num < 2:
    raise ValueError(
      f"--eval-every must be at least 0 and --eval-num at least 2, got {run.eval_every} and {run.eval_num}"
    )
  if any(not 0 <= decay < 1 for decay in optimisation.emas):
    raise ValueError(f"--emas must be in [0, 1), got {optimisation.emas}")
  if run.save_every < 1 or run.sample_every < 0:
    raise ValueError(
      "--save-every must be positive and --sample-every at least 0 (no grids),"
      f" got {run.save_every} and {run.sample_every}"
    )
  source = datasets.open_data(args.data)
  run.workdir.mkdir(parents=True, exist_ok=True)
  chief = jax.process_index() == 0
  with contextlib.ExitStack() as stack:
    folder = run.workdir / "checkpoints"
    manager = stack.enter_context(checkpoints.open_manager(folder, keep=run.keep, keep_every=run.keep_every))
    saved = checkpoints.restore_newest_sound(manager, lambda text: print(f"warning: {text}", flush=True))
    params = None
    if saved is not None:
      args = args.decided(starting.again(args.config, run.origin, saved.config))
    elif run.origin is not None:
      config, params = starting.beginning(args.config, run.origin, source.shape[0])
      args = args.decided(config)
    model = build.from_config(args.config, source.shape, source.classes)
    description, T = description_of(args, model, source), model.schedule.T
    optimizer = objective.optimizer(optimisation)
    update = pmapped_update(args, model, optimizer)
    state = initial_state(model, optimizer, optimisation.seed, len(optimisation.emas), params)
    if saved is not None:
      state = _resume(saved, state, args, description)
    state = on_every_device(state)
    draw_grid = _grid_sampler(model, optimisation.seed)
    evaluate = quality.evaluator(args, source, model) if run.eval_every else None
    make_batch = partial(local_batch, source, args)
    key = jax.random.key(optimisation.seed)
    start = int(state.step)
    if chief:
      print(_header(args, source, state, update, make_batch), flush=True)
    log = stack.enter_context(logs.open_log(run, start, optimisation.batch_size, chief))
    pending: deque[tuple[int, dict[str, jax.Array]]] = deque()

    def collect(limit: int) -> int:
      """Logs metrics until at most ``limit`` steps are unread; returns the highest stop level seen."""
      level = 0
      while len(pending) > limit:
        number, metrics = pending.popleft()
        arrays = {name: np.asarray(value) for name, value in metrics.items()}
        by_level = quality.by_level(arrays, T) if number % _LEVELS_EVERY == 0 else {}
        values = {name: value.item() for name, value in arrays.items() if value.ndim == 0} | by_level
        level = max(level, int(values.pop("stop")))
        log.step(number, values)
        if values["skipped"] > run.max_skipped:
          raise FloatingPointError(
            f"loss or gradient was not finite at step {number} (loss {values['loss']}); that update was"
            f" left out. Last checkpoint: {_last(manager)}. Lower the learning rate, or allow"
            " some such updates with --max-skipped."
          )
      return level

    step, stopping = start, 0
    for step, (images, labels) in enumerate(data.prefetch(make_batch, start, run.steps), start + 1):
      flags = np.full(jax.local_device_count(), stop.level(), np.int32)
      state, metrics = update(state, key, images, labels, flags)
      pending.append((step, metrics))
      if step == start + 1:  # everything that every step needs is compiled now
        jax.block_until_ready(metrics)
        heap.set_pieces_aside()
      last = step == run.steps
      judged = evaluate is not None and (last or step % run.eval_every == 0)
      if evaluate is not None and judged:
        metrics |= evaluate(state)
      due = last or judged or step % run.save_every == 0
      stopping = collect(0 if due else _LAG)
      if due or stopping:
        stopping = max(stopping, collect(0))
        log.flush()
        checkpoints.save(manager, step, state, description, metrics["frechet"] if judged else None)
      if chief and run.sample_every and (last or step % run.sample_every == 0):
        plots.save_png(run.workdir / "samples" / f"step_{step:08d}.png", draw_grid(state.ema))
      if stopping:
        break

  if chief:
    print(_farewell(args, step, stopping), flush=True)
  return hosts.StopRequest.STATUS[stopping]


def description_of(args: Args, model: Model, source: data.Source) -> dict[str, Any]:
  """What a checkpoint needs beside its arrays to be sampled from."""
  description = build.describe(model) | {"classes": list(source.classes), "images": source.size}
  del description["step"]
  return description if args.run.origin is None else description | {"from": str(args.run.origin)}


def _last(manager) -> str:
  manager.wait_until_finished()
  return "none" if manager.latest_step() is None else f"step {manager.latest_step()}"


def initial_state(model: Model, optimizer, seed, emas: int = 0, params=None) -> training.TrainState:
  """The state before the first step, as numpy arrays; its parameters are random, or those given."""
  # It runs once, and takes longer to compile well than to run.
  hasty = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None

  @partial(jax.jit, compiler_options=hasty)
  def create(key):
    made = model.init(key)
    return training.create_state(made, optimizer, emas)

  state = jax.device_get(create(jax.random.key(seed)))
  if params is None:
    return state
  return jax.device_get(training.create_state(starting.fill_in(state.params, params), optimizer, emas))


def _resume(
  restored: checkpoints.Restored, state: training.TrainState, args: Args, description: dict[str, Any]
) -> training.TrainState:
  """The state of a checkpoint.

  Raises:
    ValueError: If it is of another configuration or other data; names what differs.
  """
  wrong = starting.differences(build.from_json(restored.config["config"]), args.config)
  wrong += [
    f"{name} of the data: {restored.config[name]} in the checkpoint, {description[name]} now"
    for name in ("images", "image", "classes")
    if restored.config.get(name, description[name]) != description[name]
  ]
  if wrong:
    raise ValueError(f"{args.run.workdir} holds another run: {'; '.join(wrong)}")
  return checkpoints.fill(state, restored.arrays)


def on_every_device(state: training.TrainState) -> training.TrainState:
  """The state laid out over the local devices as `pmapped_update` returns it.

  An update of numpy arrays is traced and compiled once more for what comes out of it.
  """
  mesh = jax.sharding.Mesh(np.asarray(jax.local_devices()), (AXIS,))
  return jax.device_put(state, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def pmapped_update(args: Args, model: Model, optimizer):
  """``(state, key, images, labels, stop) -> (state, metrics)`` over the local devices of all hosts.

  State and metrics have no device axis: they are the same everywhere. The state is donated.
  """
  T = model.schedule.T
  weighting = objective.WEIGHTINGS[args.diffusion.weighting]()
  # A short memory at first forgets the initialisation, but would also forget weights that were given.
  decay = training.warm_decay if args.run.origin is None else training.constant_decay
  step = training.make_train_step(
    objective.losses(model, weighting, args.network.label_dropout),
    objective.levels(args.diffusion.antithetic, T),
    optimizer,
    decay(args.optimisation.ema),
    decays=[decay(value) for value in args.optimisation.emas],
    level_edges=quality.level_edges(T),
    axis_name=AXIS,
  )

  def update(state, key, images, labels, stop):
    state, metrics = step(state, key, data.from_uint8(images), labels)
    # The devices of one host are told the same, and on a CPU a device that meets others waits with nothing
    # else to do: agreeing took half of a step of the digits' network.
    agreed = stop if jax.process_count() == 1 else jax.lax.pmax(stop, AXIS)
    return state, metrics | {"stop": agreed}

  return jax.pmap(
    update, axis_name=AXIS, in_axes=(None, None, 0, 0, 0), out_axes=(None, None), donate_argnums=0
  )


def local_batch(source: data.Source, args: Args, step: int) -> tuple[np.ndarray, np.ndarray]:
  """This process's rows of a batch, split over its devices: ``u8[D, b, H, W, C]``, ``i32[D, b]``."""
  images, labels = data.batch_at(
      source, step, batch_size=args.optimisation.batch_size, seed=args.optimisation.seed,
      flip=args.data.flip, part=(jax.process_index(), jax.process_count()),
  )  # fmt: skip
  split = lambda x: x.reshape(jax.local_device_count(), -1, *x.shape[1:])
  return split(images), split(labels)


def _grid_sampler(model: Model, seed: int):
  """``(ema) -> picture`` of samples from fixed keys, with 50 deterministic steps."""
  schedule = model.schedule
  ts = ddim_jax.timesteps.uniform(schedule.T, min(50, schedule.T))
  keys = ddim_jax.image_keys(jax.random.key(seed), np.arange(_GRID))
  labels = jnp.arange(_GRID) % len(model.classes) if model.classes else None
  noise = ddim_jax.initial_noise(keys, (_GRID, *model.shape))

  @jax.jit
  def sample(model):
    return ddim_jax.sample(keys, model.denoiser(label=labels), model.schedule, noise, ts)[0]

  # Through the host: one device samples, whatever the number that hold the average.
  return lambda ema: plots.grid(data.to_uint8(sample(model.replace(params=jax.device_get(ema)))))


def _header(args: Args, source, state, update, make_batch) -> str:
  images, labels = make_batch(0)
  flags = np.zeros(jax.local_device_count(), np.int32)
  key = jax.random.key(0)
  cost: Any = update.lower(state, key, images, labels, flags).cost_analysis()
  flops = (cost or {}).get("flops", 0) * jax.device_count()
  parameters = sum(x.size for x in jax.tree.leaves(state.params))
  device = jax.devices()[0]
  classes = f", {len(source.classes)} classes" if source.classes else ""
  processes = f"{jax.process_count()} process" + "es" * (jax.process_count() > 1)
  lines = (
    f"devices     {jax.device_count()} x {device.device_kind} ({device.platform}), {processes}",
    f"network     {parameters:,} parameters, computing in {args.network.dtype}",
    f"data        {source.name}: {source.size:,} images {'x'.join(map(str, source.shape))}{classes}",
    f"batch       {args.optimisation.batch_size} = {jax.device_count()} x {images.shape[1]}",
    f"a step      about {flops / 1e9:,.1f} GFLOP",
    f"run         {Path(args.run.workdir).absolute()}, step {int(state.step):,} of {args.run.steps:,}",
  )
  return "\n".join(lines)


def _farewell(args: Args, step: int, stopping: int) -> str:
  workdir = args.run.workdir
  if stopping:
    return f"stopped and saved at step {step:,} in {workdir}; the same command goes on from there"
  return f"done: {step:,} steps. Next: python -m experiments.sample --workdir {workdir}"
