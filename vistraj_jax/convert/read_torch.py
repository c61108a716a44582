"""Reads PyTorch checkpoints (.pt, .pth, .ckpt) and .safetensors files into numpy, without torch.

A checkpoint is a zip archive: a pickle that describes the objects, and one record of raw bytes per
storage. Unpickling can run any code, so the unpickler here knows a fixed table of names that build
tensors and plain containers. Every other class becomes an `Opaque` placeholder that keeps its
state and does nothing; every other function that the pickle wants to call is refused by name.
"""

import collections
import io
import pathlib
import pickle
import re
import zipfile
import zlib

import ml_dtypes
import numpy as np
import safetensors

from vistraj_jax.convert import safetensors_file
from vistraj_jax.core import checks

# The dtype of each typed storage class, and of the dtype names that untyped storages come with.
STORAGE_DTYPES = {
  "DoubleStorage": np.dtype(np.float64),
  "FloatStorage": np.dtype(np.float32),
  "HalfStorage": np.dtype(np.float16),
  "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
  "LongStorage": np.dtype(np.int64),
  "IntStorage": np.dtype(np.int32),
  "ShortStorage": np.dtype(np.int16),
  "CharStorage": np.dtype(np.int8),
  "ByteStorage": np.dtype(np.uint8),
  "BoolStorage": np.dtype(np.bool_),
  "ComplexFloatStorage": np.dtype(np.complex64),
  "ComplexDoubleStorage": np.dtype(np.complex128),
}
_DTYPE_NAMES = {
  **{str(dtype): dtype for dtype in STORAGE_DTYPES.values()},
  **{name: np.dtype(name) for name in ("uint16", "uint32", "uint64")},
  **{
    name: np.dtype(getattr(ml_dtypes, name))
    for name in ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
  },
}
_LEGACY_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # torch's magic number, pickled
_DAMAGED = (
  pickle.UnpicklingError,
  EOFError,
  ValueError,
  TypeError,
  KeyError,
  IndexError,
  AttributeError,
  OverflowError,
  RecursionError,
  MemoryError,  # a damaged length asks for petabytes
)
_DAMAGED_ZIP = (
  zipfile.BadZipFile,
  zlib.error,
  NotImplementedError,  # a flipped bit in the flags: another compression, a later zip version
  RuntimeError,  # a flipped bit in the flags: encrypted
  EOFError,
  UnicodeDecodeError,
  OSError,
)


def read_checkpoint(path, lazy=False):
  """Returns what the file holds, tensors as numpy arrays.

  Args:
    path: a zip checkpoint written by torch 1.6 or later, or a `.safetensors` file.
    lazy: leave tensors in the file: each is then an object with `shape` and `read()`, which gives
      the array, so that a large file need not lie in memory as a whole.

  Returns:
    For safetensors {name: array}. For torch the saved object: dicts, lists, tuples, numbers and
    strings as they are; tensors and parameters as C-ordered (possibly read-only) arrays, bfloat16
    by ml_dtypes; paths and devices as strings; instances of other classes as `Opaque`.

  Raises:
    InputError: naming the file, if it is missing, empty, cut, damaged, of torch's old format
      before 1.6, TorchScript, or if its pickle calls a function that does not build tensors.
  """
  path = pathlib.Path(path)
  checks.require(path.is_file(), f"{path}: there is no such checkpoint file.")
  if path.suffix == ".safetensors":
    return safetensors_file.entries(path) if lazy else _read_safetensors(path)
  with open(path, "rb") as f:
    start = f.read(len(_LEGACY_START))
  checks.require(start, f"{path}: the file is empty; copy or download it again.")
  if not start.startswith(b"PK"):
    raise checks.InputError(f"{path}: {_not_a_zip(start)}")
  try:
    with zipfile.ZipFile(path) as archive:
      return _read_archive(path, archive, lazy)
  except _DAMAGED_ZIP as error:
    raise checks.InputError(
      f"{path}: the zip archive is cut or damaged ({error}); copy or download the file again."
    ) from error


class _OpaqueType(type):
  """Class of the placeholder classes: instances arise from pickled state, never from a call."""

  def __call__(cls, *args, **kwargs):
    raise checks.InputError(
      f"{cls.where}: its pickle calls {cls.global_name!r}, which is not among the functions that "
      "build tensors; nothing was executed. If you trust the file, load it with torch and save its "
      "state dict alone: torch.save(model.state_dict(), path)."
    )


