#include "server/linalg/tensor_chunk.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "server/base/log.h"
#include "server/base/status_macros.h"

namespace ess::linalg {

std::vector<double> OnHost(const at::Tensor& tensor) {
  const at::Tensor host = tensor.to(at::kCPU, at::kDouble).contiguous();
  const double* const numbers = host.const_data_ptr<double>();
  return {numbers, numbers + host.numel()};
}

at::Tensor TensorChunk::OnDevice(std::span<const double> numbers, at::IntArrayRef shape) const {
  return at::from_blob(const_cast<double*>(numbers.data()), shape, at::kDouble)
      .to(matrices().device(), at::kDouble, /*non_blocking=*/false, /*copy=*/true);
}

absl::StatusOr<ShiftSums> TensorChunk::Run(std::span<const double> shifts, PivotSum sum,
                                           const CancellationToken& cancellation) const {
  const int64_t count = static_cast<int64_t>(shifts.size()) / heads();
  ESS_CHECK(count * heads() == static_cast<int64_t>(shifts.size()));
  ShiftSums result{.shifts = count, .length = length(), .sums = {}, .growth = {}, .pivots = 0};
  result.sums.resize(heads() * count * length());
  result.growth.resize(heads() * count);
  const at::Tensor rows = OnDevice(shifts, {heads(), count});
  const double sign = sum == PivotSum::kLogAbs ? -1 : 1;
  for (int64_t first = 0; first < count; first += shifts_at_once_) {
    const int64_t last = std::min(count, first + shifts_at_once_);
    const at::Tensor some = rows.slice(1, first, last);
    TensorTreeSums sums;
    ESS_RETURN_IF_ERROR(tree_.Run({.rows = some, .columns = sign * some}, sum, cancellation, sums));
    const std::vector<double> host_sums = OnHost(sums.sums);      // [H, last - first, L]
    const std::vector<double> host_growth = OnHost(sums.growth);  // [H, last - first]
    const int64_t width = last - first;
    for (int64_t head = 0; head < heads(); ++head) {
      std::copy_n(host_sums.begin() + head * width * length(), width * length(),
                  result.sums.begin() + (head * count + first) * length());
      std::copy_n(host_growth.begin() + head * width, width,
                  result.growth.begin() + head * count + first);
    }
    result.pivots = sums.pivots;
  }
  return result;
}

TensorChunk TensorChunk::Select(const std::vector<int64_t>& heads) const {
  if (static_cast<int64_t>(heads.size()) == tree_.heads()) return *this;
  return {tree_.Select(at::tensor(heads, at::kLong).to(matrices().device())), shifts_at_once_};
}

}  // namespace ess::linalg
