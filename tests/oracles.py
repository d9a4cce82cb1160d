"""The same mathematics written a second time, straight from the papers, in numpy float64 or torch."""

import itertools

import numpy as np


def linear_alpha_bar(T=1000, start=1e-4, end=0.02):
  """``alpha_bar`` at levels 0..T as a plain product."""
  return np.concatenate([[1.0], np.cumprod(1 - np.linspace(start, end, T))])


def paper_step(x_t, eps_hat, alpha_bar_t, alpha_bar_s, eta, z):
  """Equations (12) and (16) of arXiv:2010.02502 as printed there; its alpha is our alpha_bar."""
  sigma = eta * np.sqrt((1 - alpha_bar_s) / (1 - alpha_bar_t)) * np.sqrt(1 - alpha_bar_t / alpha_bar_s)
  x0 = (x_t - np.sqrt(1 - alpha_bar_t) * eps_hat) / np.sqrt(alpha_bar_t)
  return np.sqrt(alpha_bar_s) * x0 + np.sqrt(np.maximum(1 - alpha_bar_s - sigma**2, 0)) * eps_hat + sigma * z


def misprinted_step(x_t, eps_hat, alpha_bar_t, alpha_bar_s, eta, z):
  """The same with the direction term of a widely copied derivation, ``sqrt(1 - alpha_bar_t - sigma^2)``."""
  sigma = eta * np.sqrt((1 - alpha_bar_s) / (1 - alpha_bar_t)) * np.sqrt(1 - alpha_bar_t / alpha_bar_s)
  x0 = (x_t - np.sqrt(1 - alpha_bar_t) * eps_hat) / np.sqrt(alpha_bar_t)
  return np.sqrt(alpha_bar_s) * x0 + np.sqrt(np.maximum(1 - alpha_bar_t - sigma**2, 0)) * eps_hat + sigma * z


def posterior(x0, x_t, alpha_bar_t, alpha_bar_s):
  """Mean and variance of ``q(x_s | x_t, x_0)``: equation (7) of DDPM, for any pair of levels s < t."""
  alpha = alpha_bar_t / alpha_bar_s
  mean = np.sqrt(alpha_bar_s) * (1 - alpha) / (1 - alpha_bar_t) * x0
  mean += np.sqrt(alpha) * (1 - alpha_bar_s) / (1 - alpha_bar_t) * x_t
  return mean, (1 - alpha_bar_s) / (1 - alpha_bar_t) * (1 - alpha)


def gaussian_eps(x_t, alpha_bar_t, mean, variance):
  """``E[eps | x_t]`` where ``x_0`` is normal with this mean and variance."""
  alpha, sigma = alpha_bar_t**0.5, (1 - alpha_bar_t) ** 0.5
  return sigma * (x_t - alpha * mean) / (alpha**2 * variance + sigma**2)


def gaussian_x0(x_t, alpha_bar_t, mean, variance):
  """``E[x_0 | x_t]`` of the same data."""
  alpha = alpha_bar_t**0.5
  return mean + alpha * variance * (x_t - alpha * mean) / (alpha_bar_t * variance + 1 - alpha_bar_t)


def gaussian_moments(alpha_bar, ts, eta, mean, variance):
  """Mean and variance at ``ts[-1]`` of DDIM with the exact denoiser, from N(0, 1) at ``ts[0]``.

  Every step is affine in x_t and z, so that two numbers follow it exactly.
  """
  m, v = 0.0, 1.0
  for t, s in itertools.pairwise(ts):
    step = lambda x, z, t=t, s=s: paper_step(
      x, gaussian_eps(x, alpha_bar[t], mean, variance), alpha_bar[t], alpha_bar[s], eta, z
    )
    offset = step(0.0, 0.0)
    slope, noise = step(1.0, 0.0) - offset, step(0.0, 1.0) - offset
    m, v = slope * m + offset, slope**2 * v + noise**2
  return m, v


