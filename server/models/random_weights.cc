#include "server/models/random_weights.h"

#include <ATen/ATen.h>
#include <fnmatch.h>

#include <algorithm>
#include <limits>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "server/base/available_memory.h"
#include "server/base/page_tensor.h"
#include "server/base/status_macros.h"
#include "server/base/torch_status.h"

namespace ess::models {
namespace {

constexpr int64_t kFloatBytes = sizeof(float);

absl::StatusOr<Distribution> FindDistribution(const InitialWeights& initial,
                                              const std::string& name, size_t axes) {
  for (const InitialRule& rule : initial.rules) {
    if (fnmatch(rule.names.c_str(), name.c_str(), /*flags=*/0) == 0) return rule.distribution;
  }
  if (name.ends_with(".bias")) return Constant(0);
  if (name.ends_with(".weight")) {
    return axes == 1 ? Constant(initial.norm_weight) : Normal(initial.standard_deviation);
  }
  return absl::InternalError(fmt::format("no rule says how tensor '{}' starts", name));
}

// Of as many numbers; the largest number where there are more.
int64_t BytesOf(at::IntArrayRef shape, int64_t bytes_per_number) {
  int64_t bytes = bytes_per_number;
  for (const int64_t size : shape) {
    if (__builtin_mul_overflow(bytes, size, &bytes)) return std::numeric_limits<int64_t>::max();
  }
  return bytes;
}

absl::Status CheckBytes(const std::string& name, at::IntArrayRef shape, int64_t bytes,
                        int64_t available) {
  if (bytes <= available) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      fmt::format("tensor '{}' [{}] takes {} bytes to make; the memory that is left has {}", name,
                  fmt::join(shape, ", "), bytes, available));
}

// Linux grants memory that it does not have.
absl::Status CheckFits(const std::string& name, at::IntArrayRef shape, int64_t scratch_bytes) {
  constexpr int64_t kSpareBytes = int64_t{256} << 20;
  return CheckBytes(name, shape, BytesOf(shape, kFloatBytes + scratch_bytes),
                    std::max<int64_t>(AvailableMemoryBytes() - kSpareBytes, 0));
}

}  // namespace

absl::StatusOr<at::Tensor> RandomWeights::Take(std::string_view name, at::IntArrayRef shape) {
  ESS_ASSIGN_OR_RETURN(const Distribution distribution,
                       FindDistribution(initial_, std::string(name), shape.size()));
  ESS_RETURN_IF_ERROR(CheckFits(std::string(name), shape, distribution.scratch_bytes));
  at::Tensor weight;
  ESS_RETURN_IF_ERROR(CatchTorch(fmt::format("tensor '{}'", name), [&] {
    weight = EmptyInPages(shape, at::kFloat);
    distribution.fill(RandomNumbers(seed_, name), weight);
    weight = weight.to(device_);
    return absl::OkStatus();
  }));
  totals_.parameters += weight.numel();
  totals_.bytes += static_cast<int64_t>(weight.nbytes());
  return weight;
}

absl::StatusOr<at::Tensor> WeightShapes::Take(std::string_view name, at::IntArrayRef shape) {
  // A config may ask for anything; what is over is refused before the sum overflows.
  constexpr int64_t kMaxBytes = int64_t{1} << 60;
  const int64_t limit = device_.is_meta() ? kMaxBytes : AvailableMemoryBytes();
  const int64_t bytes = BytesOf(shape, kFloatBytes);
  ESS_RETURN_IF_ERROR(CheckBytes(std::string(name), shape, bytes, limit - totals_.bytes));
  totals_.bytes += bytes;
  const auto options = at::TensorOptions().dtype(at::kFloat).device(device_);
  if (device_.is_meta()) return at::empty(shape, options);
  return at::zeros({1}, options).expand(shape);
}

}  // namespace ess::models
