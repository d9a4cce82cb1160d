"""Pictures of every kind with their pixels known by construction, and files that are no good."""

import functools
import io
import struct
import zlib

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 12, 20
_random = np.random.default_rng(0)
RGB = _random.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
GREY = RGB[..., 0]
ALPHA = RGB[..., 2]
WIDE = _random.integers(0, 65536, (HEIGHT, WIDTH)).astype(np.uint16)
SMOOTH = np.add.outer(np.arange(0, 120, 10), np.arange(0, 100, 5)).astype(np.uint8)
"""Survives JPEG."""


def encode(image, kind, **options):
  file = io.BytesIO()
  image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
  image.save(file, kind, **options)
  return file.getvalue()


def _chunk(kind, content):
  return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def png(width, height, depth, colour, rows, interlaced=False, before=b""):
  """A PNG from its rows of bytes."""
  header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, colour, 0, 0, interlaced])
  body = _chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
  return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + before + body + _chunk(b"IEND", b"")


def interlaced(pixels):
  """A PNG with Adam7's seven passes."""
  rows = []
  for y, x, dy, dx in ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
                       (1, 0, 2, 1)):  # fmt: skip
    rows += [row.tobytes() for row in pixels[y::dy, x::dx]]
  return png(pixels.shape[1], pixels.shape[0], 8, 2, rows, interlaced=True)


def tiff(pixels, bits, kind=1, raw=None):
  """A grey TIFF of numbers with so many bits; kind 1 unsigned, 2 signed, 3 floating."""
  raw = pixels.tobytes() if raw is None else raw
  height, width = pixels.shape
  entries = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 134, 277: 1, 278: height, 279: len(raw)}
  entries[339] = kind
  table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
  return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4) + raw


def twelve_bits(pixels):
  """Two numbers in three bytes."""
  a, b = pixels.reshape(-1, 2).astype(int).T
  return np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], axis=1).astype(np.uint8).tobytes()


def over_white(colour, alpha):
  weight = alpha[..., None] / 255
  return np.round(colour * weight + 255 * (1 - weight))


def _three(grey):
  return np.repeat(np.asarray(grey)[..., None], 3, axis=2)


