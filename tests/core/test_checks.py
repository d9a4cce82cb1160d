"""Values that are not traced are checked at once, and named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ddim_jax
from ddim_jax import checks, timesteps

LINEAR, JSD = ddim_jax.linear_schedule(100), ddim_jax.jsd_schedule(100)
X = jnp.ones((2, 3), jnp.float32)
DENOISE = ddim_jax.as_denoiser(lambda x, t: x, LINEAR)
KEY = jax.random.key(0)


def unet(labels=None, **options):
  network = ddim_jax.UNet(
    **{"channels": 8, "multipliers": (1,), "blocks": 1, "attention": (), "groups": 4, "out_channels": 1}
    | options
  )
  x = jnp.zeros((2, 4, 4, 1))
  network.apply({"params": {}}, x, jnp.int32(1), None if labels is None else jnp.asarray(labels))


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: ddim_jax.ddim(2.0), r"eta must be in \[0, 1\], got 2\.0"),
    (lambda: ddim_jax.ddim(jnp.asarray(-0.1)), r"eta must be in \[0, 1\]"),
    (lambda: ddim_jax.ddim(np.nan), "eta must be .*nan"),
    (lambda: ddim_jax.ddim_step(LINEAR, DENOISE(X, 5), 5, 4, eta=1.1), "eta must"),
    (lambda: ddim_jax.dpm_solver_pp(2, eta=-1), "eta must"),
    (lambda: ddim_jax.dpm_solver_pp_singlestep(2, eta=3), "eta must"),
    (lambda: ddim_jax.ancestral(ddim_jax.ddim(), 1.5), "eta must"),
    (lambda: ddim_jax.ancestral(ddim_jax.lms()).init(X), "solver must not remember"),
    (lambda: ddim_jax.heun(churn=-0.1), "churn must"),
    (lambda: ddim_jax.lms(5), "order must be an integer from 1 to 4, got 5"),
    (lambda: ddim_jax.dpm_solver_pp_singlestep(0), "order must be an integer from 1 to 3, got 0"),
    (lambda: ddim_jax.clip_x0(DENOISE, LINEAR, 1, -1), "low must be at most high, got 1 and -1"),
    (lambda: ddim_jax.dynamic_threshold(DENOISE, LINEAR, 1.5), r"quantile must be in \[0, 1\], got 1\.5"),
    (
      lambda: ddim_jax.dynamic_threshold(DENOISE, LINEAR, 0.9, -0.5),
      r"maximum must be at least 0, got -0\.5",
    ),
    (
      lambda: ddim_jax.sample(KEY, DENOISE, LINEAR, X, timesteps.uniform(1000, 10)),
      r"ts must be in \[0, 100\]",
    ),
    (lambda: ddim_jax.sample_parallel(KEY, DENOISE, LINEAR, X, np.array([101, 0])), "ts must be in"),
    (
      lambda: ddim_jax.invert(DENOISE, LINEAR, X, np.array([5, 7, 0])),
      "ts must decrease .* got .5, 7, 0",
    ),
    (lambda: ddim_jax.invert(DENOISE, LINEAR, X, np.array([7, 7])), "ts must decrease"),
    (lambda: ddim_jax.invert(DENOISE, LINEAR, X, np.array([7, 0]), refine=-1), "refine must"),
    (lambda: ddim_jax.invert(DENOISE, LINEAR, X, np.array([7, 0]), damping=2.0), "damping must"),
    (lambda: ddim_jax.sample(KEY, DENOISE, LINEAR, X, np.array([0, 3, 7])), "ts must decrease"),
    (lambda: ddim_jax.sample(KEY, DENOISE, LINEAR, X, [7.0, 7.0, 0.0]), "ts must decrease"),
    (lambda: ddim_jax.sample(DENOISE, KEY, LINEAR, X, [7, 0]), "denoise must be a function .*PRNGKeyArray"),
    (lambda: ddim_jax.sample(KEY, LINEAR, DENOISE, X, [7, 0]), "schedule must be a Schedule, got function"),
    (lambda: ddim_jax.sample(KEY, ddim_jax.UNet(), LINEAR, X, [7, 0]), "got UNet; ddim_jax.as_denoiser"),
    (lambda: ddim_jax.sample(KEY, DENOISE, LINEAR, X, [7, 0], solver=ddim_jax.ddim), "got ddim; call it"),
    (
      lambda: ddim_jax.sample_parallel(KEY, DENOISE, LINEAR, X, [7, 0], solver="ddim"),
      "solver must .*got str",
    ),
    (lambda: ddim_jax.sample(3, DENOISE, LINEAR, X, [7, 0]), "key must be a key"),
    (lambda: unet(groups=0), "groups and out_channels at least 1, got .*, 0 and 1"),
    (lambda: unet(multipliers=()), "multipliers must not be empty"),
    (lambda: unet(blocks=-1), "blocks at least 0"),
    (lambda: unet(dropout=1.0), "dropout must be"),
    (lambda: unet(embedding=-1), "embedding must be None or at least 1, got -1"),
    (lambda: unet(head_dim=0), "head_dim must be"),
    (lambda: unet(head_dim=4, heads=2), "give head_dim or heads, not both: got 4 and 2"),
    (lambda: unet(resample="linear"), "resample must be conv, block or pool, got 'linear'"),
    (lambda: unet(num_classes=3, labels=[-1, 0]), r"labels must be in \[0, 3\], got \[-1"),
    (lambda: unet(num_classes=3, labels=[0, 4]), r"labels must be in \[0, 3\]"),
    (lambda: unet(num_classes=3, null_class=False, labels=[0, 3]), r"labels must be in \[0, 2\]"),
    (lambda: unet(num_classes=3, labels=[0.0, 1.0]), "labels must be integers"),
    (lambda: ddim_jax.as_denoiser(lambda x, t: x, JSD), "nothing is left of the data at level 100"),
  ],
)
def test_refuses(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_what_is_traced_or_well_defined_passes():
  @jax.jit
  def run(schedule, eta):
    denoise = ddim_jax.as_denoiser(lambda x, t: x, schedule)
    return ddim_jax.sample(KEY, denoise, schedule, X, np.array([7, 0]), solver=ddim_jax.ddim(eta))[0]

  run(JSD, 0.5)
  for parameterisation in (ddim_jax.V, ddim_jax.X0, ddim_jax.EDM, ddim_jax.FLOW):
    ddim_jax.as_denoiser(lambda x, t: x, JSD, parameterisation)
  padded, _ = timesteps.pad(timesteps.uniform(100, 3), 6)
  ddim_jax.invert(DENOISE, LINEAR, X, timesteps.uniform(100, 3))
  checks.check_decreasing(padded, 100)


@pytest.mark.parametrize("spacing", [timesteps.log_snr, timesteps.karras])
@pytest.mark.parametrize("T", [1, 2, 1000])
def test_spacing_ignores_the_infinite_end(spacing, T):
  """Without signal at level T, the other levels are spaced as for the schedule that stops before it."""
  schedule = ddim_jax.jsd_schedule(T)
  if T > 2:
    shorter = ddim_jax.schedules.Schedule(schedule.log_snr[:-1])
    for S in (2, 10):
      ts = spacing(schedule, S)
      np.testing.assert_allclose(ts[1:], spacing(shorter, S)[1:], rtol=1e-6)
      assert ts[0] == T
  else:
    np.testing.assert_array_equal(spacing(schedule, T), [2, 1, 0] if T == 2 else [1, 0])


def test_an_nnx_module_that_counts_its_random_numbers_is_a_network():
  class Noisy(nnx.Module):
    def __init__(self, rngs):
      self.rngs, self.weight = rngs, nnx.Param(jnp.float32(0.5))

    def __call__(self, x, t):
      return x * self.weight[...] + 0 * jax.random.normal(self.rngs.noise(), x.shape, x.dtype)

  denoise = ddim_jax.as_denoiser(Noisy(nnx.Rngs(noise=0)), LINEAR)
  plain = ddim_jax.as_denoiser(lambda x, t: x * jnp.float32(0.5), LINEAR)
  got, expected = (ddim_jax.sample(KEY, d, LINEAR, X, np.array([90, 40, 0]))[0] for d in (denoise, plain))
  np.testing.assert_allclose(got, expected, rtol=1e-6)
