"""Opens the tables of a nuScenes version through nuscenes-devkit, after checks of every file."""

import importlib
import json
import pathlib

from vistraj_jax.core import checks

TABLES = (
  *("category", "attribute", "visibility", "instance", "sensor", "calibrated_sensor", "ego_pose"),
  *("log", "scene", "sample", "sample_data", "sample_annotation", "map"),
)
_NEVER_EMPTY = ("scene", "sample", "sample_data", "sample_annotation")
_REMEDY = "download the metadata again"


def devkit(module):
  """Imports a module of nuscenes-devkit.

  Raises:
    InputError: it is not installed.
  """
  try:
    return importlib.import_module(module)
  except ImportError as error:
    raise checks.InputError(
      f"nuscenes-devkit cannot be imported ({error}); install its needs with "
      "pip install vistraj-jax[nuscenes], then pip install --no-deps nuscenes-devkit==1.2.0."
    ) from error


def table_paths(dataroot, version):
  """Returns the files of the 13 tables.

  Raises:
    InputError: the folder, the version or a table is missing.
  """
  dataroot = pathlib.Path(dataroot)
  checks.require(
    dataroot.is_dir(), f"--dataroot: {dataroot}: no such folder; give the folder that holds v1.0-*."
  )
  folder = dataroot / version
  found = sorted(path.name for path in dataroot.glob("v1.0-*"))
  checks.require(
    folder.is_dir(),
    f"{folder}: no such version; {dataroot} holds {found or 'no folder v1.0-*'}; set --dataroot "
    "and --version.",
  )
  paths = [folder / f"{table}.json" for table in TABLES]
  missing = [path.name for path in paths if not path.is_file()]
  checks.require(not missing, f"{folder}: the tables {missing} are missing; {_REMEDY}.")
  return paths


def open_tables(dataroot, version):
  """Returns the devkit's `NuScenes`, which here gives empty records for tokens to nowhere.

  Raises:
    InputError: a folder, table or map mask is missing, a table is damaged, or the devkit is not
      installed.
  """
  paths = table_paths(dataroot, version)
  NuScenes = devkit("nuscenes").NuScenes

  absent = {
    "instance": {"category_token": ""},
    "category": {"name": ""},
    "calibrated_sensor": {"sensor_token": ""},
    "sensor": {"modality": "", "channel": ""},
  }

  class Tables(NuScenes):
    def get(self, table_name, token):
      try:
        return super().get(table_name, token)
      except KeyError:
        return {"data": {}, "anns": []} if table_name == "sample" else absent[table_name]

  _check_maps(pathlib.Path(dataroot), paths[TABLES.index("map")])
  try:
    tables = Tables(version=version, dataroot=str(dataroot), verbose=False)
  except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
    for path in paths:
      _read(path)  # names the file if it is one of them alone
    raise checks.InputError(
      f"{paths[0].parent}: nuscenes-devkit cannot open the tables ({type(error).__name__}: "
      f"{error}); {_REMEDY}."
    ) from error
  for path, table in zip(paths, TABLES, strict=True):
    _check_records(path, getattr(tables, table))
    checks.require(
      getattr(tables, table) or table not in _NEVER_EMPTY,
      f"{path}: holds no record, so there is nothing to prepare; {_REMEDY}.",
    )
  return tables


def _check_maps(dataroot, path):
  for record in _read(path):
    name = record.get("filename")
    checks.require(
      isinstance(name, str) and (dataroot / name).is_file(),
      f"{path}: map {record['token']} names {name!r}, no file in {dataroot}; nuscenes-devkit wants "
      "the maps folder that comes with the metadata.",
    )


def _read(path):
  """Returns the records of a table."""
  try:
    records = json.loads(path.read_text(encoding="utf-8"))
  except json.JSONDecodeError as error:
    raise checks.InputError(
      f"{path}: damaged, no valid JSON at line {error.lineno}, column {error.colno} "
      f"({error.msg}); {_REMEDY}."
    ) from None
  except UnicodeDecodeError as error:
    raise checks.InputError(f"{path}: damaged, no text at byte {error.start}; {_REMEDY}.") from None
  _check_records(path, records)
  return records


def _check_records(path, records):
  good = isinstance(records, list) and all(
    isinstance(record, dict) and isinstance(record.get("token"), str) for record in records
  )
  checks.require(good, f"{path}: is no list of records with a token each; {_REMEDY}.")