def with_exif(content):
  """A JPEG whose EXIF block holds these bytes."""
  raw = encode(SMOOTH, "JPEG")
  block = b"Exif\0\0" + content
  return raw[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + raw[2:]


@functools.cache
def good():
  """``name -> (bytes, RGB, tolerance)``."""
  bits = GREY > 127
  palette = Image.fromarray(GREY % 7).convert("P")
  colours = _random.integers(0, 256, (256, 3), np.uint8)
  palette.putpalette(colours.tobytes())
  shown = colours[GREY % 7]
  cmyk = np.concatenate([RGB, GREY[..., None] // 2], axis=2)
  mixed = np.round((255 - RGB.astype(float)) * (255 - GREY[..., None] // 2) / 255)
  wide_rgb = _random.integers(0, 65536, (HEIGHT, WIDTH, 3)).astype(">u2")
  frames = [Image.fromarray(frame) for frame in (GREY, GREY // 2, GREY // 3)]
  more = {"save_all": True, "append_images": frames[1:]}
  return {
    "bits.png": (encode(Image.fromarray(bits), "PNG"), _three(bits * 255), 0),
    "bits.pbm": (encode(Image.fromarray(bits), "PPM"), _three(bits * 255), 0),
    "grey.png": (encode(GREY, "PNG"), _three(GREY), 0),
    "rgb.png": (encode(RGB, "PNG"), RGB, 0),
    "interlaced.png": (interlaced(RGB), RGB, 0),
    "rgb.bmp": (encode(RGB, "BMP"), RGB, 0),
    "rgb.webp": (encode(RGB, "WEBP", lossless=True), RGB, 0),
    "deflate.tif": (encode(RGB, "TIFF", compression="tiff_adobe_deflate"), RGB, 0),
    "lzw.TIFF": (encode(RGB, "TIFF", compression="tiff_lzw"), RGB, 0),
    "png called.jpg": (encode(RGB, "PNG"), RGB, 0),
    "palette.png": (encode(palette, "PNG"), shown, 0),
    "palette.gif": (encode(palette, "GIF"), shown, 0),
    "transparent.png": (
      encode(palette, "PNG", transparency=2),
      np.where((GREY % 7 == 2)[..., None], 255, shown),
      0,
    ),
    "la.png": (encode(np.stack([GREY, ALPHA], axis=2), "PNG"), over_white(_three(GREY), ALPHA), 1),
    "rgba.png": (encode(np.dstack([RGB, ALPHA]), "PNG"), over_white(RGB, ALPHA), 1),
    "rgba.webp": (
      encode(np.dstack([RGB, ALPHA]), "WEBP", lossless=True, exact=True),
      over_white(RGB, ALPHA),
      1,
    ),
    "cmyk.tif": (encode(Image.fromarray(cmyk, "CMYK"), "TIFF"), mixed, 1),
    "wide.png": (encode(WIDE, "PNG"), _three(WIDE / 257), 0.5),
    "wide.tif": (encode(WIDE, "TIFF"), _three(WIDE / 257), 0.5),
    "wide.pgm": (b"P5 20 12 65535\n" + WIDE.astype(">u2").tobytes(), _three(WIDE / 257), 0.5),
    "twelve.pgm": (
      b"P5 20 12 4095\n" + (WIDE // 16).astype(">u2").tobytes(),
      _three((WIDE // 16) * (255 / 4095)),
      0.51,
    ),
    "twelve.tif": (
      tiff(WIDE, 12, raw=twelve_bits(WIDE // 16)),
      _three((WIDE // 16) * (255 / 4095)),
      0.51,
    ),
    "big.tif": (
      encode(Image.frombytes("I;16B", (WIDTH, HEIGHT), WIDE.astype(">u2").tobytes()), "TIFF"),
      _three(WIDE / 257),
      0.5,
    ),
    "wide_rgb.png": (png(WIDTH, HEIGHT, 16, 2, [row.tobytes() for row in wide_rgb]), wide_rgb / 257, 1),
    "smooth.jpg": (encode(SMOOTH, "JPEG", quality=95), _three(SMOOTH), 3),
    "progressive.JPEG": (encode(SMOOTH, "JPEG", quality=95, progressive=True), _three(SMOOTH), 3),
    "animated.gif": (encode(frames[0], "GIF", **more), _three(GREY), 0),
    "animated.png": (encode(frames[0], "PNG", **more), _three(GREY), 0),
    "animated.webp": (encode(frames[0], "WEBP", lossless=True, **more), _three(GREY), 0),
    "pages.tif": (encode(frames[0], "TIFF", **more), _three(GREY), 0),
    "a line\nbreak.png": (encode(RGB, "PNG"), RGB, 0),
    "-ÄÖ 日本 %s {x}.png": (encode(RGB, "PNG"), RGB, 0),
    "not utf8 \udcff\udcfe.png": (encode(RGB, "PNG"), RGB, 0),
  }


def bad():
  """``name -> bytes`` of what must be refused."""
  huge = png(30_000, 30_000, 8, 2, [bytes(10)])
  sound = encode(RGB, "PNG")
  broken = bytearray(sound)
  broken[40] ^= 0x40  # in the picture's own chunk
  return {
    "nothing.png": b"",
    "nothing.jpg": b"",
    "text.png": b"no picture at all\n" * 9,
    "program.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "bomb.png": huge,
    "chunk.png": bytes(broken),
    "checksum.png": sound[:29] + b"\0\0\0\0" + sound[33:],
    "exif.png": png(5, 1, 8, 0, [bytes(5)], before=_chunk(b"eXIf", b"garbage")),
    "exif.jpg": with_exif(b"garbage, and nothing that TIFF would know"),
    "float.tif": encode(WIDE / np.float32(65535), "TIFF"),
    "nan.tif": encode(np.where(WIDE > 99, np.float32(np.nan), np.float32(1)), "TIFF"),
    "signed.tif": tiff(GREY.view(np.int8), 8, kind=2),
    "unsigned.tif": tiff(WIDE.astype(np.uint32) * 65_000, 32),
    "long.tif": encode(WIDE.astype(np.int32) * 20_000, "TIFF"),
    "a line\nbreak.jpg": b"\xff\xd8\xff\xe0",
    "not utf8 \udcff.gif": b"GIF89a",
  }
