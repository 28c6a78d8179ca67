#include "server/linalg/tensor_leaves.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <bit>

#include "server/linalg/tensor_elimination.h"

namespace ess::linalg {
namespace {

// [2, w, 2 w, N] with the batch N = nodes * P last, so that each step is a product of contiguous
// rows: [A | B] and [C | B^T]. Widths are halved, so w is raised to a power of two by positions
// that have nothing to do with the others: 1 on the diagonal, a pivot that no sum notices.
at::Tensor InterleavedState(const TensorLeaves& leaves) {
  const int64_t width = leaves.ab.size(2);
  const int64_t padded = std::bit_ceil(static_cast<uint64_t>(width));
  const int64_t padding = padded - width;
  const int64_t batch = leaves.ab.size(0) * leaves.ab.size(1);
  const at::Tensor state = at::zeros({2, padded, 2 * padded, batch}, leaves.ab.options());
  // Reversed rows have the added ones first, columns have them last.
  const auto copy = [&](int64_t part, int64_t row, int64_t column, const at::Tensor& from) {
    state.select(0, part)
        .slice(0, row, row + width)
        .slice(1, column, column + width)
        .copy_(from.flatten(0, 1).permute({1, 2, 0}));
  };
  copy(0, padding, padding, leaves.ab.slice(3, 0, width));
  copy(0, padding, padded, leaves.ab.slice(3, width));
  copy(1, 0, 0, leaves.cb.slice(3, 0, width));
  copy(1, 0, padded + padding, leaves.cb.slice(3, width));
  const at::Tensor diagonals = state.diagonal(0, 1, 2);  // [2, N, padded]
  diagonals.select(0, 0).slice(1, 0, padding).fill_(1);
  diagonals.select(0, 1).slice(1, width).fill_(1);
  return state;
}

// Nodes after the positions that InterleavedState adds.
std::vector<TensorNode> PaddedNodes(const TensorLeaves& leaves) {
  const int64_t width = leaves.ab.size(2);
  const int64_t padding = std::bit_ceil(static_cast<uint64_t>(width)) - width;
  std::vector<TensorNode> nodes = leaves.nodes;
  for (TensorNode& node : nodes) {
    if (node.flipped) node.first -= padding;
  }
  return nodes;
}

// One level: eliminates the first half of the rows of both parts, in place, and returns the state
// of the children, those of the first part before those of the second.
at::Tensor HalveState(const at::Tensor& state) {
  const int64_t half = state.size(1) / 2;
  const int64_t batch = state.size(3);
  const at::Tensor children = at::empty({2, half, 2 * half, 2 * batch}, state.options());
  const auto child = [&](int64_t part, int64_t of) {
    return children.select(0, part).slice(2, of * batch, (of + 1) * batch);
  };
  // C11 for the first part, A11 for the second.
  const at::Tensor others = state.slice(1, 0, half).slice(2, 0, half).flip({0}).contiguous();
  for (int64_t k = 0; k < half; ++k) {
    const at::Tensor pivot_row = state.select(1, k).slice(1, k, 3 * half);  // [2, columns, N]
    const at::Tensor row = pivot_row.slice(1, 1);
    const at::Tensor multipliers = row * pivot_row.slice(1, 0, 1).reciprocal();
    const int64_t rows_below = 2 * half - k - 1;
    state.slice(1, k + 1)
        .slice(2, k + 1, 3 * half)
        .addcmul_(multipliers.slice(1, 0, rows_below).unsqueeze(2), row.unsqueeze(1), -1);
    others.addcmul_(multipliers.slice(1, rows_below).unsqueeze(2),
                    row.slice(1, rows_below).unsqueeze(1), -1);
  }
  for (int64_t of : {0, 1}) {
    const at::Tensor part = state.select(0, of).slice(0, half);
    child(0, of).copy_(part.slice(1, half, 3 * half));
    child(1, of).slice(1, 0, half).copy_(others.select(0, of));
    child(1, of).slice(1, half).copy_(part.slice(1, 2 * half, 3 * half).transpose(0, 1));
  }
  return children;
}

// Largest |u v| of each member [2, N] of a state whose first half of rows is eliminated.
at::Tensor GrowthOf(const at::Tensor& state, const at::Tensor& pivots) {
  const int64_t half = state.size(1) / 2;
  const at::Tensor rows = state.slice(1, 0, half).slice(2, 0, 3 * half);
  const at::Tensor above =
      at::ones({half, 3 * half}, state.options()).triu(1).unsqueeze(0).unsqueeze(3);
  const at::Tensor largest = (rows * above).abs_().amax({2});  // [2, half, N]
  return (largest * largest / pivots.abs().transpose(1, 2)).amax({1});
}

// Where in the leaves [nodes * w] each position is, counted from the smallest original one.
at::Tensor LeafOfPosition(const TensorLeaves& leaves, const std::vector<TensorNode>& nodes) {
  int64_t first = leaves.nodes.front().first;
  for (const TensorNode& node : leaves.nodes) first = std::min(first, node.first);
  const int64_t positions = leaves.nodes.size() * leaves.ab.size(2);
  const at::Tensor index = at::empty({positions}, at::kLong);
  int64_t* const leaf_of = index.mutable_data_ptr<int64_t>();
  const int64_t width = leaves.ab.size(2);
  for (size_t leaf = 0; leaf < nodes.size(); ++leaf) {
    // Added positions lie outside their original node.
    const TensorNode& origin = leaves.nodes[leaf % leaves.nodes.size()];
    const int64_t position = nodes[leaf].first;
    if (position < origin.first || position >= origin.first + width) continue;
    leaf_of[position - first] = leaf;
  }
  return index;
}

}  // namespace

at::Tensor FinishLeaves(const TensorLeaves& leaves, PivotSum sum, at::Tensor& growth) {
  const int64_t pairs = leaves.ab.size(1);
  at::Tensor state = InterleavedState(leaves);
  std::vector<TensorNode> nodes = PaddedNodes(leaves);
  at::Tensor sums = leaves.sums.flatten();  // [nodes * P]
  for (int64_t half = state.size(1) / 2; half >= 1; half /= 2) {
    const at::Tensor children = HalveState(state);
    const at::Tensor pivots = state.diagonal(0, 1, 2).slice(2, 0, half).contiguous();
    growth = at::maximum(growth, GrowthOf(state, pivots).reshape({-1, pairs}).amax({0}));
    sums = (SumPivots(pivots, sum) + sums).flatten();
    state = children;
    std::vector<TensorNode> halves;
    for (const bool second : {false, true}) {
      for (const TensorNode& node : nodes) {
        halves.push_back({.first = node.first + (second != node.flipped ? half : 0),
                          .flipped = second != node.flipped});
      }
    }
    nodes = std::move(halves);
  }
  // Position i keeps its row and drops its column: one more pivot, the true A of its leaf.
  const at::Tensor flipped = at::empty({static_cast<int64_t>(nodes.size()), 1}, at::kBool);
  for (size_t leaf = 0; leaf < nodes.size(); ++leaf) {
    flipped.mutable_data_ptr<bool>()[leaf] = nodes[leaf].flipped;
  }
  const at::Tensor diagonal = state.select(2, 0).reshape({2, -1, pairs});  // A and C as stored.
  const at::Tensor last =
      at::where(flipped.to(diagonal.device()), diagonal.select(0, 1), diagonal.select(0, 0));
  sums = sums.reshape({-1, pairs}) + SumPivots(last.unsqueeze(2), sum);
  return sums.index_select(0, LeafOfPosition(leaves, nodes).to(sums.device())).t();
}

}  // namespace ess::linalg