class Opaque(metaclass=_OpaqueType):
  """Stands for an instance of a class we do not know.

  Attributes:
    global_name: "module.Class" as written in the pickle.
    state: the instance's pickled state (often its `__dict__`), None if it had none.
    items: key-value pairs of a dict subclass, or elements of a list subclass.
  """

  where = global_name = ""

  def __new__(cls, *args, **kwargs):
    self = object.__new__(cls)
    self.state, self.items = None, []
    return self

  def __setstate__(self, state):
    self.state = state

  def __setitem__(self, key, value):
    self.items.append((key, value))

  def append(self, value):
    """Takes one element of a pickled list subclass."""
    self.items.append(value)

  def __repr__(self):
    return f"<opaque {self.global_name}>"


class _Dtype:
  """numpy.dtype as pickled: type code first, byte order in the state."""

  def __init__(self, code, align=False, copy=True):
    if not re.fullmatch(r"[biufc]\d{1,2}", str(code)):
      raise pickle.UnpicklingError(f"numpy type {code!r} is not a plain number type")
    self.dtype = np.dtype(code)

  def __setstate__(self, state):
    self.dtype = self.dtype.newbyteorder(state[1] if state[1] in "<>" else "=")


class _Array:
  """numpy.ndarray as pickled: everything is in the state; `_plain` takes the array out."""

  def __setstate__(self, state):
    _, shape, dtype, fortran_order, raw = state
    array = np.frombuffer(raw, dtype.dtype)
    self.array = array.reshape(shape, order="F" if fortran_order else "C")


class _Storage:
  """Raw bytes of one storage record with the dtype of its class (None if untyped)."""

  def __init__(self, raw, dtype):
    self.raw, self.dtype = raw, dtype


class _Record:
  """A storage record that stays in the archive."""

  def __init__(self, path, name, size):
    self.path, self.name, self._size = path, name, size

  def __len__(self):
    return self._size

  def read(self):
    """Returns its bytes, checksum verified."""
    try:
      with zipfile.ZipFile(self.path) as archive:
        return archive.read(self.name)
    except _DAMAGED_ZIP as error:
      raise checks.InputError(
        f"{self.path}: record {self.name} is damaged ({error}); copy or download the file again."
      ) from error


class Stored:
  """A tensor of a lazily read checkpoint.

  Attributes:
    shape: its sizes.
  """

  def __init__(self, shape, storage, arguments):
    self.shape, self._storage, self._arguments = tuple(shape), storage, arguments

  def read(self):
    """Returns the tensor as a C-ordered array.

    Raises:
      InputError: its record is damaged.
    """
    return _view(_Storage(self._storage.raw.read(), self._storage.dtype), *self._arguments)


class _TorchName(str):
  """A torch dtype or storage class, by name."""


def _rebuild_tensor(storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None):
  return _view(storage, storage.dtype, offset, size, stride, metadata)


def _rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype, metadata=None):
  return _view(storage, _DTYPE_NAMES[dtype], offset, size, stride, metadata)


def _view(storage, dtype, offset, size, stride, metadata):
  if metadata:
    raise pickle.UnpicklingError(f"tensor metadata {metadata} (conjugate or negative view)")
  if 0 in size:
    return np.zeros(size, dtype)
  if isinstance(storage.raw, _Record):
    return Stored(size, storage, (dtype, offset, size, stride, metadata))
  step = dtype.itemsize
  # numpy itself refuses strides that would reach outside the buffer.
  view = np.ndarray(size, dtype, storage.raw, offset * step, [step * s for s in stride])
  return np.array(view, copy=None, order="C")


def _rebuild_from_type(function, kind, args, state):
  if function not in (_rebuild_tensor, _rebuild_tensor_v3):
    raise pickle.UnpicklingError("a tensor subclass that is not built from a storage")
  return function(*args)


def _encode(text, encoding):
  if encoding != "latin1":
    raise pickle.UnpicklingError(f"encoding {encoding!r}")
  return text.encode("latin1")


def _scalar(dtype, raw):
  return np.frombuffer(raw, dtype.dtype, count=1)[0].item()


_BUILDERS = {
  "torch._utils._rebuild_tensor": _rebuild_tensor,
  "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
  "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
  "torch._utils._rebuild_parameter": lambda data, requires_grad, hooks: data,
  "torch._utils._rebuild_parameter_with_state": lambda data, requires_grad, hooks, state: data,
  "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
  "torch.Size": tuple,
  "torch.device": lambda *args: ":".join(str(a) for a in args),
  "collections.OrderedDict": collections.OrderedDict,
  "collections.defaultdict": lambda factory=None, items=(): dict(items),
  "collections.Counter": lambda items=(): dict(items),
  "collections.deque": lambda items=(), maximum=None: list(items),
  "pathlib.PosixPath": lambda *parts: str(pathlib.PurePosixPath(*parts)),
  "pathlib._local.PosixPath": lambda *parts: str(pathlib.PurePosixPath(*parts)),
  "pathlib.WindowsPath": lambda *parts: str(pathlib.PureWindowsPath(*parts)),
  "pathlib._local.WindowsPath": lambda *parts: str(pathlib.PureWindowsPath(*parts)),
  "_codecs.encode": _encode,
  "numpy.dtype": _Dtype,
  "numpy.ndarray": _Array,
  **{
    f"numpy.{core}.multiarray.{name}": builder
    for core in ("core", "_core")
    for name, builder in (("_reconstruct", lambda *args: _Array()), ("scalar", _scalar))
  },
  **{
    f"{module}.{kind.__name__}": kind
    for module in ("builtins", "__builtin__")
    for kind in (set, frozenset, list, dict, tuple, int, float, bool, str, complex, slice, range)
  },
  "copyreg._reconstructor": lambda kind, base, state: kind.__new__(kind),
  "torch.storage.UntypedStorage": _TorchName("UntypedStorage"),
  **{f"torch.{name}": _TorchName(name) for name in (*STORAGE_DTYPES, *_DTYPE_NAMES)},
}


