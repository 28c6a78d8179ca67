// The last levels of the tensor tree: nodes of at most 32 positions, all at once, element by
// element.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "server/linalg/tree_workspace.h"

namespace ess::linalg {

// A node of the tensor tree: positions [first, first + width). Flipped nodes hold (C, B^T, A) where
// others hold (A, B, C).
struct TensorNode {
  int64_t first = 0;
  bool flipped = false;
};

// What is left of M for a batch of nodes [nodes, P], each for P pairs of a head and a shift.
struct TensorLeaves {
  std::vector<TensorNode> nodes;
  at::Tensor ab;    // [nodes, P, w, 2 w] = [A | B]
  at::Tensor cb;    // [nodes, P, w, 2 w] = [C | B^T]
  at::Tensor sums;  // [nodes, P]: of the pivots so far.
};

// Sums for each position that the nodes hold between them: [P, nodes * w], positions counted from
// the smallest `first`. `growth` [P] is raised to what is found here.
// REQUIRES: 1 <= w <= kTensorBlock. Never waits for the device.
at::Tensor FinishLeaves(const TensorLeaves& leaves, PivotSum sum, at::Tensor& growth);

}  // namespace ess::linalg
