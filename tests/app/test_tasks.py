"""What the page of ``ddim play`` computes, without a page: images, trajectories, edits, settings, uploads."""

import base64
import dataclasses
import io
import json
import threading
import zlib

import jax
import numpy as np
import pytest
from PIL import Image

from ddim_jax import data, plots
from ddim_jax.app import tasks, uploads, views
from ddim_jax.app.handlers import Trajectory, followed
from ddim_jax.app.settings import EACH, Settings, checked, from_query, to_query
from ddim_jax.app.turns import Turns
from ddim_jax.models import from_network, tables
from tests.app.conftest import NAMES

PICTURE = np.random.default_rng(0).integers(60, 200, (6, 8, 1), np.uint8)


def last(moments):
  *_, shown = moments
  assert shown.done == shown.total
  return shown


@pytest.mark.parametrize(
  "settings",
  [
    Settings(eta=0.7, guidance=3.0, seed=5, steps=7),
    Settings(label="kite", solver="dpmpp-2m", spacing="log-snr", steps=6),
  ],
)
def test_pictures_are_those_of_the_model(counted, settings):
  model = counted.model
  shown = last(tasks.draw(model, settings, num=5))
  own = model.sample(
    5, steps=settings.steps, eta=settings.eta, solver=settings.solver, seed=settings.seed,
    guidance=settings.guidance, label=None if settings.label == EACH else settings.label,
    spacing=settings.spacing if settings.spacing in ("log-snr",) else None,
  )  # fmt: skip
  drawn = shown.rows[0].images.astype(int)
  assert np.abs(drawn - data.to_uint8(own)).max() <= 1  # rounding to a byte
  assert shown.rows[0].captions == (
    ("cup", "hat", "kite", "cup", "hat") if settings.label == EACH else ("kite",) * 5
  )


@pytest.mark.slow
def test_a_model_of_standardised_data_shows_three_deviations_each_way(counted):
  model = counted.model.replace(
    scaling=data.Scaling("float32", 5.0, 2.0, bounded=False), restrict=lambda denoise, _: denoise
  )
  assert model.scaling != counted.model.scaling
  settings = Settings(steps=8, label="cup")
  row = last(tasks.draw(model, settings, num=3)).rows[0]
  own = model.sample(3, steps=8, label="cup")
  expected = np.clip((own / 3 + 1) / 2 * 255, 0, 255)
  assert np.abs(row.images - expected).max() <= 1
  assert np.abs(row.images - data.to_uint8(own).astype(int)).max() > 20
  rows = last(tasks.edit(model, settings, PICTURE, "cup", strength=0.5, refine=60)).rows
  assert np.abs(rows[2].images[0].astype(int) - PICTURE).max() <= 2  # led back
  kept = uploads.mask("1" * 8 + "0" * 40, (6, 8, 1))
  painted = last(tasks.paint(model, settings, PICTURE, kept, repeats=1)).rows[-1].images
  assert np.abs(painted[:, 1:].astype(int) - PICTURE[1:]).max() <= 1


def test_pictures_of_a_model_with_a_decoder_are_decoded_and_none_is_edited(counted):
  model = counted.model.replace(decode=lambda values: np.repeat(values, 3, axis=-1))
  assert last(tasks.draw(model, Settings(steps=2), num=2)).rows[0].images.shape == (2, 6, 8, 3)
  for task in (
    tasks.edit(model, Settings(), PICTURE, "cup", 0.5, 1),
    tasks.paint(model, Settings(), PICTURE, uploads.mask("1" * 48, (6, 8, 1)), 1),
  ):
    with pytest.raises(ValueError, match="cannot be edited by this model"):
      last(task)


def test_other_values_compile_nothing(counted):
  first = Settings(guidance=2.0, steps=4)
  last(tasks.draw(counted.model, first))
  before = len(counted.traces)
  changes = [{"steps": 9}, {"eta": 1.0}, {"guidance": 5.5}, {"seed": 8}, {"label": "hat"}]
  changes += [{"spacing": "quadratic"}, {"steps": 1}]
  for change in changes:
    last(tasks.draw(counted.model, dataclasses.replace(first, **change)))
  assert len(counted.traces) == before


