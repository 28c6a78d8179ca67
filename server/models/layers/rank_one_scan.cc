#include "server/models/layers/rank_one_scan.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "server/base/status_macros.h"
#include "server/models/layers/head_scan.h"
#include "server/operators/diagonal_plus_rank_one.h"

namespace ess::models {
namespace {

constexpr int64_t kChunk = 16;

absl::Status Capture(const RankOneScanInputs& inputs, int64_t mixer, ForwardPass& pass) {
  const int64_t head_count = inputs.keys.size(1);
  const int64_t factors = inputs.keys.size(0) * inputs.keys.size(2) * 5;
  return ForHeadGroups(head_count, factors, pass, [&](int64_t first, int64_t count) {
    const auto heads = [&](const at::Tensor& x) { return HeadsOf(x, head_count, first, count); };
    const operators::DiagonalPlusRankOne op(heads(inputs.log_decays).exp(), heads(inputs.to),
                                            heads(inputs.from), heads(inputs.keys),
                                            heads(inputs.receptances));
    return pass.Accept(mixer, first, op);
  });
}

// With s_t = S_{t-1}^T q_t as a second input beside v, the recurrence is diagonal: within a chunk
//   S_t = W_t S_0 + sum over j <= t of W_tj (p_j s_j^T + k_j v_j^T)
// and s solves a unit triangular system, the same sum read by q_t one step earlier.
absl::StatusOr<at::Tensor> Run(const RankOneScanInputs& inputs, const ForwardPass& pass) {
  const int64_t length = inputs.keys.size(0);
  const int64_t heads = inputs.keys.size(1);
  const auto options = inputs.values.options().dtype(at::kFloat);
  at::Tensor y = at::empty(inputs.values.sizes(), options);
  at::Tensor state = at::zeros({heads, inputs.keys.size(2), inputs.values.size(2)}, options);
  for (int64_t first = 0; first < length; first += kChunk) {
    ESS_RETURN_IF_ERROR(pass.CheckCancellation());
    const int64_t count = std::min(kChunk, length - first);
    const auto chunk = [&](const at::Tensor& x) { return ChunkOf(x, heads, first, count); };
    const at::Tensor receptances = chunk(inputs.receptances);  // [H, q, N]
    const at::Tensor to = chunk(inputs.to);                    // [H, q, N]
    const at::Tensor from = chunk(inputs.from);                // [H, q, N]
    const at::Tensor keys = chunk(inputs.keys);                // [H, q, N]
    const at::Tensor values = chunk(inputs.values);            // [H, q, d]
    const at::Tensor log_decays = LogGatesOf(inputs.log_decays, heads, first, count);
    const at::Tensor sums = log_decays.cumsum(1);  // [H, q, N]
    const at::Tensor before = sums - log_decays;   // Of one step earlier.
    const at::Tensor decays = DecaysBetween(sums, sums, /*diagonal=*/0);
    const at::Tensor decays_before = DecaysBetween(before, sums, /*diagonal=*/-1);

    at::Tensor known = at::bmm(DecayedProducts(from, decays_before, keys), values);
    known.add_(at::bmm(from.mul(before.exp().to(at::kFloat)), state));
    // The solver takes the diagonal as 1.
    const at::Tensor moved = at::linalg_solve_triangular(
        DecayedProducts(from, decays_before, to).neg_(), known, /*upper=*/false, /*left=*/true,
        /*unitriangular=*/true);  // s [H, q, d]

    at::Tensor out = at::bmm(DecayedProducts(receptances, decays, keys), values);
    out.add_(at::bmm(DecayedProducts(receptances, decays, to), moved));
    out.add_(at::bmm(receptances.mul(sums.exp().to(at::kFloat)), state));
    y.narrow(0, first, count).copy_(out.transpose(0, 1));
    const at::Tensor to_end = decays.select(1, count - 1);  // [H, q, N]
    state = state.mul(sums.narrow(1, count - 1, 1).exp().to(at::kFloat).transpose(1, 2))
                .add_(at::bmm(keys.mul(to_end).transpose(1, 2), values))
                .add_(at::bmm(to.mul(to_end).transpose(1, 2), moved));
  }
  return y;
}

}  // namespace

absl::StatusOr<at::Tensor> RankOneScan(const RankOneScanInputs& inputs, int64_t mixer,
                                       ForwardPass& pass) {
  if (pass.Wants(mixer)) ESS_RETURN_IF_ERROR(Capture(inputs, mixer, pass));
  if (pass.EndsAfter(mixer)) return at::Tensor();
  return Run(inputs, pass);
}

}  // namespace ess::models
