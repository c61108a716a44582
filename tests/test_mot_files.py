"""MOT text files and sequence folders: what is read, what is refused and how that is said."""

import errno
import pathlib

import numpy as np
import pytest
import real_data

from vistraj_jax.core import checks
from vistraj_jax.tracking import decimal_text, mot_files

ROW = "1,7,10.5,20,30,40.25,0.9,2,0.5"


def _read(tmp_path, text, kind="truth", length=10):
  path = tmp_path / "rows.txt"
  path.write_bytes(text.encode())
  return mot_files.read_table(path, kind, length)


def _refused(tmp_path, text, kind="truth", length=10):
  with pytest.raises(checks.InputError) as error:
    _read(tmp_path, text, kind, length)
  sentence = str(error.value)
  assert str(tmp_path / "rows.txt") in sentence
  return sentence


@pytest.mark.parametrize(
  "text",
  [
    ROW,
    f"{ROW}\n",
    f"\n{ROW}\r\n\r\n",
    ROW.replace(",", " "),
    ROW.replace(",", ", "),
    ROW.replace(",", "\t"),
    f"{ROW},\n",
    "1.00,7.0,10.5,2e1,30,40.25,+0.9,2.0,.5\n",
  ],
)
def test_reads_the_same_row_from_every_way_to_write_it(tmp_path, text):
  table = _read(tmp_path, text)
  assert len(table) == 1
  assert table.frame.tolist() == [1] and table.track_id.tolist() == [7]
  assert table.box_xywh.tolist() == [[10.5, 20, 30, 40.25]]
  assert table.score.tolist() == [0.9] and table.class_id.tolist() == [2]
  assert table.visibility.tolist() == [0.5]
  assert table.frame.dtype == table.class_id.dtype == np.int64
  assert table.box_xywh.dtype == table.score.dtype == np.float64


def test_reads_short_rows_and_detections(tmp_path):
  table = _read(tmp_path, "3,-1,-5,2,3,4,99.5\n3,-1,1,2,0,4,-7\n", "detection")
  assert table.class_id.tolist() == [-1, -1] and table.visibility.tolist() == [1, 1]
  assert table.track_id.tolist() == [-1, -1] and table.score.tolist() == [99.5, -7]


def test_reads_world_coordinates_of_mot15_as_no_class(tmp_path):
  table = _read(tmp_path, "1,1,50,191,61,141,1,-5.0036,11.913,0.69979\n")
  assert table.class_id.tolist() == [-1] and table.visibility.tolist() == [1.0]


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_empty_file_has_no_rows(tmp_path, text):
  table = _read(tmp_path, text)
  assert len(table) == 0 and table.box_xywh.shape == (0, 4)


@pytest.mark.parametrize(
  ("row", "kind", "parts"),
  [
    ("2,8,x1,0,3,4,1,1", "truth", ["left", "'x1'", "number"]),
    ("2,8,1,0,3,nan,1,1", "truth", ["height", "nan", "finite"]),
    ("2,8,1,0,inf,4,1,1", "truth", ["width", "inf", "finite"]),
    ("2,8,1e300,0,3,4,1,1", "truth", ["left edge", "1e+300", "within 1e+08 px"]),
    ("2,8,1,0,3,2e8,1,1", "detection", ["height", "200000000", "within 1e+08 px"]),
    ("2,8,1,0,3,4,nan,1", "prediction", ["score", "nan", "finite"]),
    ("2,8,1,0,-3,4,1,1", "truth", ["width", "-3", "0 px or more"]),
    ("2,8,1,0,3,-0.5,1,1", "detection", ["height", "-0.5", "0 px or more"]),
    ("0,8,1,0,3,4,1,1", "truth", ["frame", "is 0", "1 to 10"]),
    ("11,8,1,0,3,4,1,1", "prediction", ["frame", "is 11", "1 to 10"]),
    ("2.5,8,1,0,3,4,1,1", "truth", ["frame", "2.5", "whole"]),
    ("2,-1,1,0,3,4,1,1", "prediction", ["id", "-1", "detection file"]),
    ("2,8,1,0,3,4,1,1.5", "truth", ["class", "1.5", "whole"]),
    ("2,8,1,0,3,4,1", "truth", ["7 columns", "at least 8", "class"]),
    ("2,8,1,0,3,4,1,1,1", "truth", ["9 columns", "8"]),
    ("1,5,1,0,3,4,1,1", "truth", ["id 5", "frame 1", "twice"]),
    ("2,8,1,0,3,4,1,\x00", "truth", ["class", "number"]),
  ],
)
def test_bad_rows_are_named_by_line_value_and_rule(tmp_path, row, kind, parts):
  good = [f"{frame},5,1,2,3,4,1,1" for frame in (1, 2, 3)]
  lines = [good[0], "", good[1], row, good[2]]  # the blank line counts as a line
  sentence = _refused(tmp_path, "\n".join(lines), kind)
  assert "rows.txt:4: " in sentence
  for part in parts:
    assert part in sentence