def test_each_step_is_shown_and_lies_nearer_to_what_was_expected(counted):
  moments = list(tasks.draw(counted.model, Settings(steps=12)))
  assert [shown.done for shown in moments] == list(range(1, 13))
  apart = [np.abs(m.rows[0].images.astype(int) - m.rows[1].images).mean() for m in moments]
  assert apart[-1] == 0  # the last step lands on the prediction
  assert apart[0] > apart[-2]


def test_the_ends_of_an_interpolation_are_the_images_of_the_seeds(counted):
  settings = Settings(seed=3, label="hat")
  shown = last(tasks.between(counted.model, settings, other=4, weight=1.0))
  large, strip = (row.images.astype(int) for row in shown.rows)
  for seed, image in ((3, strip[0]), (4, strip[-1]), (4, large[0])):
    own = last(tasks.draw(counted.model, dataclasses.replace(settings, seed=seed))).rows[0].images[0]
    assert np.abs(image - own).max() <= 1


def test_a_picture_is_led_back_and_drawn_again(counted):
  settings = Settings(steps=8, label="kite", guidance=2.0)
  rows = {row.title.split(" ")[0]: row for row in last(
    tasks.edit(counted.model, settings, PICTURE, "cup", strength=0.75, refine=60)).rows}  # fmt: skip
  np.testing.assert_array_equal(rows["Your"].images[0], PICTURE)
  assert rows["Its"].title == "Its noise at level 626"  # 6 of 8 steps: uniform(1000, 8)[2]
  assert np.abs(rows["Led"].images[0].astype(int) - PICTURE).max() <= 2
  assert np.abs(rows["Drawn"].images[0].astype(int) - PICTURE).max() > 2


def test_what_is_kept_of_a_picture_stays(counted):
  text = "".join("1" if column < 4 else "0" for _ in range(6) for column in range(8))
  kept = uploads.mask(text, (6, 8, 1))
  np.testing.assert_array_equal(kept[:, :4], False)
  np.testing.assert_array_equal(kept[:, 4:], True)
  painted = last(tasks.paint(counted.model, Settings(eta=1.0), PICTURE, kept, repeats=2)).rows[-1].images
  assert np.abs(painted[:, :, 4:].astype(int) - PICTURE[:, 4:]).max() <= 1
  assert len(np.unique(painted[:, :, :4], axis=0)) == tasks.NUM
  with pytest.raises(ValueError, match="mask must have a painted part"):
    last(tasks.paint(counted.model, Settings(), PICTURE, uploads.mask("", (6, 8, 1)), 2))


@pytest.mark.parametrize("name", ["ddim", "heun", "dpmpp-2s", "plms", "pndm", "unipc2"])
def test_solvers_get_the_same_number_of_evaluations(counted, name):
  """Counted while they run; one that asks twice a step may leave one over."""
  asked, evaluations = [], 14
  model = counted.model

  def network(params, x, t, labels):
    jax.debug.callback(lambda: asked.append(1))
    return x * params["gain"]

  listening = model.replace(network=network, null_label=None)
  steps = tables.steps_for(name, evaluations)
  listening.sample(1, steps=steps, solver=name)
  jax.effects_barrier()
  assert len(asked) in (evaluations, evaluations - 1)
  assert len(asked) == evaluations or name in ("heun", "dpmpp-2s")


def test_solvers_side_by_side(counted):
  shown = last(tasks.solvers(counted.model, Settings(), ["ddim", "heun"], 9))
  assert [row.title for row in shown.rows] == ["ddim, 9 steps, 9 evaluations", "heun, 5 steps, 9 evaluations"]
  with pytest.raises(ValueError, match="evaluations must be at least 13 with the solver pndm, got 5"):
    last(tasks.solvers(counted.model, Settings(), ["pndm"], 5))
  with pytest.raises(ValueError, match="solvers must name at least one"):
    last(tasks.solvers(counted.model, Settings(), [], 5))


