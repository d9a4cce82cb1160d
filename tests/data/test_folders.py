import numpy as np
import pytest

from ddim_jax import data
from tests.data import corpus


def write(folder, *names, content=None):
  for name in names:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(corpus.encode(corpus.RGB, "PNG") if content is None else content)
  return folder


def counts(source):
  return dict(zip(source.classes, np.bincount(source.labels, minlength=len(source.classes)), strict=True))


def reasons(source):
  return {name.rsplit("/", 1)[-1]: reason for name, reason in source.found.skipped}


def test_links_to_class_folders_are_followed(tmp_path):
  elsewhere = write(tmp_path / "elsewhere", "c.png", "deep/d.png")
  root = write(tmp_path / "pictures", "cat/a.png", "cat/b.png")
  (root / "dog").symlink_to(elsewhere)
  (root / "cat" / "linked.png").symlink_to(elsewhere / "c.png")
  assert counts(data.load_folder(root, 8)) == {"cat": 3, "dog": 2}


def test_links_in_circles_end(tmp_path):
  root = write(tmp_path / "pictures", "a/x.png", "b/y.png")
  (root / "a" / "up").symlink_to(root)
  (root / "a" / "b").symlink_to(root / "b")
  (root / "b" / "a").symlink_to(root / "a")
  (root / "b" / "self").symlink_to(".")
  source = data.load_folder(root, 8)
  assert counts(source) == {"a": 2, "b": 2}  # each sees the other once
  assert sum("visited already" in reason for _, reason in source.found.skipped) >= 4


def test_links_that_lead_nowhere_or_to_themselves_hide_nothing_else(tmp_path):
  root = write(tmp_path / "pictures", "a/x.png", "b/y.png")
  (root / "self").symlink_to("self")
  (root / "there").symlink_to(root / "back")
  (root / "back").symlink_to(root / "there")
  (root / "gone").symlink_to(tmp_path / "not mounted")
  source = data.load_folder(root, 8)
  assert counts(source) == {"a": 1, "b": 1}
  assert reasons(source) == dict.fromkeys(("self", "there", "back", "gone"), "a dead link")
  (root / "a" / "z.png").symlink_to("z.png")
  with pytest.raises(ValueError, match=r"pictures/a/z\.png cannot be used: .*symbolic links"):
    data.load_folder(root, 8)
  assert data.load_folder(root, 8, skip_broken=True).size == 2


def test_names_that_look_like_homes_or_addresses_are_names(tmp_path, monkeypatch):
  write(tmp_path, "~no-such-user/a.png", "gs:/b.png", "~/c.png")
  monkeypatch.chdir(tmp_path)
  assert counts(data.load_folder(".", 8)) == {"gs:": 1, "~": 1, "~no-such-user": 1}


@pytest.mark.parametrize("load", [data.load_folder, data.load_array, data.load_hf])
@pytest.mark.parametrize("name", ["~no-such-user-at-all/x", "", "s3://b/x"])
def test_what_is_no_path_is_named(load, name):
  if load is data.load_hf:
    pytest.importorskip("datasets", reason="needs the hf extra")
  with pytest.raises(ValueError, match=r"(path|name) must"):
    load(name)


def test_hidden_names_are_neither_classes_nor_pictures(tmp_path):
  root = write(tmp_path, "cat/a.png", "cat/._a.png", "dog/c.png", "dog/.hidden/b.png")
  write(root, ".ipynb_checkpoints/a-checkpoint.png", "__MACOSX/cat/a.png", "dog/@eaDir/c.png")
  write(root, "cat/Thumbs.db", "notes.txt", content=b"x")
  source = data.load_folder(root, 8)
  assert counts(source) == {"cat": 1, "dog": 1}
  hidden = (".ipynb_checkpoints", "._a.png", ".hidden", "__MACOSX", "@eaDir")
  assert reasons(source) == dict.fromkeys(hidden, "hidden") | dict.fromkeys(
    ("Thumbs.db", "notes.txt"), "no picture by its name"
  )


