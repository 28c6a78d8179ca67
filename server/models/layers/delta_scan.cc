#include "server/models/layers/delta_scan.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "server/base/status_macros.h"
#include "server/models/layers/head_scan.h"
#include "server/operators/delta_recurrence.h"

namespace ess::models {
namespace {

constexpr int64_t kChunk = 64;

absl::Status Capture(const DeltaScanInputs& inputs, int64_t mixer, ForwardPass& pass) {
  const int64_t factors = inputs.keys.size(0) * inputs.keys.size(2) * 2;
  return ForHeadGroups(inputs.head_count, factors, pass, [&](int64_t first, int64_t count) {
    const auto heads = [&](const at::Tensor& x) {
      return HeadsOf(x, inputs.head_count, first, count);
    };
    const operators::DeltaRecurrence op(heads(inputs.log_alpha).squeeze(2).exp(),
                                        heads(inputs.beta).squeeze(2), heads(inputs.keys),
                                        heads(inputs.queries));
    return pass.Accept(mixer, first, op);
  });
}

// Within a chunk S_t = g_t S_0 + sum over j <= t of gamma_tj k_j u_j^T, where g and gamma are
// products of alpha and the writes u solve a unit triangular system:
//   u_t + beta_t sum over j < t of gamma_tj (k_t . k_j) u_j = beta_t (v_t - g_t S_0^T k_t)
absl::StatusOr<at::Tensor> Run(const DeltaScanInputs& inputs, const ForwardPass& pass) {
  const int64_t length = inputs.queries.size(0);
  const int64_t heads = inputs.head_count;
  const auto options = inputs.values.options().dtype(at::kFloat);
  at::Tensor y = at::empty({length, heads, inputs.values.size(2)}, options);
  at::Tensor state = at::zeros({heads, inputs.keys.size(2), inputs.values.size(2)}, options);
  for (int64_t first = 0; first < length; first += kChunk) {
    ESS_RETURN_IF_ERROR(pass.CheckCancellation());
    const int64_t count = std::min(kChunk, length - first);
    const auto chunk = [&](const at::Tensor& x) { return ChunkOf(x, heads, first, count); };
    const at::Tensor queries = chunk(inputs.queries);  // [H, q, N]
    const at::Tensor keys = chunk(inputs.keys);        // [H, q, N]
    const at::Tensor beta = chunk(inputs.beta);        // [H, q, 1]
    const at::Tensor sums = LogGatesOf(inputs.log_alpha, heads, first, count).cumsum(1);
    const at::Tensor decays = DecaysBetween(sums, sums, /*diagonal=*/0);  // [H, q, q, 1]
    const at::Tensor since_start = sums.exp().to(at::kFloat);

    const at::Tensor overwritten = DecayedProducts(keys, decays, keys).mul_(beta);
    const at::Tensor known =
        chunk(inputs.values).sub(at::bmm(keys.mul(since_start), state)).mul_(beta);
    // The solver takes the diagonal as 1, and does not look above it.
    const at::Tensor writes = at::linalg_solve_triangular(
        overwritten, known, /*upper=*/false, /*left=*/true, /*unitriangular=*/true);  // [H, q, d]

    at::Tensor out = at::bmm(DecayedProducts(queries, decays, keys), writes);
    out.add_(at::bmm(queries.mul(since_start), state));
    y.narrow(0, first, count).copy_(out.transpose(0, 1));
    const at::Tensor to_end = decays.select(1, count - 1);  // [H, q, 1]
    state = state.mul(since_start.narrow(1, count - 1, 1))
                .add_(at::bmm(keys.mul(to_end).transpose(1, 2), writes));
  }
  return y;
}

}  // namespace

absl::StatusOr<at::Tensor> DeltaScan(const DeltaScanInputs& inputs, int64_t mixer,
                                     ForwardPass& pass) {
  if (pass.Wants(mixer)) ESS_RETURN_IF_ERROR(Capture(inputs, mixer, pass));
  if (pass.EndsAfter(mixer)) return at::Tensor();
  return Run(inputs, pass);
}

}  // namespace ess::models
