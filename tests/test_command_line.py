"""What all commands share: a wrong --out is found before the work."""

import importlib

import pytest

from vistraj_jax.core import checks


@pytest.mark.parametrize("place", ["note.txt", "note.txt/below/it"])
@pytest.mark.parametrize(
  "command",
  [
    "track --data nowhere --detections det --motion kalman",
    "encode --data nowhere --encoder sam_vit_b --checkpoint nowhere",
    "evaluate --truth nowhere --predictions nowhere",
    "evaluate forecasts --forecasts nowhere",
    "evaluate videos --run nowhere",
    "predict --run nowhere",
    "segment --frames nowhere --masks nowhere --weights nowhere",
    "probe --encoder nowhere --data nowhere",
    "policy train --encoder nowhere --data nowhere",
    "policy rollout --policy nowhere --source nowhere",
    "report waypoints --runs nowhere",
    "tokenize --data nowhere --tokenizer nowhere",
    "prepare check --dataroot nowhere --data nowhere",
  ],
)
def test_an_out_that_is_a_file_is_refused_first(tmp_path, command, place):
  (tmp_path / "note.txt").write_text("mine")
  module, *arguments = command.split()
  main = importlib.import_module(f"launch.{module}").main
  with pytest.raises(checks.InputError, match=f"--out: {tmp_path}/note.txt is a file; give a fold"):
    main([*arguments, "--out", str(tmp_path / place)])
  assert (tmp_path / "note.txt").read_text() == "mine"
