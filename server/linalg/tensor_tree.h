// The inertia tree (inertia_tree.h) and its logarithms of determinants, level by level: all nodes
// of a level, of several heads and several shifts, in one batch of LibTorch calls on any device.
//
// Rows are kept in reversed order. Then both children of a node are the same step: the right child
// of (A, B, C) is the left child of (C, B^T, A), and the triangle of B that is never needed stays
// in the corner that no product reads.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/status/status.h"
#include "server/base/cancellation.h"
#include "server/linalg/tree_workspace.h"

namespace ess::linalg {

// S shifts of each of H heads, H S pairs, one tree each; float64 on the device.
struct TensorShifts {
  at::Tensor rows;     // [H, S]: the multiple of I that stands for the rows of M; not 0.
  at::Tensor columns;  // [H, S]: ... and for its columns.
};

struct TensorTreeSums {
  at::Tensor sums;     // [H, S, L]: over the pivots of M_i, for each position i.
  at::Tensor growth;   // [H, S]: TreeResult::growth; not finite after a singular pivot.
  int64_t pivots = 0;  // Pivots of each M_i: L and those of the padding, which are the shifts.
};

// A chunk of heads. Thread-compatible.
class TensorTree {
 public:
  // Prepares what the shifts share; keeps `matrices`, which must not change. REQUIRES: `matrices`
  // [H, L, L] float64, strictly lower triangular, entries of magnitude at most 1. Throws what
  // LibTorch throws, as Run does.
  explicit TensorTree(const at::Tensor& matrices);

  // Never waits for the device. Errors: kCancelled, kDeadlineExceeded.
  // Cost: about 1 L^3 operations for each pair.
  absl::Status Run(const TensorShifts& shifts, PivotSum sum, const CancellationToken& cancellation,
                   TensorTreeSums& result) const;

  // The same for some of the heads; copies, but prepares nothing again.
  TensorTree Select(const at::Tensor& heads) const;

  int64_t heads() const;
  int64_t length() const { return length_; }
  // [H, L, L]
  at::Tensor matrices() const;

  // Bytes that a tree of this length takes on the device at its largest, for each head that is
  // prepared and for each pair that runs.
  static int64_t BytesOfHead(int64_t length);
  static int64_t BytesOfPair(int64_t length);

 private:
  int64_t length_;
  // [H, w, w]: zeros after the end; w >= L can be halved down to leaves of equal width.
  at::Tensor matrices_;
  // Of the root's B21 above the diagonal, in the order of the rows of its two children; undefined
  // where the root is a leaf.
  at::Tensor column_gram_;  // [H, w / 2, w / 2]: -B21^T B21.
  at::Tensor row_gram_;     // [H, w / 2, w / 2]: -B21 B21^T, reversed.
};

}  // namespace ess::linalg
