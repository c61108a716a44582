"""Box losses against numbers computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from vistraj_jax.core import mean
from vistraj_jax.losses import boxes


def test_smooth_l1():
  got = boxes.smooth_l1(jnp.array([[0.5, 1.0, 3.0, -2.0]]), jnp.zeros((1, 4)))
  np.testing.assert_allclose(got, [[0.125, 0.5, 2.5, 1.5]])


def test_iou_and_giou():
  # 2 x 2 boxes, one shifted by 1 in x: overlap 2, union 6, enclosing 3 x 2.
  a, b = jnp.array([1.0, 1.0, 2.0, 2.0]), jnp.array([2.0, 1.0, 2.0, 2.0])
  np.testing.assert_allclose(boxes.iou(a, b), 1 / 3, rtol=1e-6)
  np.testing.assert_allclose(boxes.giou(a, b), 1 / 3, rtol=1e-6)
  # Apart by one width: no overlap, union 8, enclosing 6 x 2.
  c = jnp.array([5.0, 1.0, 2.0, 2.0])
  np.testing.assert_allclose(boxes.iou(a, c), 0.0)
  np.testing.assert_allclose(boxes.giou(a, c), -1 / 3, rtol=1e-6)
  np.testing.assert_allclose(boxes.giou(a, a), 1.0, rtol=1e-6)


def test_empty_boxes_have_finite_loss_and_gradient():
  zero = jnp.zeros(4)
  value, grad = jax.value_and_grad(lambda x: boxes.giou(x, zero))(zero)
  assert np.isfinite(value) and np.isfinite(grad).all()


def test_flow_targets_walk_to_the_next_box():
  got = boxes.flow_targets(jnp.zeros((1, 4)), jnp.full((1, 4), 6.0), 6)
  np.testing.assert_allclose(got[:, 0, 0], [1, 2, 3, 4, 5, 6], rtol=1e-6)


def test_flow_terms_by_hand():
  last, target = jnp.array([[0.5, 0.5, 0.2, 0.2]]), jnp.array([[0.7, 0.5, 0.2, 0.2]])
  exact = boxes.flow_targets(last, target, 2)  # cx 0.6 and 0.7
  terms = boxes.flow_terms(exact, last, target)
  np.testing.assert_allclose(terms["smooth_l1"], [0.0], atol=1e-12)
  np.testing.assert_allclose(terms["giou"], [0.0], atol=1e-5)
  # Standing still: errors 0.1 and 0.2 in one of four coordinates; GIoU 1/3 and 0.
  terms = boxes.flow_terms(jnp.stack([last, last]), last, target)
  np.testing.assert_allclose(terms["smooth_l1"], [(0.005 + 0.02) / 4], rtol=1e-5)
  np.testing.assert_allclose(terms["giou"], [2 / 3 + 1], rtol=1e-5)


def test_masked_rows_do_not_count():
  last = jnp.array([[0.5, 0.5, 0.2, 0.2], [jnp.nan] * 4])
  terms = boxes.flow_terms(jnp.stack([last, last]), last, last + 0.1)
  mask = jnp.array([1.0, 0.0])
  both = mean.Mean.of(terms["smooth_l1"], mask).value
  alone = boxes.flow_terms(jnp.stack([last[:1]] * 2), last[:1], last[:1] + 0.1)["smooth_l1"][0]
  np.testing.assert_allclose(both, alone)
