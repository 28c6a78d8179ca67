#include "server/models/random_weights.h"

#include <ATen/ATen.h>
#include <fnmatch.h>

#include <algorithm>
#include <limits>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "server/base/available_memory.h"
#include "server/base/status_macros.h"
#include "server/base/torch_status.h"

namespace ess::models {
namespace {

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

// A checkpoint's file bounds what a load takes; a config alone may ask for anything, and Linux
// grants memory that it does not have.
absl::Status CheckFits(const std::string& name, at::IntArrayRef shape, int64_t scratch_bytes) {
  constexpr int64_t kSpareBytes = int64_t{256} << 20;
  const int64_t available = std::max<int64_t>(AvailableMemoryBytes() - kSpareBytes, 0);
  const int64_t bytes = BytesOf(shape, static_cast<int64_t>(sizeof(float)) + scratch_bytes);
  if (bytes <= available) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      fmt::format("tensor '{}' [{}] takes {} bytes to make; the memory that is left has {}", name,
                  fmt::join(shape, ", "), bytes, available));
}

}  // namespace

absl::StatusOr<at::Tensor> RandomWeights::Take(std::string_view name, at::IntArrayRef shape) {
  ESS_ASSIGN_OR_RETURN(const Distribution distribution,
                       FindDistribution(initial_, std::string(name), shape.size()));
  ESS_RETURN_IF_ERROR(CheckFits(std::string(name), shape, distribution.scratch_bytes));
  at::Tensor weight;
  ESS_RETURN_IF_ERROR(CatchTorch(fmt::format("tensor '{}'", name), [&] {
    weight = at::empty(shape, at::kFloat);
    distribution.fill(RandomNumbers(seed_, name), weight);
    weight = weight.to(device_);
    return absl::OkStatus();
  }));
  totals_.parameters += weight.numel();
  totals_.bytes += static_cast<int64_t>(weight.nbytes());
  return weight;
}

}  // namespace ess::models
