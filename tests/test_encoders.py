"""The encoders' interface and parts: sizes, layers, masks, attention in groups, resizing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vistraj_jax import encoders
from vistraj_jax.core import checks
from vistraj_jax.encoders import preprocess
from vistraj_jax.nn import attention, resample, windows

TINY = {"hidden_size": 32, "depth": 2, "num_heads": 2, "mlp_width": 48, "image_size": 56}
SAM = {"hidden_size": 32, "depth": 2, "num_heads": 2, "mlp_width": 32, "image_size": 64}
SAM |= {"window": 3, "global_layers": (1,), "neck_width": 8}
HIERA = {"image_size": 64, "embed_dim": 8, "stages": (1, 1, 2, 1), "global_blocks": (3,)}


@pytest.mark.parametrize(
  ("name", "fields", "count"),
  [
    ("smolvlm_tower", {}, 412_987_248),
    ("siglip_so400m", {"pool": "siglip_head"}, 428_225_600),
    ("smolvlm", {}, 2_145_603_440),
    ("internvit_300m", {}, 304_012_288),
    ("sam_vit_b", {}, 89_670_912),
    ("sam2_hiera_tiny", {}, 26_849_472),
  ],
)
def test_published_sizes(name, fields, count):
  shapes = encoders.make(name, **fields).shapes()
  assert sum(int(np.prod(shape)) for shape in shapes.values()) == count


@pytest.mark.parametrize(
  ("name", "fields", "layers", "grid"),
  [
    ("smolvlm_tower", TINY, (0, 1, 2), (4, 4)),
    ("siglip_so400m", {**TINY, "pool": "siglip_head"}, (0, 1, 2), (4, 4)),
    ("internvit_300m", TINY, (0, 1, 2), (4, 4)),
    ("sam_vit_b", SAM, (3,), (4, 4)),
    ("sam2_hiera_tiny", HIERA, (5,), (2, 2)),
  ],
)
def test_one_interface(name, fields, layers, grid):
  """Camera images of any size in; tokens of the last layer and a vector of every layer out."""
  encoder = encoders.make(name, **fields)
  assert encoder.all_layers == layers
  params = encoder.init(jax.random.key(0))
  images = np.random.default_rng(0).integers(0, 256, (2, 90, 70, 3), np.uint8)
  encode = jax.jit(encoder.encode, static_argnames=("layers", "dtype"))
  out = encode(params, images, layers=layers)
  assert out.grid == grid and out.tokens.shape == (2, grid[0] * grid[1], encoder.width)
  assert out.pooled.shape == (2, len(layers), encoder.width) and out.pooled.dtype == jnp.float32
  swapped = encode(params, images[::-1], layers=layers)  # an image does not depend on its batch
  np.testing.assert_allclose(swapped.pooled[0], out.pooled[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "fields"), [("smolvlm_tower", TINY), ("sam2_hiera_tiny", HIERA)])
def test_half_precision(name, fields):
  encoder = encoders.make(name, **fields)
  params = encoder.init(jax.random.key(0))
  images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
  encode = jax.jit(encoder.encode, static_argnames="dtype")
  full, half = (encode(params, images, dtype=dtype) for dtype in (jnp.float32, jnp.bfloat16))
  assert half.tokens.dtype == jnp.bfloat16 and half.pooled.dtype == jnp.float32
  away = np.linalg.norm(half.pooled - full.pooled) / np.linalg.norm(full.pooled)
  assert 0 < away < 0.05


@pytest.mark.parametrize(
  ("name", "fields"), [("smolvlm_tower", TINY), ("sam_vit_b", {**SAM, "depth": 1})]
)
def test_rematerialised_layers_have_the_same_gradients(name, fields):
  images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
  found = []
  for remat in (False, True):
    encoder = encoders.make(name, **fields, remat=remat)
    params = encoder.init(jax.random.key(0))
    along = jnp.cos(jnp.arange(encoder.width))

    def loss(params, encoder=encoder, along=along):
      return encoder.encode(params, images).pooled[0, 0] @ along

    found.append(jax.jit(jax.grad(loss))(params))
  largest = max(np.abs(x).max() for x in jax.tree.leaves(found[0]))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * largest), *found)


def test_random_parameters_are_spread_as_the_modules_say():
  encoder = encoders.make("internvit_300m", **{**TINY, "hidden_size": 64})
  found = encoder.init(jax.random.key(0))
  init = encoder.network(jnp.float32).init
  wanted = jax.jit(init)(jax.random.key(0), jnp.zeros((1, 56, 56, 3)))["params"]
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  for (path, a), b in zip(
    jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(wanted), strict=True
  ):
    assert a.shape == b.shape and a.dtype == b.dtype, path
    np.testing.assert_allclose(a.mean(), b.mean(), atol=0.02, err_msg=str(path))
    np.testing.assert_allclose(a.std(), b.std(), rtol=0.2, err_msg=str(path))


def test_padding_changes_nothing():
  """An image alone, and the same image in the corner of a larger canvas of noise."""
  encoder = encoders.make(
    "smolvlm_tower", **TINY, pool="masked_mean", preprocess=preprocess.Preprocess(None)
  )
  params = encoder.init(jax.random.key(0))
  rng = np.random.default_rng(1)
  image = rng.integers(0, 256, (1, 42, 28, 3), np.uint8)
  canvas = rng.integers(0, 256, (1, 56, 70, 3), np.uint8)
  canvas[:, :42, :28] = image
  mask = np.zeros((1, 56, 70), bool)
  mask[:, :42, :28] = True
  padded = jax.jit(encoder.encode)(params, canvas, mask)
  alone = jax.jit(encoder.encode)(params, image)
  assert (alone.grid, padded.grid) == ((3, 2), (4, 5))
  np.testing.assert_allclose(padded.pooled, alone.pooled, rtol=1e-4, atol=1e-5)
  tokens = padded.tokens.reshape(4, 5, -1)[:3, :2].reshape(6, -1)
  np.testing.assert_allclose(tokens, alone.tokens[0], rtol=1e-4, atol=1e-5)


def test_position_rules_differ():
  fields = {"hidden_size": 16, "depth": 1, "num_heads": 1, "mlp_width": 16}
  images = np.random.default_rng(0).integers(0, 256, (1, 384, 384, 3), np.uint8)
  exact, old = (
    encoders.make("smolvlm_tower", **fields, position_rule=rule)
    for rule in ("exact", "hf_4_57_bf16")
  )
  params = exact.init(jax.random.key(0))
  a, b = (e.encode(params, images, layers=(0,)).tokens.reshape(27, 27, -1) for e in (exact, old))
  same = np.isclose(a, b, atol=1e-6).all(-1)
  moved = np.isin(np.arange(27), [15, 17, 19, 21, 23, 25])
  np.testing.assert_array_equal(same, ~(moved[:, None] | moved[None]))


@pytest.mark.parametrize(
  ("call", "sentence"),
  [
    (lambda: encoders.make("resnet"), "encoder: 'resnet' is not allowed; choose one of"),
    (lambda: encoders.make("sam_vit_b", widht=3), "field of encoder 'sam_vit_b': 'widht' is not"),
    (lambda: encoders.make("smolvlm_tower", pool="max"), "encoder pool: 'max' is not allowed"),
    (lambda: encoders.make("smolvlm_tower", preprocess="x"), "encoder preprocess: 'x' is not"),
    (lambda: encoders.make("smolvlm_tower", position_rule="x"), "encoder position_rule: 'x'"),
    (lambda: _encode("smolvlm_tower", TINY, layers=(3,)), "layers: 3 is not there; .* 0 to 2"),
    (lambda: _encode("smolvlm_tower", TINY, layers=()), "ask for at least one layer"),
    (lambda: _encode("sam_vit_b", SAM, layers=(0, -1)), r"have widths \[32, 8\]"),
    (
      lambda: _encode("smolvlm_tower", TINY, mask=np.ones((1, 64, 64))),
      r"mask: images of \(64, 64\) are resized to \(56, 56\)",
    ),
    (
      lambda: _encode("sam_vit_b", SAM, mask=np.ones((1, 64, 64))),
      "encoder 'sam_vit_b' takes no pixel mask",
    ),
    (
      lambda: _encode("sam_vit_b", {**SAM, "preprocess": preprocess.Preprocess((32, 32))}),
      r"images of \(32, 32\); its positions are for 64 x 64",
    ),
    (
      lambda: _encode(
        "sam2_hiera_tiny", {**HIERA, "preprocess": preprocess.Preprocess((200, 224))}
      ),
      "is not made of windows of 8; image sides must be multiples of 32",
    ),
    (
      lambda: _encode("smolvlm", {**TINY, "image_size": 42, **_TEXT}),
      "encoder prompt: holds the image token 49153 0 times, an image takes 1 places",
    ),
  ],
)
def test_bad_input(call, sentence):
  with pytest.raises(checks.InputError, match=sentence):
    call()


_TEXT = {"text_width": 16, "text_depth": 1, "text_heads": 2, "text_kv_heads": 2}
_TEXT |= {"text_mlp_width": 16, "vocabulary": 49155}


def _encode(name, fields, **more):
  encoder = encoders.make(name, **fields)
  good = encoders.make(name, **{k: v for k, v in fields.items() if k != "preprocess"})
  params = jax.eval_shape(good.init, jax.random.key(0))
  images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.uint8)
  return jax.eval_shape(lambda p, x: encoder.encode(p, x, **more), params, images)


@pytest.mark.parametrize("scores", [1, 400])
@pytest.mark.parametrize("kind", ["plain", "mask", "causal", "relative"])
def test_attention_in_groups(monkeypatch, scores, kind):
  monkeypatch.setattr(attention, "GROUP_SCORES", scores)
  rng = np.random.default_rng(0)
  q, k, v = (jnp.asarray(rng.normal(size=(2, 12, 3, 8)), jnp.float32) for _ in range(3))
  more, added = {}, 0.0
  if kind == "mask":
    more["key_mask"] = np.arange(12) < np.array([[12], [5]])
    added = np.where(more["key_mask"], 0, -np.inf)[:, None, None]
  if kind == "causal":
    more["causal"] = True
    added = np.where(np.tril(np.ones((12, 12))), 0, -np.inf)
  if kind == "relative":
    rows, columns = rng.normal(size=(2, 12, 3, 4)), rng.normal(size=(2, 12, 3, 3))
    more["relative"] = (jnp.asarray(rows, jnp.float32), jnp.asarray(columns, jnp.float32))
    both = rows[..., :, None] + columns[..., None, :]
    added = both.reshape(2, 12, 3, 12).swapaxes(1, 2)

  def plain(q, k, v):
    weights = jax.nn.softmax(jnp.einsum("bnhd,bmhd->bhnm", q, k) / 8**0.5 + added)
    return jnp.einsum("bhnm,bmhd->bnhd", weights, v)

  def grouped(q, k, v):
    return attention.attend(q, k, v, **more)

  np.testing.assert_allclose(grouped(q, k, v), plain(q, k, v), atol=1e-5)
  ways = (jax.grad(lambda *x, f=f: (f(*x) ** 2).sum(), (0, 1, 2)) for f in (grouped, plain))
  for a, b in zip(*(way(q, k, v) for way in ways), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_resize_matrices():
  # Half of four samples, each the mean of two neighbours; Pillow's triangle reaches two wide.
  np.testing.assert_allclose(
    resample.matrix(4, 2, "bilinear", False), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]
  )
  wide = np.array([[3, 3, 1, 0], [0, 1, 3, 3]]) / 7
  np.testing.assert_allclose(resample.matrix(4, 2, "bilinear", True), wide, atol=1e-7)
  # A point in the middle of four: (-0.09375, 0.59375, 0.59375, -0.09375) for a = -0.75.
  middle = resample.matrix(4, 1, "bicubic", False)[0]
  np.testing.assert_allclose(middle, [-0.09375, 0.59375, 0.59375, -0.09375])
  for kernel in resample.KERNELS:
    same = resample.matrix(9, 9, kernel, True)
    np.testing.assert_allclose(same, np.eye(9), atol=1e-6)
    np.testing.assert_allclose(resample.matrix(31, 7, kernel, True).sum(1), 1, atol=1e-6)
  with pytest.raises(checks.InputError, match="'lanczos' exists with antialias only"):
    resample.matrix(4, 2, "lanczos", False)


def test_windows():
  x = jnp.arange(2 * 5 * 4 * 3.0).reshape(2, 5, 4, 3)
  cut = windows.partition(x, 3)
  assert cut.shape == (2, 4, 9, 3)
  np.testing.assert_array_equal(cut[0, 0, 3], x[0, 1, 0])  # second row of the first window
  assert not cut[:, 3, 5:].any()  # beyond the bottom
  np.testing.assert_array_equal(windows.join(cut, 3, 5, 4), x)