class _Unpickler(pickle.Unpickler):
  """Unpickler of one archive; `find_class` never imports anything."""

  def __init__(self, where, data, read_record):
    super().__init__(io.BytesIO(data))
    self._where, self._read_record = where, read_record
    self._storages = {}

  def find_class(self, module, name):
    """Returns our builder of a known global, or a placeholder class with its name."""
    full = f"{module}.{name}"
    if full in _BUILDERS:
      return _BUILDERS[full]
    return _OpaqueType(name, (Opaque,), {"where": self._where, "global_name": full})

  def persistent_load(self, saved_id):
    """Returns the storage of ("storage", class, record name, device, number of elements)."""
    kind, storage_class, key, _, count = saved_id
    if kind != "storage" or not isinstance(storage_class, _TorchName):
      raise pickle.UnpicklingError(f"storage of kind {kind!r}, class {storage_class!r}")
    if key not in self._storages:
      dtype = STORAGE_DTYPES.get(storage_class)
      raw = self._read_record(f"data/{key}")
      if len(raw) != count * (dtype.itemsize if dtype else 1):
        raise pickle.UnpicklingError(f"record data/{key} has {len(raw)} bytes, {count} elements")
      self._storages[key] = _Storage(raw, dtype)
    return self._storages[key]


def _read_archive(path, archive, lazy):
  names = archive.namelist()
  pickles = [n for n in names if n.count("/") == 1 and n.endswith("/data.pkl")]
  checks.require(
    len(pickles) == 1,
    f"{path}: a zip archive without a data.pkl, so no torch checkpoint; it holds {names[:5]}.",
  )
  root = pickles[0].removesuffix("data.pkl")
  checks.require(
    not any(n.startswith(f"{root}code/") for n in names),
    f"{path}: a TorchScript archive; load it with torch and save its state dict alone: "
    "torch.save(model.state_dict(), path).",
  )
  if f"{root}byteorder" in names:
    order = archive.read(f"{root}byteorder").decode()
    checks.require(order == "little", f"{path}: byte order {order!r}; only 'little' is read.")

  def record(key):
    name = root + key
    return _Record(path, name, archive.getinfo(name).file_size) if lazy else archive.read(name)

  unpickler = _Unpickler(path, archive.read(pickles[0]), record)
  try:
    return _plain(unpickler.load())
  except checks.InputError:
    raise
  except _DAMAGED as error:
    raise checks.InputError(
      f"{path}: its pickle is damaged or holds tensors of an unknown kind "
      f"({type(error).__name__}: {error}); load it with torch and save its state dict alone."
    ) from error


def _plain(value):
  """Replaces our stand-ins for numpy objects inside containers by what they stand for."""
  if isinstance(value, _Array):
    return value.array
  if isinstance(value, _Dtype):
    return value.dtype
  if isinstance(value, _Storage):
    if isinstance(value.raw, _Record):
      value = _Storage(value.raw.read(), value.dtype)
    return np.frombuffer(value.raw, value.dtype or np.uint8)
  if isinstance(value, dict):
    return {key: _plain(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return type(value)(_plain(item) for item in value)
  return value


def _read_safetensors(path):
  try:
    with safetensors.safe_open(path, framework="numpy") as f:
      return {name: f.get_tensor(name) for name in f.keys()}
  except safetensors.SafetensorError as error:
    raise checks.InputError(
      f"{path}: not a whole safetensors file ({error}); copy or download it again."
    ) from error


def _not_a_zip(start):
  if start == _LEGACY_START:
    return (
      "written in torch's format before version 1.6; load it with torch and save it again with "
      "torch.save(torch.load(path, map_location='cpu'), path)."
    )
  if start.startswith(b"\x80"):
    return "a bare pickle, no torch checkpoint; load it in Python and save it with torch.save."
  return (
    f"no torch checkpoint: it starts with {start[:8]!r} where a zip archive starts with b'PK'; "
    "copy or download it again."
  )