def test_an_address_holds_the_settings(counted):
  settings = Settings(7, 20, 0.5, 3.0, "hat", "ddim", "quadratic")
  query = to_query(settings, counted.model)
  assert query == "seed=7&steps=20&eta=0.5&guidance=3.0&label=hat&spacing=quadratic"
  pairs = dict(pair.split("=") for pair in query.split("&"))
  assert from_query(pairs | {"__theme": "dark"}, counted.model) == settings
  assert to_query(Settings(), counted.model) == ""
  assert from_query({"solver": "unipc2", "eta": "1"}, counted.model).eta == 0  # eta is DDIM's
  student = counted.model.replace(config=dataclasses.replace(counted.model.config, distilled=4))
  assert from_query({}, student).steps == 4
  assert to_query(Settings(steps=4), student) == ""


@pytest.mark.parametrize(
  ("query", "said"),
  [
    ({"steps": "many"}, "steps must be an integer, got 'many'"),
    ({"steps": "0"}, r"steps must be an integer in \[1, 250\], got 0"),
    ({"eta": "nan"}, r"eta must be in \[0, 1\], got nan"),
    ({"seed": "-1"}, "seed must be an integer in"),
    ({"label": "dog"}, "label must be in .* or one of cup, hat, kite, got 'dog'"),
    ({"solver": "magic"}, "solver must be one of ddim, "),
    ({"spacing": "magic"}, "spacing must be one of uniform, "),
  ],
)
def test_an_address_that_is_none_is_refused(counted, query, said):
  with pytest.raises(ValueError, match=said):
    from_query(query, counted.model)


def test_what_a_model_cannot_do_is_refused(counted):
  plain = counted.model.replace(classes=(), null_label=None)
  for changed, said in (({"guidance": 2.0}, "guidance needs"), ({"label": "hat"}, "label must be 'each")):
    with pytest.raises(ValueError, match=said):
      checked(Settings(**changed), plain)


def sent(picture, kind="PNG", **options):
  file = io.BytesIO()
  picture.save(file, kind, **options)
  return "data:image/x;base64," + base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_picture_of_any_kind_and_size_becomes_the_models(kind):
  left = np.zeros((90, 200, 3), np.uint8)
  left[:, :100] = 255
  found = uploads.picture(sent(Image.fromarray(left), kind), (6, 8, 1))
  assert (found.shape, found.dtype) == ((6, 8, 1), np.uint8)
  assert found[:, :3].min() > 200
  assert found[:, 5:].max() < 50


def _bomb():
  """A PNG that says it has ten thousand megapixels."""
  content = bytearray(base64.b64decode(sent(Image.new("L", (1, 1))).partition(",")[2]))
  content[16:24] = (100_000).to_bytes(4, "big") * 2
  content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
  return "data:image/png;base64," + base64.b64encode(bytes(content)).decode()


@pytest.mark.parametrize(
  ("address", "said"),
  [
    ("too large: 9000000", "the picture must have at most 8 MB, got 9.0 MB"),
    ("data:;base64," + "A" * 11_000_000, "the picture must have at most 8 MB, got 8.2 MB"),
    ("data:text/plain;base64,aGVsbG8=", "the picture cannot be used: it is no picture of a kind"),
    ("data:image/png;base64,%%%%", "the picture was damaged on its way"),
    ("hello", "the picture must be a file"),
    (sent(Image.new("L", (7000, 6000))), "at most 40 megapixels, got 7000 x 6000 pixels"),
    (_bomb(), "at most 40 megapixels, got many more"),
    (sent(Image.fromarray(PICTURE[..., 0]))[:-60] + "A" * 20, "the picture cannot be used"),
  ],
)
def test_a_bad_picture_is_one_sentence(address, said):
  with pytest.raises(ValueError, match=said) as refused:
    uploads.picture(address, (6, 8, 1))
  assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["01", "2" * 48, "0" * 49])
