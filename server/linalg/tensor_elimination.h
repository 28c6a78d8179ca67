// Symmetric eliminations without row exchanges, many side by side: the steps of the tree as calls
// that any LibTorch device has. Nothing here waits for the device.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/status/status.h"
#include "server/base/cancellation.h"
#include "server/linalg/tree_workspace.h"

namespace ess::linalg {

// Pivot blocks up to this width are factored element by element.
inline constexpr int64_t kTensorBlock = 32;

// What was learned from the pivots of a batch [N], float64 on the device.
struct TensorPivots {
  at::Tensor sums;    // [N]: the PivotSum of each member.
  at::Tensor growth;  // [N]: largest |u v|; NaN or infinity after a singular pivot.
};

// f(pivots) summed over the last axis: negative ones, or log |pivot|.
at::Tensor SumPivots(const at::Tensor& pivots, PivotSum sum);

// Subtracts v^T u from `target` [N, w, columns], but for corners that no symmetric update needs:
// only what is above the diagonal and, with columns = 2 w, left of the other diagonal has to be
// right afterwards. `v` is [N, depth, w], `u` [N, depth, columns]; columns is w or 2 w.
void SubtractUpperProduct(const at::Tensor& target, const at::Tensor& v, const at::Tensor& u);

// Rows of P = L D L^T and what stands beside it. With `rows` = [P | R], P square and symmetric (its
// upper triangle is read): U = L^-1 [. | R] and V = D^-1 U, valid right of P's diagonal blocks.
struct TensorPanel {
  at::Tensor u;  // [N, pivots, columns]
  at::Tensor v;  // As u.
  TensorPivots pivots;
};

// Left-looking in blocks of `block` rows, float64.
// Shapes: rows [N, pivots, columns], columns >= pivots, pivots a multiple of `block` <=
//         kTensorBlock; unit stride along the columns.
// Errors: kCancelled, kDeadlineExceeded: looks at the token once for each block.
absl::Status EliminatePanel(const at::Tensor& rows, int64_t block, PivotSum sum,
                            const CancellationToken& cancellation, TensorPanel& panel);

}  // namespace ess::linalg
