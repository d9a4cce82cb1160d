"""Distillation as a run: it resumes, what it makes can be loaded, and a student beats its teacher."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax import data, models
from ddim_jax.runs import distil, fit, halving

pytestmark = pytest.mark.usefixtures("promotion")

SHAPE = (8, 8, 1)
QUICK = {"batch_size": 64, "progress": False, "save_every": 1000}


class Dense(nn.Module):
  """Two dense layers of image and level."""

  @nn.compact
  def __call__(self, x, t, labels=None):
    angles = t[:, None] / 1000 * jnp.asarray([[1.0, 3.0, 9.0, 27.0]])
    h = jnp.concatenate([x.reshape(x.shape[0], -1), jnp.sin(angles), jnp.cos(angles)], axis=1)
    return nn.Dense(64)(nn.swish(nn.Dense(256)(h))).reshape(x.shape)


@pytest.mark.slow
def test_four_steps_of_a_student_are_nearer_to_many_than_four_of_its_teacher(tmp_path):
  """From the same noise, to where the 16 steps of the teacher lead, in mean square.

  After so few updates by a factor of 1.1 when 8 steps are halved, of 1.6 when each four of 16 become one, and
  of 1.1 by consistency.
  """
  digits = data.load_builtin("digits", "train", data.default_data_dir())
  begun = models.from_network(
    Dense(), SHAPE, schedule=ddim_jax.cosine_schedule(1000), parameterisation=ddim_jax.V
  )
  teacher = fit(
    tmp_path / "teacher", begun, digits, steps=500, learning_rate=2e-3, warmup=50, ema=0.99, sample_every=0,
    **QUICK,
  )  # fmt: skip
  draw = lambda model, steps: model.sample(256, steps=steps, spacing="trailing", seed=1)
  distance = lambda model: float(np.mean((draw(model, 4) - draw(teacher, 16)) ** 2))
  for start, by, teaching, factor in (
    (8, 2, halving.PROGRESSIVE, 1.05),
    (16, 4, halving.PROGRESSIVE, 1.3),
    (16, 4, halving.CONSISTENCY, 1.0),
  ):
    student = distil(
      tmp_path / f"{by} {teaching.losses.__name__}", teacher, digits, to=4, start=start, by=by,
      teaching=teaching, updates=500, learning_rate=2e-3, ema=0.98, **QUICK,
    )  # fmt: skip
    assert student.step == 500
    assert distance(student) * factor < distance(teacher)
    np.testing.assert_array_equal(student.sample(2), student.sample(2, steps=4, spacing="trailing"))


class Gain(nn.Module):
  """A number for each of 16 levels, with which an image is multiplied."""

  @nn.compact
  def __call__(self, x, t, labels=None):
    gains = self.param("gains", nn.initializers.zeros, (17,))
    return gains[t][:, None, None, None] * x


@pytest.mark.slow
@pytest.mark.parametrize("teaching", (halving.PROGRESSIVE, halving.CONSISTENCY))
def test_the_first_student_learns_from_the_teacher_not_from_the_turned_one(tmp_path, teaching):
  """The exact eps of Gaussian data is a gain for each level, and so is the v whose one step is two of it.

  The turn has one update only, so that what it makes, a gain of eps taken for one of v, would teach nonsense.
  """
  schedule, scale = ddim_jax.cosine_schedule(16), 0.2
  exact = schedule.sigma / (scale**2 * schedule.alpha_bar + schedule.sigma**2)
  teacher = models.from_network(Gain(), (2, 2, 1), schedule=schedule).replace(params={"gains": exact})
  drawn = np.random.default_rng(0).normal(127.5, 127.5 * scale, (4096, 2, 2, 1))
  images = np.clip(drawn, 0, 255).astype(np.uint8)
  student = distil(
    tmp_path, teacher, images, to=2, start=4, teaching=teaching, turn_updates=1, updates=300,
    learning_rate=0.1, ema=0.9, **QUICK,
  )  # fmt: skip
  many = teacher.sample(64, steps=4, spacing="trailing")
  np.testing.assert_allclose(student.sample(64, steps=2), many, atol=0.02)
  assert np.abs(teacher.sample(64, steps=2, spacing="trailing") - many).max() > 0.1


@pytest.mark.slow
def test_a_run_of_students_goes_on_and_can_be_loaded(tmp_path):
  """A U-Net of eps: turned to v, then halved; stopped within a student, and called again."""
  unet = ddim_jax.UNet(channels=4, multipliers=(1,), blocks=1, attention=(), groups=2, out_channels=1)
  images = np.random.default_rng(0).integers(0, 256, (64, 4, 4, 1), np.uint8)
  teacher = models.from_network(unet, (4, 4, 1), schedule=ddim_jax.cosine_schedule(16))
  teacher = teacher.replace(params=teacher.init(jax.random.key(0)))
  arguments = {"to": 2, "start": 4, "updates": 6, "ema": 0.5, "batch_size": 8, "progress": False}
  stopped = distil(tmp_path, teacher, images, max_minutes=1e-6, **arguments)
  assert stopped.step < 6
  student = distil(tmp_path, teacher, images, **arguments)
  assert sorted(path.name for path in tmp_path.iterdir()) == ["2_steps", "4_steps"]
  found = ddim_jax.load(tmp_path / "2_steps")
  assert found.parameterisation is ddim_jax.V
  assert (found.levels(2).tolist(), found.own_steps) == ([16, 8, 0], 2)
  np.testing.assert_allclose(found.sample(2), student.sample(2, steps=2), atol=1e-6)
  again = distil(tmp_path, teacher, images, **arguments)
  np.testing.assert_array_equal(again.sample(1, steps=2), student.sample(1, steps=2))
  with pytest.raises(
    ValueError, match="distilled_by: 'distillation_losses, every 2' in the checkpoint, 'consistency_losses"
  ):
    distil(tmp_path, teacher, images, teaching=halving.CONSISTENCY, **arguments)
  tuned = fit(tmp_path / "tuned", found, images, steps=1, batch_size=8, sample_every=0, progress=False)
  assert tuned.own_steps == 16  # trained as any other, it is no student any more
  with pytest.raises(ValueError, match="start must be at most the 16 levels of the teacher, got 32"):
    distil(tmp_path, teacher, images, to=2, start=32)
  with pytest.raises(ValueError, match="turn_updates must be positive, got 0"):
    distil(tmp_path, teacher, images, to=2, start=4, turn_updates=0)