def test_a_folder_whose_own_name_is_hidden_is_read(tmp_path):
  assert data.load_folder(write(tmp_path / ".pictures", "a.png"), 8).size == 1


@pytest.mark.parametrize("kind", ["memory", "cache"])
def test_broken_pictures_are_skipped_with_their_names_or_end_it(tmp_path, kind):
  root = write(tmp_path / "pictures", "a/0.png", "a/2.png", "b/4.png", "b/6.png")
  write(root, "a/1.png", "b/7.png", content=b"broken")
  (root / "b" / "5.png").symlink_to("nowhere")
  options = {"cache": tmp_path / "cache"} if kind == "cache" else {}
  with pytest.raises(ValueError, match=r"1\.png cannot be used"):
    data.load_folder(root, 8, **options)
  told = []
  source = data.load_folder(root, 8, skip_broken=True, progress=lambda *x: told.append(x), **options)
  assert told == [(i + 1, 7) for i in range(7)]
  assert counts(source) == {"a": 2, "b": 2}
  assert source.labels.tolist() == source.read(np.arange(4))[1].tolist() == [0, 0, 1, 1]
  assert set(reasons(source)) == {"1.png", "5.png", "7.png"}
  assert (source.found.modes, source.found.sizes) == ({"RGB": 4}, {(12, 20): 4})
  with pytest.raises(ValueError, match="no picture that can be used"):
    data.load_folder(write(tmp_path / "all", "x.png", content=b""), 8, skip_broken=True, **options)


def test_every_picture_of_the_corpus_beside_every_broken_one(tmp_path):
  for name, (content, _, _) in corpus.good().items():
    write(tmp_path, name, content=content)
  bad = {f"bad {name}": content for name, content in corpus.bad().items()}
  for name, content in bad.items():
    write(tmp_path, name, content=content)
  source = data.load_folder(tmp_path, (12, 20), skip_broken=True)
  assert source.size == len(corpus.good())
  assert len(source.found.skipped) == len(bad)
  assert all(f"{name} {reason}".isprintable() for name, reason in source.found.skipped)
  assert source.found.frames == 4
  assert source.found.values == (0, 65535) or source.found.values[1] > 60_000


def test_pictures_of_other_sizes_are_named_where_no_size_is_asked_for(tmp_path):
  root = write(tmp_path, "a.png", "b.png")
  assert data.load_folder(root).shape == (12, 20, 3)
  write(root, "c.png", content=corpus.encode(corpus.RGB[:5], "PNG"))
  with pytest.raises(
    ValueError, match=r"c\.png has 5x20 pixels \(height x width\), another picture 12x20: say image_size"
  ):
    data.load_folder(root)


def test_channels_size_and_type_are_those_asked_for(tmp_path):
  write(tmp_path, "a.png", content=corpus.encode(np.dstack([corpus.RGB, corpus.ALPHA]), "PNG"))
  for channels in (1, 2, 3, 4):
    source = data.load_folder(tmp_path, (6, 10), channels=channels)
    assert source.read(np.array([0]))[0].shape == (1, 6, 10, channels)
    assert source.shape == (6, 10, channels)
  wide = data.load_folder(tmp_path, 6, fit="pad", bits=16, values=(0, 65535))
  pixels = wide.read(np.array([0]))[0]
  assert pixels.dtype == np.uint16
  assert np.all(pixels[0, 0] == 0)
  with pytest.raises(ValueError, match="values must be given for uint16"):
    data.load_folder(tmp_path, 6, bits=16)
  with pytest.raises(ValueError, match="values must be two numbers"):
    data.load_folder(tmp_path, 6, values="minmax")


