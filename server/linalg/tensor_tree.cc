#include "server/linalg/tensor_tree.h"

#include <ATen/ATen.h>

#include <utility>
#include <vector>

#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/linalg/tensor_elimination.h"
#include "server/linalg/tensor_leaves.h"

namespace ess::linalg {
namespace {

// Number of halvings from the root to the leaves, and the width of these.
struct TreeShape {
  int64_t levels = 0;
  int64_t leaf_width = 0;
  int64_t width() const { return leaf_width << levels; }
};

TreeShape ShapeOf(int64_t length) {
  TreeShape shape{.levels = 0, .leaf_width = length};
  while (shape.leaf_width > kTensorBlock) {
    ++shape.levels;
    shape.leaf_width = (length + (int64_t{1} << shape.levels) - 1) >> shape.levels;
  }
  return shape;
}

// One level of the tree, below the root. Its first and last node have a multiple of I as A, once
// the last is flipped: the outer nodes. Both children of an inner node are eliminations, and of an
// outer node the second; each of these is a task, its rows [A | B] or, for a second child,
// [C | B^T]. Nodes are the 2 outer ones, then the inner ones.
struct TreeLevel {
  std::vector<TensorNode> nodes;
  // [2 + 2 inner, P, w, 2 w]: [C | B^T] of the outer nodes, [A | B] and [C | B^T] of the inner.
  at::Tensor tasks;
  at::Tensor sums;        // [nodes, P]
  at::Tensor identities;  // [2, P]: the multiple of I of the outer nodes.
  at::Tensor growth;      // [P]