def torch_unet(params, x, t, *, channels, multipliers, blocks, attention, groups, label=None):
  """The forward pass of the DDPM network in torch functional calls, NCHW, from its description.

  Args:
    params: Parameters of our U-Net as a flat dictionary of numpy arrays, "/" between names.
    x: Images, numpy NHWC.
    t: Level (1..T) of every image.
    label: Class of every image, or None for a network without classes.
  """
  import torch
  import torch.nn.functional as F

  weight = lambda name: torch.from_numpy(np.array(params[name]))
  conv = lambda h, n, **kw: F.conv2d(h, weight(f"{n}/kernel").permute(3, 2, 0, 1), weight(f"{n}/bias"), **kw)
  norm = lambda h, n: F.group_norm(h, groups, weight(f"{n}/scale"), weight(f"{n}/bias"), eps=1e-6)
  linear = lambda h, n: F.linear(h, weight(f"{n}/kernel").T, weight(f"{n}/bias"))

  def residual(h, name, embedding):
    out = conv(F.silu(norm(h, f"{name}/norm1")), f"{name}/conv1", padding=1)
    out = out + linear(F.silu(embedding), f"{name}/time")[:, :, None, None]
    out = conv(F.silu(norm(out, f"{name}/norm2")), f"{name}/conv2", padding=1)
    return out + (conv(h, f"{name}/shortcut") if f"{name}/shortcut/kernel" in params else h)

  def attend(h, name):
    batch, width, height, _ = h.shape
    flat = norm(h, f"{name}/norm").flatten(2).transpose(1, 2)
    q, k, v = (linear(flat, f"{name}/{part}")[:, None] for part in "qkv")
    out = F.scaled_dot_product_attention(q, k, v)[:, 0]
    return h + linear(out, f"{name}/out").transpose(1, 2).reshape(batch, width, height, height)

  half = channels // 2
  frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -float(np.log(10000) / (half - 1)))
  angles = (torch.as_tensor(np.array(t)) - 1).float()[:, None] * frequencies
  embedding = torch.cat([angles.sin(), angles.cos()], dim=1)
  embedding = linear(F.silu(linear(embedding, "time_1")), "time_2")
  if label is not None:
    embedding = embedding + weight("classes/embedding")[torch.as_tensor(np.array(label))]

  h = conv(torch.from_numpy(np.array(x)).permute(0, 3, 1, 2), "conv_in", padding=1)
  skips, levels = [h], range(len(multipliers))
  for level in levels:
    for i in range(blocks):
      h = residual(h, f"down_{level}_block_{i}", embedding)
      h = attend(h, f"down_{level}_attention_{i}") if h.shape[2] in attention else h
      skips.append(h)
    if level != levels[-1]:
      h = conv(F.pad(h, (0, 1, 0, 1)), f"down_{level}_downsample", stride=2)
      skips.append(h)
  h = residual(h, "middle_block_0", embedding)
  h = residual(attend(h, "middle_attention"), "middle_block_1", embedding)
  for level in reversed(levels):
    for i in range(blocks + 1):
      h = residual(torch.cat([h, skips.pop()], dim=1), f"up_{level}_block_{i}", embedding)
      h = attend(h, f"up_{level}_attention_{i}") if h.shape[2] in attention else h
    if level:
      h = conv(F.interpolate(h, scale_factor=2, mode="nearest"), f"up_{level}_upsample", padding=1)
  return conv(F.silu(norm(h, "norm_out")), "conv_out", padding=1).permute(0, 2, 3, 1).numpy()


class Mixture:
  """Normal components on the line, one after another dimension: the exact mean of x0 given x_t.

  ``xp`` is numpy or jax.numpy; coefficients broadcast against ``x[..., None]``.
  """

  def __init__(self, means, weights, std):
    self.means, self.weights, self.std = np.array(means), np.array(weights), std

  def x0(self, x, alpha, sigma, xp=np):
    """``E[x_0 | x_t]`` of every element of ``x``."""
    x, alpha, sigma = x[..., None], alpha[..., None], sigma[..., None]
    means, weights = (v.reshape((1,) * (x.ndim - 1) + (-1,)) for v in (self.means, self.weights))
    variance = (alpha * self.std) ** 2 + sigma**2
    logit = xp.log(weights) - (x - alpha * means) ** 2 / (2 * variance)
    likely = xp.exp(logit - xp.max(logit, axis=-1, keepdims=True))
    posterior = means + alpha * self.std**2 / variance * (x - alpha * means)
    return xp.sum(likely * posterior, axis=-1) / xp.sum(likely, axis=-1)


def probability_flow(x0_given, x, start, end, steps):
  """The deterministic process by the classical Runge-Kutta rule, ``steps`` even steps in lambda.

  In ``y = x / alpha`` it is ``dy / dlambda = -exp(-lambda) eps``. ``x0_given(x, alpha, sigma)``.
  """
  coefficients = lambda lam: (
    np.array((1 + np.exp(-2 * lam)) ** -0.5),
    np.array((1 + np.exp(2 * lam)) ** -0.5),
  )

  def slope(lam, y):
    alpha, sigma = coefficients(lam)
    return -np.exp(-lam) * (alpha * y - alpha * x0_given(alpha * y, alpha, sigma)) / sigma

  h, y = (end - start) / steps, x / coefficients(start)[0]
  for lam in start + h * np.arange(steps):
    a = slope(lam, y)
    b = slope(lam + h / 2, y + h / 2 * a)
    c = slope(lam + h / 2, y + h / 2 * b)
    y = y + h / 6 * (a + 2 * b + 2 * c + slope(lam + h, y + h * c))
  return y * coefficients(end)[0]


def gaussian_flow(x, alpha_bar_t, alpha_bar_s, mean, variance):
  """The deterministic process in closed form where ``x_0`` is normal: it keeps the standard score."""
  deviation = lambda a: np.sqrt(a * variance + 1 - a)
  score = (x - np.sqrt(alpha_bar_t) * mean) / deviation(alpha_bar_t)
  return np.sqrt(alpha_bar_s) * mean + deviation(alpha_bar_s) * score


def edm(x, x0_given, ratios, noise, churn, inflation, low, high):
  """Algorithm 2 of arXiv:2206.00364 as printed, in its own variables: x there is x / alpha."""
  for i, (t, s) in enumerate(itertools.pairwise(ratios)):
    gamma = churn if low <= t <= high else 0.0
    raised = t + gamma * t
    x = x + np.sqrt(raised**2 - t**2) * inflation * noise[i]
    slope = (x - x0_given(x, raised)) / raised
    after = x + (s - raised) * slope
    if s != 0:
      other = (after - x0_given(after, s)) / s
      after = x + (s - raised) * (slope + other) / 2
    x = after
  return x


def convolution(x, kernel):
  """A 3x3 convolution with zero padding, ``[B, H, W, C], [3, 3, C, D] -> f64[B, H, W, D]``: nine shifts."""
  padded = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
  kernel, (height, width) = np.asarray(kernel, np.float64), x.shape[1:3]
  return sum(padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))