def test_a_mask_of_another_size_is_refused(text):
  with pytest.raises(ValueError, match="mask must be 48 characters 0 or 1"):
    uploads.mask(text, (6, 8, 1))


def test_of_one_visitor_only_the_newest_request_counts(counted):
  turns = Turns(at_a_time=3)
  draw = lambda steps: tasks.draw(counted.model, Settings(steps=steps))
  ask = lambda visitor, steps: followed(turns, visitor, lambda: draw(steps))
  older, other = ask("a", 5), ask("b", 4)
  assert next(older).done == next(other).done == 1
  newer = ask("a", 3)
  assert next(newer).done == 1
  assert list(older) == []
  assert list(newer)[-1].done == 3
  assert list(other)[-1].done == 4  # another visitor's goes on


def test_stopping_ends_and_frees():
  turns = Turns(at_a_time=1)

  def endless():
    while True:
      yield tasks.Shown(1, 1, ())

  running = followed(turns, "a", endless)
  next(running)
  turns.stop("a")
  assert list(running) == []
  again = followed(turns, "a", endless)
  assert next(again).done == 1  # the slot is free


def test_one_who_waits_gets_the_slot_when_it_is_free():
  turns, found = Turns(at_a_time=1), []
  first = followed(turns, "a", lambda: iter([tasks.Shown(1, 2, ()), tasks.Shown(2, 2, ())]))
  next(first)
  waiting = threading.Thread(
    target=lambda: found.extend(followed(turns, "b", lambda: iter([tasks.Shown(1, 1, ())])))
  )
  waiting.start()
  waiting.join(0.2)
  assert found == []
  list(first)
  waiting.join(10)
  assert [shown.done for shown in found] == [1]


def test_errors_are_sentences():
  def fails():
    raise ValueError("steps must be few")
    yield

  assert list(followed(Turns(), "a", fails)) == ["Steps must be few."]


def test_a_trajectory_keeps_its_ends_and_a_bounded_number():
  way, images = Trajectory(), np.zeros((4, 1000, 1000, 1), np.uint8)
  for done in range(1, 101):
    way.add(tasks.Shown(done, 100, (tasks.Row("", images),)))
  kept = [shown.done for shown in way.moments]
  assert len(kept) <= 17
  assert (kept[0], kept[-1]) == (1, 100)
  assert kept == sorted(set(kept))
  assert way.at(0.0).done == 1
  assert way.at(1.0).done == 100
  assert Trajectory().at(0.5) is None


def test_a_picture_to_download_says_how_it_was_made(counted):
  shown = last(tasks.draw(counted.model, Settings(steps=2)))
  link = views.download(shown, {"seed": 3, "levels": [500, 250, 0]})
  content = base64.b64decode(link.partition("base64,")[2].partition('"')[0])
  with Image.open(io.BytesIO(content)) as picture:
    assert json.loads(picture.text[plots.SETTINGS]) == {"seed": 3, "levels": [500, 250, 0], "S": 2}
  assert all(f"<figcaption>{name}</figcaption>" in views.rows(shown) for name in NAMES)


def test_names_cannot_become_markup():
  row = tasks.Row("<script>", PICTURE[None], ("<b>",))
  assert "<script>" not in views.rows(tasks.Shown(1, 1, (row,)))
  assert "<b>" not in views.rows(tasks.Shown(1, 1, (row,)))
  assert "<b>" not in views.sentence("got <b>")


def test_values_that_are_no_pictures_have_no_page(monkeypatch):
  """The model is given directly: one of vectors, as a command would load it from a run of a table."""
  from ddim_jax.commands import options, play

  model = from_network(lambda params, x, t: params * x, (5,), params=np.float32(1))
  monkeypatch.setattr(options, "model", lambda where, **options: model)
  with pytest.raises(ValueError, match=r"model must be of pictures \[H, W, C\], got one of values \[5\]"):
    play.play("runs/table")