  int64_t inner() const { return static_cast<int64_t>(nodes.size()) - 2; }
  int64_t width() const { return tasks.size(2); }
  at::Tensor Outer() const { return tasks.slice(0, 0, 2); }
  at::Tensor InnerAB() const { return tasks.slice(0, 2, 2 + inner()); }
  at::Tensor InnerCB() const { return tasks.slice(0, 2 + inner()); }
};

at::Tensor ScaledIdentity(const at::Tensor& scales, int64_t width) {
  return scales.unsqueeze(-1).unsqueeze(-1) * at::eye(width, scales.options());
}

// C11 - B11^T B11 / identity and B21 of the first children of the outer nodes, which are the outer
// nodes of the next level; `outer` is the place for their [C | B^T].
void EliminateIdentities(const TreeLevel& level, const at::Tensor& outer) {
  const int64_t width = level.width();
  const int64_t half = width / 2;
  const at::Tensor rows = level.Outer().flatten(0, 1).slice(1, 0, half);
  const at::Tensor b11 = rows.slice(2, width, width + half);  // B11^T, [2 P, half, half]
  const at::Tensor scaled = b11 / level.identities.reshape({-1, 1, 1});
  const at::Tensor target = outer.flatten(0, 1);
  const at::Tensor c = rows.slice(2, 0, half).contiguous();
  SubtractUpperProduct(c, scaled.mT(), b11.mT());
  target.slice(2, 0, half).copy_(c);
  target.slice(2, half).copy_(rows.slice(2, width + half));
}

// The blocks that the tasks' updates of C start from: A11 or C11 of the other task of the node.
at::Tensor OtherBlocks(const TreeLevel& level) {
  const int64_t half = level.width() / 2;
  const auto first_block = [&](const at::Tensor& tasks) {
    return tasks.slice(2, 0, half).slice(3, 0, half);
  };
  return at::cat({ScaledIdentity(level.identities, half), first_block(level.InnerCB()),
                  first_block(level.InnerAB())});
}

std::vector<TensorNode> ChildrenOf(const TreeLevel& level) {
  const int64_t half = level.width() / 2;
  const auto child = [&](const TensorNode& node, bool second) {
    return TensorNode{.first = node.first + (second != node.flipped ? half : 0),
                      .flipped = second != node.flipped};
  };
  std::vector<TensorNode> children;
  for (int k = 0; k < 2; ++k) children.push_back(child(level.nodes[k], false));
  for (int k = 0; k < 2; ++k) children.push_back(child(level.nodes[k], true));
  for (const bool second : {false, true}) {
    for (size_t k = 2; k < level.nodes.size(); ++k) {
      children.push_back(child(level.nodes[k], second));
    }
  }
  return children;
}

// The root's two children.
TreeLevel FirstLevel(const at::Tensor& matrices, const at::Tensor& column_gram,
                     const at::Tensor& row_gram, const TensorShifts& shifts, PivotSum sum) {
  const int64_t heads = shifts.rows.size(0);
  const int64_t count = shifts.rows.size(1);
  const int64_t half = matrices.size(1) / 2;
  const at::Tensor identities = at::stack({shifts.rows, shifts.columns});  // [2, H, S]
  const at::Tensor tasks = at::empty({2, heads, count, half, 2 * half}, matrices.options());
  const auto fill = [&](int64_t node, const at::Tensor& gram, const at::Tensor& b_transposed) {
    at::Tensor c = tasks.select(0, node).slice(3, 0, half);
    const at::Tensor identity = identities.select(0, node).unsqueeze(2).unsqueeze(3);
    at::mul_out(c, gram.unsqueeze(1), identity.reciprocal());
    c.diagonal(0, 2, 3).add_(identities.select(0, 1 - node).unsqueeze(2));
    tasks.select(0, node).slice(3, half).copy_(b_transposed.unsqueeze(1));
  };
  fill(0, column_gram, matrices.slice(1, 0, half).slice(2, 0, half).flip({1}).mT());
  fill(1, row_gram, matrices.slice(1, half).slice(2, half).flip({1}));
  const at::Tensor by_pair = identities.flatten(1);
  return {.nodes = {{.first = 0, .flipped = false}, {.first = half, .flipped = true}},
          .tasks = tasks.flatten(1, 2),
          .sums = half * SumPivots(by_pair.unsqueeze(2), sum),
          .identities = by_pair,
          .growth = at::zeros({heads * count}, matrices.options())};
}

TensorLeaves RootAsLeaf(const at::Tensor& matrices, const TensorShifts& shifts) {
  const int64_t count = shifts.rows.size(1);
  const at::Tensor b = matrices.flip({1}).repeat_interleave(count, 0);  // [H S, w, w]
  const auto beside = [&](const at::Tensor& identities, const at::Tensor& right) {
    return at::cat({ScaledIdentity(identities.flatten(), b.size(1)), right}, 2).unsqueeze(0);
  };
  return {.nodes = {{}},
          .ab = beside(shifts.rows, b),
          .cb = beside(shifts.columns, b.mT()),
          .sums = at::zeros({1, b.size(0)}, b.options())};
}

absl::Status Descend(TreeLevel& level, int64_t block, PivotSum sum,
                     const CancellationToken& cancellation) {
  const int64_t half = level.width() / 2;
  const int64_t tasks = level.tasks.size(0);
  const int64_t pairs = level.tasks.size(1);
  TreeLevel next{.nodes = ChildrenOf(level),
                 .tasks = at::empty({2 + 2 * tasks, pairs, half, 2 * half}, level.tasks.options()),
                 .sums = {},
                 .identities = level.identities,
                 .growth = {}};
  EliminateIdentities(level, next.Outer());
  const at::Tensor c = OtherBlocks(level).flatten(0, 1);
  const at::Tensor rows = level.tasks.flatten(0, 1);
  TensorPanel panel;
  ESS_RETURN_IF_ERROR(EliminatePanel(rows.slice(1, 0, half).slice(2, 0, 3 * half), block, sum,
                                     cancellation, panel));
  ESS_RETURN_IF_ERROR(cancellation.Check());
  const at::Tensor ab = next.InnerAB().flatten(0, 1);
  ab.copy_(rows.slice(1, half).slice(2, half, 3 * half));
  SubtractUpperProduct(ab, panel.v.slice(2, half, 2 * half), panel.u.slice(2, half));
  ESS_RETURN_IF_ERROR(cancellation.Check());
  SubtractUpperProduct(c, panel.v.slice(2, 2 * half), panel.u.slice(2, 2 * half));
  const at::Tensor cb = next.InnerCB().flatten(0, 1);
  cb.slice(2, 0, half).copy_(c);
  cb.slice(2, half).copy_(ab.slice(2, half).mT());

  const at::Tensor outer_sums = level.sums.slice(0, 0, 2);
  const at::Tensor inner_sums = level.sums.slice(0, 2);
  next.sums = at::cat(
      {outer_sums + half * SumPivots(level.identities.unsqueeze(2), sum),
       at::cat({outer_sums, inner_sums, inner_sums}) + panel.pivots.sums.reshape({tasks, pairs})});
  next.growth = at::maximum(level.growth, panel.pivots.growth.reshape({tasks, pairs}).amax({0}));
  level = std::move(next);
  return absl::OkStatus();
}

TensorLeaves LeavesOf(const TreeLevel& level) {
  const int64_t width = level.width();
  const at::Tensor outer = level.Outer();
  const at::Tensor outer_ab =
      at::cat({ScaledIdentity(level.identities, width), outer.slice(3, width).mT()}, 3);
  return {.nodes = level.nodes,
          .ab = at::cat({outer_ab, level.InnerAB()}),
          .cb = at::cat({outer, level.InnerCB()}),
          .sums = level.sums};
}

}  // namespace

TensorTree::TensorTree(const at::Tensor& matrices)
    : length_(matrices.size(1)), matrices_(matrices) {
  ESS_CHECK(matrices.dim() == 3 && matrices.size(2) == length_ && length_ >= 1);
  const TreeShape shape = ShapeOf(length_);
  const int64_t padding = shape.width() - length_;
  if (padding > 0) matrices_ = at::constant_pad_nd(matrices, {0, padding, 0, padding});
  if (shape.levels == 0) return;
  const int64_t half = shape.width() / 2;
  const at::Tensor b21 = matrices_.slice(1, half).slice(2, 0, half);
  column_gram_ = at::zeros({b21.size(0), half, half}, b21.options());
  SubtractUpperProduct(column_gram_, b21, b21);
  const at::Tensor rows = at::zeros_like(column_gram_);
  SubtractUpperProduct(rows, b21.mT(), b21.mT());
  row_gram_ = rows.mT().flip({1, 2});
}

absl::Status TensorTree::Run(const TensorShifts& shifts, PivotSum sum,
                             const CancellationToken& cancellation, TensorTreeSums& result) const {
  ESS_CHECK(shifts.rows.dim() == 2 && shifts.rows.size(0) == matrices_.size(0));
  const TreeShape shape = ShapeOf(length_);
  at::Tensor growth = at::zeros({shifts.rows.numel()}, matrices_.options());
  TensorLeaves leaves;
  if (shape.levels == 0) {
    leaves = RootAsLeaf(matrices_, shifts);
  } else {
    TreeLevel level = FirstLevel(matrices_, column_gram_, row_gram_, shifts, sum);
    while (level.width() > shape.leaf_width) {
      ESS_RETURN_IF_ERROR(cancellation.Check());
      ESS_RETURN_IF_ERROR(Descend(level, shape.leaf_width, sum, cancellation));
    }
    leaves = LeavesOf(level);
    growth = level.growth;
  }
  ESS_RETURN_IF_ERROR(cancellation.Check());
  const at::Tensor sums = FinishLeaves(leaves, sum, growth);  // [H S, w]
  result = {.sums = sums.slice(1, 0, length_).unflatten(0, shifts.rows.sizes()),
            .growth = growth.view_as(shifts.rows),
            .pivots = shape.width()};
  return absl::OkStatus();
}

TensorTree TensorTree::Select(const at::Tensor& heads) const {
  TensorTree selected = *this;
  for (at::Tensor* tensor : {&selected.matrices_, &selected.column_gram_, &selected.row_gram_}) {
    if (tensor->defined()) *tensor = tensor->index_select(0, heads);
  }
  return selected;
}

int64_t TensorTree::heads() const { return matrices_.size(0); }

at::Tensor TensorTree::matrices() const {
  return matrices_.slice(1, 0, length_).slice(2, 0, length_);
}

int64_t TensorTree::BytesOfHead(int64_t length) {
  // The caller's matrix, the reversed one, the two products, and what makes them.
  const int64_t width = ShapeOf(length).width();
  return 4 * width * width * static_cast<int64_t>(sizeof(double));
}

int64_t TensorTree::BytesOfPair(int64_t length) {
  // At the first level: its tasks, U and V, and the next level's. Then the leaves, twice.
  const int64_t width = ShapeOf(length).width();
  const int64_t numbers = 13 * width * width / 4 + 24 * kTensorBlock * width;
  return numbers * static_cast<int64_t>(sizeof(double));
}

}  // namespace ess::linalg
