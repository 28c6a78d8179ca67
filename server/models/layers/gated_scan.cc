#include "server/models/layers/gated_scan.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "server/base/status_macros.h"
#include "server/models/layers/head_scan.h"
#include "server/operators/diagonal_recurrence.h"

namespace ess::models {
namespace {

// A gate for each state makes chunks of q^2 N numbers for each head.
constexpr int64_t kChunk = 64;
constexpr int64_t kVectorGateChunk = 16;

// a_t = gates, b_t = k_t, c_t = q_t.
absl::Status Capture(const GatedScanInputs& inputs, int64_t mixer, ForwardPass& pass) {
  const int64_t factors = inputs.keys.size(0) * inputs.keys.size(2) * 3;
  return ForHeadGroups(inputs.head_count, factors, pass, [&](int64_t first, int64_t count) {
    const auto heads = [&](const at::Tensor& x) {
      return HeadsOf(x, inputs.head_count, first, count);
    };
    const operators::DiagonalRecurrence op(heads(inputs.log_gates).exp(), heads(inputs.keys),
                                           heads(inputs.queries), inputs.read_before);
    return pass.Accept(mixer, first, op);
  });
}

absl::StatusOr<at::Tensor> Run(const GatedScanInputs& inputs, const ForwardPass& pass) {
  const int64_t length = inputs.queries.size(0);
  const int64_t heads = inputs.head_count;
  const int64_t size = inputs.log_gates.size(2) == 1 ? kChunk : kVectorGateChunk;
  const auto options = inputs.values.options().dtype(at::kFloat);
  at::Tensor y = at::empty({length, heads, inputs.values.size(2)}, options);
  at::Tensor state = at::zeros({heads, inputs.keys.size(2), inputs.values.size(2)}, options);
  for (int64_t first = 0; first < length; first += size) {
    ESS_RETURN_IF_ERROR(pass.CheckCancellation());
    const int64_t count = std::min(size, length - first);
    const auto chunk = [&](const at::Tensor& x) { return ChunkOf(x, heads, first, count); };
    const at::Tensor queries = chunk(inputs.queries);  // [H, q, N]
    const at::Tensor keys = chunk(inputs.keys);        // [H, q, N]
    const at::Tensor values = chunk(inputs.values);    // [H, q, d]
    const at::Tensor log_gates = LogGatesOf(inputs.log_gates, heads, first, count);
    const at::Tensor sums = log_gates.cumsum(1);  // [H, q, N or 1]
    // What the state that position t reads has gone through.
    const at::Tensor read = inputs.read_before ? sums - log_gates : sums;
    const at::Tensor scores = DecayedProducts(
        queries, DecaysBetween(read, sums, inputs.read_before ? -1 : 0), keys);  // [H, q, q]
    // Of this chunk's inputs, and of the state before them.
    at::Tensor out = at::bmm(scores, values);
    out.add_(at::bmm(queries.mul(read.exp().to(at::kFloat)), state));
    y.narrow(0, first, count).copy_(out.transpose(0, 1));
    const at::Tensor whole = sums.narrow(1, count - 1, 1);  // [H, 1, N or 1]
    const at::Tensor to_end = (whole - sums).exp().to(at::kFloat);
    state = state.mul(whole.exp().to(at::kFloat).transpose(1, 2))
                .add_(at::bmm(keys.mul(to_end).transpose(1, 2), values));
  }
  return y;
}

}  // namespace

absl::StatusOr<at::Tensor> GatedScan(const GatedScanInputs& inputs, int64_t mixer,
                                     ForwardPass& pass) {
  if (pass.Wants(mixer)) ESS_RETURN_IF_ERROR(Capture(inputs, mixer, pass));
  if (pass.EndsAfter(mixer)) return at::Tensor();
  return Run(inputs, pass);
}

}  // namespace ess::models