def test_detections_may_repeat_an_id_and_lengths_may_be_unknown(tmp_path):
  row = "99,-1,1,2,3,4,0.5\n"
  assert len(_read(tmp_path, row + row, "detection", length=None)) == 2
  sentence = _refused(tmp_path, row.replace("99", "0"), "detection", None)
  assert sentence.endswith("frame is 0; write a frame from 1.")


def test_missing_file_and_unknown_kind_are_said(tmp_path):
  with pytest.raises(checks.InputError, match=r"gone.txt: no such truth file"):
    mot_files.read_table(tmp_path / "gone.txt", "truth")
  with pytest.raises(checks.InputError, match="'gt' is not allowed"):
    mot_files.read_table(tmp_path / "gone.txt", "gt")


def test_written_tables_are_sorted_and_read_back(tmp_path):
  table = mot_files.Table.of(
    frame=[2, 1, 1],
    track_id=[3, 4, 1],
    box_xywh=[[1.239, -2, 3, 4], [5, 6, 7, 8], [9, 10, 11.5, 12]],
    score=[0.123456, 1, 0],
    class_id=[6, 0, -1],
    visibility=[0.25, 1, 1],
  )
  path = tmp_path / "data" / "a.txt"
  mot_files.write_table(path, table)
  assert path.read_text().splitlines() == [
    "1,1,9.00,10.00,11.50,12.00,0,-1,1,-1",
    "1,4,5.00,6.00,7.00,8.00,1,0,1,-1",
    "2,3,1.24,-2.00,3.00,4.00,0.123456,6,0.25,-1",
  ]
  back = mot_files.read_table(path, "prediction", 2)
  assert back.class_id.tolist() == [-1, 0, 6] and back.visibility.tolist() == [1, 1, 0.25]
  mot_files.write_table(path, mot_files.Table.of())
  assert path.read_text() == "" and list(path.parent.iterdir()) == [path]


def test_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / "a.txt"
  path.write_text("old\n")

  def fail(file, text, **_):
    with open(file, "w") as out:
      out.write(text[:10])
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(pathlib.Path, "write_text", fail)
  with pytest.raises(OSError, match="No space left"):
    mot_files.write_table(path, mot_files.Table.of([1], [1], [[1, 2, 3, 4]]))
  assert path.read_text() == "old\n" and list(tmp_path.iterdir()) == [path]


def test_decimals_are_the_nearest_doubles():
  generator = np.random.default_rng(0)
  texts = []
  for digits in generator.integers(1, 19, 3000):
    text = "".join(generator.choice(list("0123456789"), digits))
    dot = generator.integers(-1, digits + 1)
    text = text if dot < 0 else f"{text[:dot]}.{text[dot:]}"
    texts.append("-" + text if generator.random() < 0.3 else text)
  lines = [",".join(texts[i : i + 5]) for i in range(0, len(texts), 5)]
  parsed = decimal_text.parse_table("\n".join(lines).encode())
  np.testing.assert_array_equal(parsed.ravel(), [float(text) for text in texts])


