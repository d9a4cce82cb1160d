"""From wherever a model is to a `Model`."""

from pathlib import Path
from typing import Any

from ddim_jax.interop import adm, adm_flags, diffusers, files, original
from ddim_jax.models import build, records
from ddim_jax.models.model import Model
from ddim_jax.places import is_hub_name, local

_HERE = Path(__file__).parent
PICKLES = (".ckpt", ".pth", ".pt")


def packaged() -> dict[str, Path]:
  """The models that come with the package: name -> file, the default first."""
  return {path.stem: path for path in sorted(_HERE.glob("*.safetensors"), key=lambda path: len(path.name))}


def load(
  where: str | Path,
  *,
  step: int | None = None,
  ema: float | None = None,
  size: int | None = None,
  like: Model | None = None,
  flags: adm_flags.Flags | None = None,
) -> Model:
  """Loads a trained model; nothing else is needed to draw from it.

  Args:
    where: The name of a model that comes with the package ("fashion_mnist"; "fashion_mnist_classes", which
      can be asked for a class; "fashion_mnist_4_steps", the same distilled for four steps); the folder of a
      run; a .safetensors file of `Model.save`; a folder of diffusers; OWNER/NAME of the Hugging Face hub; a
      .ckpt, .pth or .pt file of the original DDIM code, of improved-diffusion or of guided-diffusion. Runs
      need orbax-checkpoint, pickles torch, the hub huggingface_hub.
    step: Checkpoint of a run; the newest by default.
    ema: Decay of the EMA, of those that a run keeps; its main one by default. 0 takes the model's own
      weights of a .ckpt file.
    size: Height of the images in pixels, where another project's files do not say, or other than they say.
    like: For a run whose network is not this project's: a Model with that network, from
      `ddim_jax.models.from_network`.
    flags: Of a file of improved-diffusion or guided-diffusion that is no published one: what it was trained
      with and weights do not tell, such as ``{"num_head_channels": 64}`` or ``"num_head_channels 64"``, see
      `ddim_jax.interop.load_adm`.

  Raises:
    FileNotFoundError: If there is nothing of that name.
    ValueError: If it cannot be read, or an argument does not go with it; says why.
  """
  if isinstance(where, str) and where in packaged():
    where = packaged()[where]
  path = local(where, "model")
  if path.suffix not in PICKLES:
    _refuse(path, "flags", flags)
  if path.suffix == ".safetensors":
    from ddim_jax.models import exported

    _refuse(path, "step and ema", step, ema)
    _refuse(path, "size", size)
    if not path.is_file():
      raise _nothing(where)
    return records.from_description(*exported.read(path), like)
  if path.suffix in PICKLES:
    _refuse(path, "step", step)
    if not path.is_file():
      raise _nothing(where)
    return _pickle(path, ema, size, flags)
  if path.is_dir() and not is_diffusers(path):
    _refuse(path, "size", size)
    return _run(path, step, ema, like)
  if not path.is_dir() and (path.exists() or not is_hub_name(str(where))):
    raise _nothing(where)
  _refuse(path, "step and ema", step, ema)
  folder = diffusers.folder_of(where)
  from ddim_jax.models import exported

  if exported.is_ours(ours := folder / exported.IN_A_FOLDER):  # as `ddim push` writes it, with more in it
    return load(ours, like=like)
  return build.from_pretrained(diffusers.load_diffusers(folder), size)


def is_diffusers(folder: Path) -> bool:
  """Whether a folder was written by diffusers; any other is taken for a run."""
  return any((folder / name).is_file() for name in ("config.json", "unet/config.json"))


def is_run(where: Path) -> bool:
  """Whether it is a run or a file of this project, which say how large their images are."""
  return (
    where.suffix == ".safetensors" or str(where) in packaged() or (where.is_dir() and not is_diffusers(where))
  )


def _nothing(where: str | Path) -> FileNotFoundError | ValueError:
  if Path(where).exists():
    return ValueError(f"{where} is no model: none of .safetensors, {', '.join(PICKLES)} or a folder")
  return FileNotFoundError(
    f"no such file or folder: {where}; models that come along: {', '.join(packaged())}"
  )


def _refuse(path: Path, arguments: str, *values: Any) -> None:
  if any(value is not None for value in values):
    raise ValueError(f"{arguments} must be as {path} says: leave out {arguments}")


def _pickle(path: Path, ema: float | None, size: int | None, flags: adm_flags.Flags | None) -> Model:
  values = files.read_pickle(path)
  if adm.is_adm(values):
    _refuse(path, "ema", ema)
    weights = files.as_arrays(values, str(path))
    return build.from_pretrained(adm.from_weights(weights, str(path), flags=flags), size)
  _refuse(path, "flags", flags)
  if ema not in (None, 0):
    raise ValueError(f"{path} has one EMA: leave out ema, or give 0 for the model's own weights, got {ema}")
  return build.from_pretrained(original.from_values(values, path, ema=ema is None), size)


def _run(workdir: Path, step: int | None, ema: float | None, like: Model | None) -> Model:
  from ddim_jax import checkpoints

  restored = checkpoints.restore_latest(workdir / "checkpoints", step)
  optimisation = build.from_json(restored.config["config"]).optimisation
  kept = {decay: f"emas.{i}" for i, decay in enumerate(optimisation.emas)} | {optimisation.ema: "ema"}
  if ema is not None and ema not in kept:
    raise ValueError(f"ema must be one of {sorted(kept)}, the decays that this run keeps; got {ema}")
  name = "ema" if ema is None else kept[ema]
  if like is None:
    params = checkpoints.subtree(restored.arrays, name)
  else:
    below = {k.removeprefix(f"{name}."): v for k, v in restored.arrays.items() if k.startswith(f"{name}.")}
    params = checkpoints.fill(like.template(), below)
  return records.from_description({"step": restored.step, **restored.config}, params, like)
