#include "server/models/layers/selective_scan.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <limits>
#include <numbers>

#include "server/base/status_macros.h"
#include "server/linalg/selective_scan_run.h"

namespace ess::models {
namespace {

constexpr int64_t kChunk = 64;

// The gates between two positions of a chunk, exp(sum over (j, i] of log_gates): [H, q, q], 0 above
// the diagonal. log_gates [H, q]. Sums and not differences of sums: nothing cancels.
at::Tensor GatesBetween(const at::Tensor& log_gates) {
  const int64_t size = log_gates.size(1);
  // [H, i, j]: log_gates[i] where i > j, summed over i.
  at::Tensor sums = log_gates.unsqueeze(2).expand({-1, -1, size}).tril(-1).cumsum(1);
  const at::Tensor above =
      at::ones({size, size}, log_gates.options().dtype(at::kBool)).triu(/*diagonal=*/1);
  return sums.masked_fill_(above, -std::numeric_limits<double>::infinity()).exp_();
}

// [q, G, N] => [H, q, N]
at::Tensor OfHeads(const at::Tensor& groups, int64_t heads) {
  return groups.transpose(0, 1).repeat_interleave(heads / groups.size(1), 0);
}

// [.., D] => [.., G, 16], zeros after the last channel.
at::Tensor InGroups(const at::Tensor& x) {
  const int64_t channels = x.size(1);
  const int64_t groups = (channels + linalg::kScanGroup - 1) / linalg::kScanGroup;
  at::Tensor padded = x.to(at::kFloat);
  if (channels % linalg::kScanGroup != 0) {
    padded = at::constant_pad_nd(padded, {0, groups * linalg::kScanGroup - channels});
  }
  return padded.contiguous().view({x.size(0), groups, linalg::kScanGroup});
}

absl::StatusOr<at::Tensor> RunScanOnCpu(const ScanInputs& inputs, const ForwardPass& pass) {
  const int64_t length = inputs.x.size(0);
  const int64_t channels = inputs.x.size(1);
  const at::Tensor x = InGroups(inputs.x);          // [L, G, 16]
  const at::Tensor delta = InGroups(inputs.delta);  // [L, G, 16]
  const at::Tensor rates =                          // [G, N, 16]
      InGroups(inputs.A.t()).transpose(0, 1).contiguous().mul_(std::numbers::log2e);
  const at::Tensor B = inputs.B.to(at::kFloat).contiguous();
  const at::Tensor C = inputs.C.to(at::kFloat).contiguous();
  at::Tensor memory = at::zeros_like(rates);
  at::Tensor y = at::empty_like(x);
  const linalg::SelectiveScanArrays arrays = {.groups = x.size(1),
                                              .states = rates.size(1),
                                              .rates = rates.const_data_ptr<float>(),
                                              .memory = memory.mutable_data_ptr<float>(),
                                              .x = x.const_data_ptr<float>(),
                                              .delta = delta.const_data_ptr<float>(),
                                              .B = B.const_data_ptr<float>(),
                                              .C = C.const_data_ptr<float>(),
                                              .y = y.mutable_data_ptr<float>()};
  for (int64_t first = 0; first < length; first += kChunk) {
    ESS_RETURN_IF_ERROR(pass.CheckCancellation());
    const int64_t end = std::min(first + kChunk, length);
    at::parallel_for(0, arrays.groups, /*grain_size=*/1, [&](int64_t begin, int64_t stop) {
      for (int64_t group = begin; group < stop; ++group)
        linalg::ScanGroup(arrays, group, first, end);
    });
  }
  return y.view({length, -1}).narrow(1, 0, channels).contiguous();
}

// On any device; what the kernel of a CPU is compared with.
absl::StatusOr<at::Tensor> RunScanByTensors(const ScanInputs& inputs, const ForwardPass& pass) {
  const int64_t length = inputs.x.size(0);
  at::Tensor y = at::empty(inputs.delta.sizes(), inputs.delta.options());
  at::Tensor state = at::zeros_like(inputs.A);  // [D, N]
  for (int64_t first = 0; first < length; first += kChunk) {
    ESS_RETURN_IF_ERROR(pass.CheckCancellation());
    const int64_t count = std::min(kChunk, length - first);
    const auto chunk = [&](const at::Tensor& all) { return all.narrow(0, first, count); };
    const at::Tensor delta = chunk(inputs.delta).unsqueeze(2);  // [q, D, 1]
    const at::Tensor gates = delta.mul(inputs.A).exp_();        // [q, D, N]
    // What enters the state; then the states themselves.
    at::Tensor states = delta.mul(chunk(inputs.x).to(at::kFloat).unsqueeze(2))
                            .mul(chunk(inputs.B).to(at::kFloat).unsqueeze(1));
    for (int64_t t = 0; t < count; ++t) {
      at::Tensor now = states.select(0, t);
      now.addcmul_(t == 0 ? state : states.select(0, t - 1), gates.select(0, t));
    }
    state = states.select(0, count - 1).clone();
    // [q, D, N] @ [q, N, 1] => [q, D]
    chunk(y).copy_(at::bmm(states, chunk(inputs.C).to(at::kFloat).unsqueeze(2)).squeeze(2));
  }
  return y;
}

}  // namespace

absl::StatusOr<at::Tensor> RunSelectiveScan(const ScanInputs& inputs, const ForwardPass& pass) {
  return inputs.x.is_cpu() ? RunScanOnCpu(inputs, pass) : RunScanByTensors(inputs, pass);
}

absl::StatusOr<at::Tensor> RunHeadScan(const HeadScanInputs& inputs, const ForwardPass& pass) {
  const int64_t length = inputs.x.size(0);
  const int64_t heads = inputs.x.size(1);
  at::Tensor y = at::empty(inputs.x.sizes(), inputs.delta.options());
  at::Tensor state =
      at::zeros({heads, inputs.B.size(2), inputs.x.size(2)}, inputs.delta.options());  // [H, N, d]
  for (int64_t first = 0; first < length; first += kChunk) {
    ESS_RETURN_IF_ERROR(pass.CheckCancellation());
    const int64_t count = std::min(kChunk, length - first);
    const auto chunk = [&](const at::Tensor& all) {
      return all.narrow(0, first, count).to(at::kFloat);
    };
    const at::Tensor delta = chunk(inputs.delta).t();               // [H, q]
    const at::Tensor log_gates = delta.mul(inputs.A.unsqueeze(1));  // [H, q]
    const at::Tensor between = GatesBetween(log_gates);             // [H, q, q]
    const at::Tensor since_start = log_gates.cumsum(1).exp_();      // [H, q]
    const at::Tensor to_end = between.select(1, count - 1);         // [H, q]
    const at::Tensor B = OfHeads(chunk(inputs.B), heads);           // [H, q, N]
    const at::Tensor C = OfHeads(chunk(inputs.C), heads);           // [H, q, N]
    const at::Tensor x =                                            // [H, q, d]
        chunk(inputs.x).transpose(0, 1).mul(delta.unsqueeze(2));
    // Of this chunk's inputs, and of the state before them.
    at::Tensor out = at::bmm(at::bmm(C, B.transpose(1, 2)).mul_(between), x);
    out.add_(at::bmm(C.mul(since_start.unsqueeze(2)), state));
    y.narrow(0, first, count).copy_(out.transpose(0, 1));
    state = state.mul(since_start.narrow(1, count - 1, 1).unsqueeze(2))
                .add_(at::bmm(B.mul(to_end.unsqueeze(2)).transpose(1, 2), x));
  }
  return y;
}

}  // namespace ess::models
