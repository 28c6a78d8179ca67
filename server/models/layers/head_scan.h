// What the scans of linear-attention heads share: heads that read groups, decays between the
// positions of a chunk, and operators in groups of heads of bounded size.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "server/models/forward_pass.h"

namespace ess::models {

// Heads [first, first + count) of `head_count`, of which head h reads group h G / head_count:
// x [L, G, ...] => [count, L, ...]. A single group is expanded, not copied.
at::Tensor HeadsOf(const at::Tensor& x, int64_t head_count, int64_t first, int64_t count);

// The same for positions [first, first + count) and all heads, in float32:
// [head_count, count, ...].
at::Tensor ChunkOf(const at::Tensor& x, int64_t head_count, int64_t first, int64_t count);

// The same of logarithms of gates, in float64, where differences of two sums of them keep their
// digits. Gates below e^-200 count as that: 0 in float32.
at::Tensor LogGatesOf(const at::Tensor& x, int64_t head_count, int64_t first, int64_t count);

// exp(to_i - from_j) for j <= i + diagonal, else 0: two [H, q, N] float64 => [H, q, q, N] float32.
at::Tensor DecaysBetween(const at::Tensor& to, const at::Tensor& from, int64_t diagonal);

// sum over n of left_i decays_ij right_j: [H, q, N] twice and [H, q, q, N] (or 1 in place of N) =>
// [H, q, q].
at::Tensor DecayedProducts(const at::Tensor& left, const at::Tensor& decays,
                           const at::Tensor& right);

// Calls `accept` for groups of heads [first, first + count) of which each head's factors are
// `numbers_per_head` float64 numbers, in groups within kMaxMapBytes (one head at least).
// Errors: those of `accept`; kCancelled, kDeadlineExceeded, looked at before each group.
absl::Status ForHeadGroups(int64_t head_count, int64_t numbers_per_head, const ForwardPass& pass,
                           absl::FunctionRef<absl::Status(int64_t first, int64_t count)> accept);

}  // namespace ess::models