TABLES = {
  "metadata.csv": "file_name,kind,age,width\na.png,9,1.5,3\nsub/b.png,10,2.5,4\nc.png,9,0.5,5\n",
  "metadata.jsonl": """\
{"file_name": "a.png", "kind": 9, "age": [1.5, 3]}

{"file_name": "sub/b.png", "kind": 10, "age": [2.5, 4]}
{"file_name": "./c.png", "kind": 9, "age": [0.5, 5]}
""",
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_says_classes_and_conditions(tmp_path, name):
  root = write(tmp_path, "a.png", "sub/b.png", "c.png")
  (root / name).write_text(TABLES[name])
  columns = ["age", "width"] if name.endswith("csv") else ["age"]
  source = data.load_folder(root, 8, label_column="kind", condition_columns=columns)
  assert source.classes == ("9", "10")  # in the order of numbers
  assert source.labels.tolist() == [0, 0, 1]  # a, c, sub/b
  np.testing.assert_array_equal(source.conditions, np.array([[1.5, 3], [0.5, 5], [2.5, 4]], np.float32))
  batch = data.batch_at(source, 4, batch_size=6, seed=3)
  at = data.batch_indices(3, 6, 3, 4)
  np.testing.assert_array_equal(batch.condition, source.conditions[at])
  np.testing.assert_array_equal(batch.label, source.labels[at])


def test_names_of_classes_are_sorted(tmp_path):
  root = write(tmp_path, "a.png", "b.png", "c.png")
  table = tmp_path / "elsewhere.csv"
  table.write_text("\ufefffilename,species\na.png,wolf\nb.png,Ärmel\nc.png,wolf\n")
  source = data.load_folder(root, 8, label_column="species", table=table)
  assert (source.classes, source.labels.tolist()) == (("wolf", "Ärmel"), [0, 1, 0])


@pytest.mark.parametrize(
  ("table", "message"),
  [
    (None, "table must be given: .* holds none"),
    ("file_name,kind\na.png,x\n", r"no row for 1 pictures, such as b\.png"),
    (
      "file_name,kind\na.png,x\nb.png,\n",
      r"b\.png has no value in column 'kind' \(columns: file_name, kind\)",
    ),
    ("file_name,sort\na.png,x\nb.png,y\n", "no value in column 'kind'"),
    ("file_name,kind\na.png,x\na.png,y\n", r"row 2: a\.png has a row already"),
    ("kind,age\nx,1\n", "row 1: no column of file names"),
    ('file_name,kind\n"a.png,x\n', "cannot be read"),
  ],
)
def test_tables_that_leave_a_question_are_refused(tmp_path, table, message):
  root = write(tmp_path, "a.png", "b.png")
  if table is not None:
    (root / "labels.csv").write_text(table)
  with pytest.raises(ValueError, match=message):
    data.load_folder(root, 8, label_column="kind")


def test_conditions_are_finite_numbers(tmp_path):
  root = write(tmp_path, "a.png")
  for age in ("old", "nan", "inf"):
    (root / "x.csv").write_text(f"file,age\na.png,{age}\n")
    with pytest.raises(ValueError, match=r"a\.png must have 1 finite numbers in age"):
      data.load_folder(root, 8, condition_columns=["age"])


def test_a_home_that_does_not_exist_and_empty_variables(monkeypatch, tmp_path):
  monkeypatch.setenv("TFDS_DATA_DIR", "")
  monkeypatch.setenv("HOME", str(tmp_path))
  assert data.default_data_dir() == tmp_path / "tensorflow_datasets"
  monkeypatch.setenv("TFDS_DATA_DIR", "~/x")
  assert data.default_data_dir() == tmp_path / "x"
  monkeypatch.delenv("TFDS_DATA_DIR")
  monkeypatch.delenv("HOME")
  monkeypatch.setattr("pwd.getpwuid", lambda uid: (_ for _ in ()).throw(KeyError(uid)))  # as in a container
  assert data.default_data_dir().is_absolute()
  root = write(tmp_path / "pictures", "a.png")
  monkeypatch.setenv("HOME", str(tmp_path))
  assert data.load_folder("~/pictures", 8).size == data.load_folder(str(root), 8).size == 1
