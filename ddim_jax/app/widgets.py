"""Parts of the page that Gradio has only with files on the disk: choosing a picture, a canvas."""

import gradio as gr

from ddim_jax.app.uploads import MOST_BYTES

_CHOOSE = """
<label class="ddim-choose" tabindex="0">
  <input type="file" accept="image/*,.tif,.tiff,.jp2,.ppm,.pgm">
  <span>Choose a picture, or drop one here</span>
</label>
"""
_ON_CHOOSE = """
const send = (file) => {
  if (!file) return;
  if (file.size > props.most) {
    props.value = 'too large: ' + file.size;
    trigger('chosen');
    return;
  }
  const reader = new FileReader();
  reader.onload = () => { props.value = reader.result; trigger('chosen'); };
  reader.readAsDataURL(new Blob([file], {type: file.type || 'application/octet-stream'}));
};
element.addEventListener('change', (event) => { send(event.target.files[0]); event.target.value = ''; });
element.addEventListener('dragover', (event) => event.preventDefault());
element.addEventListener('drop', (event) => { event.preventDefault(); send(event.dataTransfer.files[0]); });
"""
_CANVAS = """
<canvas class="ddim-mask" width="${width}" height="${height}" role="img" tabindex="0"
  aria-label="The picture; draw over what is to be painted anew"></canvas>
"""
_ON_CANVAS = """
const [width, height] = [props.width, props.height];
let mask = new Uint8Array(width * height), picture = null, drawing = false, last = null;
const canvas = () => element.querySelector('canvas');
const show = () => {
  const context = canvas().getContext('2d');
  context.clearRect(0, 0, width, height);
  if (picture) context.drawImage(picture, 0, 0, width, height);
  context.fillStyle = 'rgba(230, 80, 30, 0.6)';
  mask.forEach((on, i) => { if (on) context.fillRect(i % width, Math.floor(i / width), 1, 1); });
};
const load = () => {
  mask.fill(0);
  if (!props.picture) { picture = null; show(); return; }
  const image = new Image();
  image.onload = () => { picture = image; show(); };
  image.src = props.picture;
};
const at = (event) => {
  const box = canvas().getBoundingClientRect();
  return [(event.clientX - box.left) / box.width * width, (event.clientY - box.top) / box.height * height];
};
const dot = ([x, y]) => {
  const radius = Math.max(width, height) / 14;
  for (let row = Math.max(0, Math.ceil(y - radius)); row < Math.min(height, y + radius); row++)
    for (let column = Math.max(0, Math.ceil(x - radius)); column < Math.min(width, x + radius); column++)
      if ((column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2 <= radius ** 2) mask[row * width + column] = 1;
};
const line = (from, to) => {
  const steps = Math.max(1, Math.ceil(Math.hypot(to[0] - from[0], to[1] - from[1])));
  for (let i = 0; i <= steps; i++)
    dot([from[0] + (to[0] - from[0]) * i / steps, from[1] + (to[1] - from[1]) * i / steps]);
  show();
};
element.addEventListener('pointerdown', (event) => {
  if (event.target !== canvas() || !picture) return;
  event.preventDefault();
  drawing = true;
  last = at(event);
  line(last, last);
});
window.addEventListener('pointermove', (event) => {
  if (!drawing) return;
  const here = at(event);
  line(last, here);
  last = here;
});
window.addEventListener('pointerup', () => {
  if (!drawing) return;
  drawing = false;
  props.value = Array.from(mask).join('');
});
watch('picture', load);
watch('value', () => { if (!props.value) mask.fill(0); show(); });
load();
"""


def chooser() -> gr.HTML:
  """A field for a file; its event ``chosen`` has the file as `ddim_jax.app.uploads.picture` takes it."""
  return gr.HTML("", html_template=_CHOOSE, js_on_load=_ON_CHOOSE, most=MOST_BYTES, elem_id="choose")


def canvas(shape: tuple[int, ...]) -> gr.HTML:
  """A picture to draw a mask over; its value is as `ddim_jax.app.uploads.mask` takes it.

  The property ``picture`` is the address of the picture.
  """
  height, width, _ = shape
  return gr.HTML(
    "", html_template=_CANVAS, js_on_load=_ON_CANVAS, picture="", width=width, height=height, elem_id="canvas"
  )


def link() -> gr.HTML:
  """A link to the settings; its value is what follows the ``?``, and the address of the page follows it."""
  template = '<a class="ddim-link" href="?${value}">Link to these settings</a>'
  follow = "watch('value', () => history.replaceState(null, '', '?' + props.value));"
  return gr.HTML("", html_template=template, js_on_load=follow, elem_id="link")
