"""The networks of arXiv:2102.09672 and arXiv:2105.05233 in torch, as functions of weights under their names.

Written from the papers and from the names and shapes of the weights. The weights are drawn where a network
first asks for them, so that one description says both what there is and what is computed.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F


class Weights:
  """Random weights of ordinary size, ``tensors`` by name."""

  def __init__(self, seed=0):
    self.tensors, self.rng = {}, np.random.default_rng(seed)

  def __call__(self, name, *shape):
    if name not in self.tensors:
      self.tensors[name] = self.drawn(shape)
    assert self.tensors[name].shape == shape, name
    return self.tensors[name]

  def drawn(self, shape):
    noise = self.rng.standard_normal(shape)
    value = noise / math.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.5 + 0.1 * noise
    return torch.tensor(value, dtype=torch.float32)

  def apply(self, function, h, name, width, size=(), **options):
    kernel = self(f"{name}.weight", width, h.shape[1], *size)
    return function(h, kernel, self(f"{name}.bias", width), **options)

  def linear(self, h, name, width):
    return self.apply(F.linear, h, name, width)

  def conv(self, h, name, width, size=3, stride=1):
    return self.apply(F.conv2d, h, name, width, (size, size), stride=stride, padding=size // 2)

  def row(self, h, name, width):
    """A convolution of one pixel over ``[B, C, N]``."""
    return self.apply(F.conv1d, h, name, width, (1,))

  def norm(self, h, name):
    parts = (self(f"{name}.{part}", h.shape[1]) for part in ("weight", "bias"))
    return F.group_norm(h, 32, *parts, eps=1e-5)


class Shapes(Weights):
  """The shapes of weights without numbers: what they multiply becomes zeros."""

  def drawn(self, shape):
    return torch.zeros(()).expand(shape)

  def apply(self, function, h, name, width, size=(), stride=1, **options):
    super().apply(lambda *_, **__: None, h, name, width, size)
    return torch.zeros(len(h), width, *(length // stride for length in h.shape[2:]))


class Adm(NamedTuple):
  """A network's options, under the names of the papers' code."""

  channels: int = 32
  multipliers: tuple = (1, 2)
  blocks: int = 1
  rates: tuple = (2,)
  heads: int = 4
  head_channels: int | None = None
  new_order: bool = False
  scale_shift: bool = True
  updown: bool = False
  conv_resample: bool = True
  classes: int | None = None
  out: int = 6

  def embedding(self, w, t, label):
    """Of timesteps from 0 on: cosines, then sines, of frequencies that fall from 1 towards 1e-4."""
    half = self.channels // 2
    angles = t[:, None].float() * torch.pow(1e4, -torch.arange(half) / half)
    h = torch.cat([torch.cos(angles), torch.sin(angles)], dim=1)
    wide = 4 * self.channels
    h = w.linear(F.silu(w.linear(h, "time_embed.0", wide)), "time_embed.2", wide)
    return h if self.classes is None else h + w("label_emb.weight", self.classes, wide)[label]

  def block(self, w, h, embedding, name, width, change=lambda h: h):
    """A residual block; ``change`` of the size is that of both paths."""
    out = change(F.silu(w.norm(h, f"{name}.in_layers.0")))
    out = w.conv(out, f"{name}.in_layers.2", width)
    shift = F.silu(embedding)
    if self.scale_shift:
      scale, shift = w.linear(shift, f"{name}.emb_layers.1", 2 * width)[:, :, None, None].split(width, dim=1)
      out = w.norm(out, f"{name}.out_layers.0") * (1 + scale) + shift
    else:
      shift = w.linear(shift, f"{name}.emb_layers.1", width)[:, :, None, None]
      out = w.norm(out + shift, f"{name}.out_layers.0")
    out = w.conv(F.silu(out), f"{name}.out_layers.3", width)
    h = change(h)
    return out + (h if h.shape[1] == width else w.conv(h, f"{name}.skip_connection", width, size=1))

  def attend(self, w, h, name):
    _, width, *size = h.shape
    flat = h.flatten(2)
    qkv = w.row(w.norm(flat, f"{name}.norm"), f"{name}.qkv", 3 * width)
    heads = self.heads if self.head_channels is None else width // self.head_channels
    return h + w.row(attention(qkv, heads, self.new_order), f"{name}.proj_out", width).unflatten(2, size)

  def encode(self, w, x, embedding):
    """All feature maps on the way down, and the middle."""
    h = w.conv(x, "input_blocks.0.0", int(self.channels * self.multipliers[0]))
    maps = [h]
    for level, multiplier in enumerate(self.multipliers):
      for _ in range(self.blocks):
        place = f"input_blocks.{len(maps)}"
        h = self.block(w, h, embedding, f"{place}.0", int(self.channels * multiplier))
        h = self.attend(w, h, f"{place}.1") if 2**level in self.rates else h
        maps.append(h)
      if level + 1 < len(self.multipliers):
        place = f"input_blocks.{len(maps)}.0"
        if self.updown:
          h = self.block(w, h, embedding, place, h.shape[1], lambda h: F.avg_pool2d(h, 2))
        elif self.conv_resample:
          h = w.conv(h, f"{place}.op", h.shape[1], stride=2)
        else:
          h = F.avg_pool2d(h, 2)
        maps.append(h)
    h = self.block(w, h, embedding, "middle_block.0", h.shape[1])
    h = self.block(w, self.attend(w, h, "middle_block.1"), embedding, "middle_block.2", h.shape[1])
    return h, maps

  def shapes(self):
    """The shapes of all weights, by name."""
    w, size = Shapes(), 2 ** (len(self.multipliers) - 1)
    self(w, np.zeros((1, size, size, 3), np.float32), [0], None if self.classes is None else [0])
    return {name: tuple(tensor.shape) for name, tensor in w.tensors.items()}

  def __call__(self, w, x, t, label=None):
    """The output for images ``x``, NHWC numpy, at timesteps ``t`` from 0 on, NHWC numpy."""
    tensor = lambda value: None if value is None else torch.tensor(np.array(value))
    embedding = self.embedding(w, tensor(t), tensor(label))
    h, maps = self.encode(w, tensor(x).permute(0, 3, 1, 2), embedding)
    twice = lambda h: F.interpolate(h, scale_factor=2, mode="nearest")
    number = 0
    for level, multiplier in reversed(list(enumerate(self.multipliers))):
      for i in range(self.blocks + 1):
        place, parts = f"output_blocks.{number}", 1
        h = torch.cat([h, maps.pop()], dim=1)
        h = self.block(w, h, embedding, f"{place}.0", int(self.channels * multiplier))
        if 2**level in self.rates:
          h, parts = self.attend(w, h, f"{place}.1"), 2
        if level and i == self.blocks:
          if self.updown:
            h = self.block(w, h, embedding, f"{place}.{parts}", h.shape[1], twice)
          else:
            h = twice(h)
            h = w.conv(h, f"{place}.{parts}.conv", h.shape[1]) if self.conv_resample else h
        number += 1
    return w.conv(F.silu(w.norm(h, "out.0")), "out.2", self.out).permute(0, 2, 3, 1).numpy()

  def classify(self, w, x, t):
    """Logits of the classifier, half of such a network, with attention pooling."""
    tensor = torch.tensor(np.array(x)).permute(0, 3, 1, 2)
    h, _ = self.encode(w, tensor, self.embedding(w, torch.tensor(np.array(t)), None))
    h = F.silu(w.norm(h, "out.0")).flatten(2)
    h = torch.cat([h.mean(dim=2, keepdim=True), h], dim=2)
    h = h + w("out.2.positional_embedding", h.shape[1], h.shape[2])
    qkv = w.row(h, "out.2.qkv_proj", 3 * h.shape[1])
    h = attention(qkv, h.shape[1] // self.head_channels, new_order=True)
    return w.row(h, "out.2.c_proj", self.out)[:, :, 0].numpy()


def attention(qkv, heads, new_order):
  """Softmax attention over the last axis of ``[B, 3 C, N]``.

  The new order has all queries, keys and values apart and then heads; the old one heads and then these.
  """
  apart = (3, heads) if new_order else (heads, 3)
  three = qkv.unflatten(1, (*apart, -1)).movedim(1 if new_order else 2, 0)
  q, k, v = (part.transpose(2, 3) for part in three)  # [B, heads, N, C / heads]
  weights = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(q.shape[3]), dim=3)
  return (weights @ v).transpose(2, 3).flatten(1, 2)