def test_blocks_join_to_the_whole_table(monkeypatch):
  data = b"".join(b"%d,%d.5\n" % (i, i) for i in range(100))
  monkeypatch.setattr(decimal_text, "_BLOCK_BYTES", 32)
  numbers = np.arange(100)
  np.testing.assert_array_equal(
    decimal_text.parse_table(data), np.stack([numbers, numbers + 0.5], 1)
  )
  assert decimal_text.parse_table(data + b"1,2,3\n") is None


@pytest.mark.parametrize(
  "text", ["1,", "1,,2", "1-2", "-", "1.2.3", ".", "1 2", "+1", "1e3", "nan", "1;2", "1,2\n3"]
)
def test_anything_but_plain_decimals_is_left_to_the_line_reader(text):
  assert decimal_text.parse_table(text.encode()) is None


def test_sequence_info_round_trip(tmp_path):
  info = mot_files.SequenceInfo("a", 12.5, 30, 1600, 900, class_base=1)
  mot_files.write_sequence_info(tmp_path, info)
  assert mot_files.read_sequence_info(tmp_path) == info


@pytest.mark.parametrize(
  ("text", "parts"),
  [
    ("frameRate=1", ["cannot be read as an INI file"]),
    ("[Other]\na=1", ["section [Sequence] is missing"]),
    ("[Sequence]\nframeRate=30\nimWidth=5\nimHeight=5", ["seqLength is missing"]),
    ("[Sequence]\nframeRate=0\nseqLength=3\nimWidth=5\nimHeight=5", ["frameRate", "'0'", "above"]),
    ("[Sequence]\nframeRate=nan\nseqLength=3\nimWidth=5\nimHeight=5", ["frameRate", "'nan'"]),
    ("[Sequence]\nframeRate=3\nseqLength=3.5\nimWidth=5\nimHeight=5", ["seqLength", "'3.5'"]),
    ("[Sequence]\nframeRate=3\nseqLength=3\nimWidth=-5\nimHeight=5", ["imWidth", "'-5'", "from 1"]),
  ],
)
def test_bad_sequence_info_is_named(tmp_path, text, parts):
  (tmp_path / "seqinfo.ini").write_text(text)
  with pytest.raises(checks.InputError) as error:
    mot_files.read_sequence_info(tmp_path)
  for part in [*parts, str(tmp_path / "seqinfo.ini")]:
    assert part in str(error.value)


def test_sequences_are_found_in_a_split_or_in_a_root_of_splits(tmp_path):
  info = mot_files.SequenceInfo("a", 10, 3, 8, 8)
  for name in ("train/b", "train/a", "val/c"):
    mot_files.write_sequence_info(tmp_path / name, info)
  names = [path.name for path in mot_files.find_sequences(tmp_path / "train")]
  assert names == ["a", "b"]
  assert [path.name for path in mot_files.find_sequences(tmp_path)] == ["a", "b", "c"]
  with pytest.raises(checks.InputError, match=r"trian: no such folder; .* holds \['train'\]"):
    mot_files.find_sequences(tmp_path / "trian")
  with pytest.raises(checks.InputError, match="holds no sequence"):
    mot_files.find_sequences(tmp_path / "train" / "a")
  with pytest.raises(checks.InputError, match="seqinfo.ini: no such file"):
    mot_files.read_sequence_info(tmp_path)


def test_reads_real_public_detections():
  for folder in mot_files.find_sequences(real_data.folder("mot15")):
    length = mot_files.read_sequence_info(folder).length
    table = mot_files.read_table(folder / "det" / "det.txt", "detection", length)
    assert len(table) > length / 2 and (table.class_id == -1).all()
