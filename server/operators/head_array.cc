#include "server/operators/head_array.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "fmt/format.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/operators/feature_dtype.h"

namespace ess::operators {
namespace {

at::IntArrayRef LeadingShape(const HeadTensor& argument) {
  ESS_CHECK(argument.tensor.dim() >= argument.own_axes);
  return argument.tensor.sizes().slice(0, argument.tensor.dim() - argument.own_axes);
}

// Undoes expand() in the leading dimensions.
at::Tensor Unexpanded(const HeadTensor& argument) {
  at::Tensor tensor = argument.tensor;
  for (int64_t axis = 0; axis < tensor.dim() - argument.own_axes; ++axis) {
    if (tensor.stride(axis) == 0) tensor = tensor.narrow(axis, 0, 1);
  }
  return tensor;
}

}  // namespace

std::optional<std::vector<int64_t>> BroadcastShapes(std::span<const int64_t> a,
                                                    std::span<const int64_t> b) {
  if (a.size() < b.size()) std::swap(a, b);
  std::vector<int64_t> shape(a.begin(), a.end());
  const size_t offset = a.size() - b.size();
  for (size_t axis = 0; axis < b.size(); ++axis) {
    int64_t& size = shape[offset + axis];
    if (size == 1) {
      size = b[axis];
    } else if (b[axis] != 1 && b[axis] != size) {
      return std::nullopt;
    }
  }
  return shape;
}

std::vector<int64_t> BatchShape(std::initializer_list<HeadTensor> arguments) {
  std::vector<int64_t> batch_shape;
  for (const HeadTensor& argument : arguments) {
    const auto broadcast = BroadcastShapes(batch_shape, LeadingShape(argument));
    ESS_CHECK(broadcast.has_value());
    batch_shape = *broadcast;
  }
  return batch_shape;
}

HeadArray::HeadArray(const HeadTensor& argument, const std::vector<int64_t>& batch_shape,
                     at::ScalarType dtype)
    : feature_epsilon_(FeatureEpsilon(argument.tensor.scalar_type())) {
  ESS_CHECK(dtype == at::kComplexDouble || (dtype == at::kDouble && !argument.tensor.is_complex()));
  const at::Tensor tensor = Unexpanded(argument);
  const at::IntArrayRef leading = LeadingShape({tensor, argument.own_axes});
  const at::IntArrayRef own = tensor.sizes().slice(leading.size());

  const at::Tensor row_numbers = at::arange(c10::multiply_integers(leading), at::kLong);
  const at::Tensor rows = row_numbers.view(leading).expand(batch_shape).contiguous();
  rows_.assign(rows.const_data_ptr<int64_t>(), rows.const_data_ptr<int64_t>() + rows.numel());

  std::vector<int64_t> shape = {row_numbers.numel()};
  shape.insert(shape.end(), own.begin(), own.end());
  // A transposed argument is set in order before it is widened: half the bytes.
  values_ = tensor.resolve_conj().resolve_neg().to(at::kCPU).contiguous().to(dtype).view(shape);
}

absl::Status HeadArray::CheckFinite(std::string_view name) const {
  const at::Tensor numbers = values_.is_complex() ? at::view_as_real(values_) : values_;
  const double* begin = numbers.const_data_ptr<double>();
  const double* end = begin + numbers.numel();
  const double* bad = std::find_if_not(begin, end, [](double x) { return std::isfinite(x); });
  if (bad == end) return absl::OkStatus();
  int64_t entry = (bad - begin) / (values_.is_complex() ? 2 : 1);
  const int64_t row = entry / (values_.numel() / values_.size(0));
  std::string index;
  for (int64_t axis = values_.dim() - 1; axis >= 1; --axis) {
    const std::string number = std::to_string(entry % values_.size(axis));
    index = index.empty() ? number : number + ", " + index;
    entry /= values_.size(axis);
  }
  const int64_t head = std::find(rows_.begin(), rows_.end(), row) - rows_.begin();
  return absl::InternalError(
      fmt::format("operator of head {}: {}[{}] is {}", head, name, index, *bad));
}

absl::Status CheckAllFinite(std::initializer_list<NamedArray> arguments) {
  for (const NamedArray& argument : arguments) {
    if (argument.array == nullptr) continue;
    ESS_RETURN_IF_ERROR(argument.array->CheckFinite(argument.name));
  }
  return absl::OkStatus();
}

template <typename Scalar>
std::span<const Scalar> HeadArray::Head(int64_t head) const {
  ESS_CHECK(head >= 0 && head < head_count());
  ESS_CHECK(values_.is_complex() == (sizeof(Scalar) > sizeof(double)));
  const int64_t count = values_.numel() / values_.size(0);
  return {static_cast<const Scalar*>(values_.const_data_ptr()) + rows_[head] * count,
          static_cast<size_t>(count)};
}

template std::span<const double> HeadArray::Head(int64_t) const;
template std::span<const std::complex<double>> HeadArray::Head(int64_t) const;

at::Tensor HeadArray::AllHeads() const { return PerHead(values_); }

at::Tensor HeadArray::At(int64_t index) const { return PerHead(values_.select(1, index)); }

at::Tensor HeadArray::PerHead(const at::Tensor& of) const {
  if (of.size(0) == head_count()) return of;
  return of.index_select(0, at::tensor(rows_, at::kLong));
}

}  // namespace ess::operators
