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

// One tree for each pair of a head and a shift [P]; float64 on the device.
struct TensorShifts {
  at::Tensor heads;    // int64: which head.
  at::Tensor rows;     // The multiple of I that stands for the rows of M; not 0.
  at::Tensor columns;  // ... and for its columns.
};

struct TensorTreeSums {
  at::Tensor sums;     // [P, L]: over the pivots of M_i, for each position i.
  at::Tensor growth;   // [P]: TreeResult::growth; not finite after a singular pivot.
  int64_t pivots = 0;  // Pivots of each M_i: L and those of the padding, which are all shifts.
};

// A chunk of heads. Thread-compatible.
class TensorTree {
 public:
  // Prepares what the shifts share. REQUIRES: `matrices` [H, L, L] float64, strictly lower
  // triangular, entries of magnitude at most 1. Throws what LibTorch throws, as Run does.
  explicit TensorTree(const at::Tensor& matrices);

  // Never waits for the device. Errors: kCancelled, kDeadlineExceeded.
  // Cost: about 1 L^3 operations for each pair.
  absl::Status Run(const TensorShifts& shifts, PivotSum sum, const CancellationToken& cancellation,
                   TensorTreeSums& result) const;

  // Bytes that a tree of this length takes on the device at its largest, for each head that is
  // prepared and for each pair that runs.
  static int64_t BytesOfHead(int64_t length);
  static int64_t BytesOfPair(int64_t length);

 private:
  int64_t length_;
  int64_t leaf_width_;   // Width of the nodes below which no product is blocked: 17 to 32, or L.
  at::Tensor matrices_;  // [H, w, w]: rows reversed; w = leaf_width_ 2^k >= L.
  at::Tensor
      column_gram_;      // [H, w / 2, w / 2]: B11^T B11 of the root; undefined for a single leaf.
  at::Tensor row_gram_;  // B11 B11^T.
};

}  // namespace ess::linalg
