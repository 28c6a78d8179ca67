#include "server/rpc/operator_upload.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "server/base/status_macros.h"

static_assert(std::endian::native == std::endian::little, "pieces are copied as they came");

namespace ess::rpc {
namespace {

// "[0, 3, 1]": where the flat element `index` of a tensor of this shape is.
std::string IndexText(std::vector<int64_t> shape, int64_t index) {
  for (size_t d = shape.size(); d-- > 0;) {
    const int64_t size = shape[d];
    shape[d] = index % size;
    index /= size;
  }
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

// Index of the first number that is not finite, or -1. Complex numbers are two.
template <typename Real>
int64_t FindNonfinite(const char* bytes, int64_t count) {
  const Real* numbers = reinterpret_cast<const Real*>(bytes);
  Real sum = 0;  // Of zeros, unless one is not finite.
  for (int64_t i = 0; i < count; ++i) sum += numbers[i] * 0;
  if (sum == 0) return -1;
  return std::find_if(numbers, numbers + count, [](Real x) { return !std::isfinite(x); }) - numbers;
}

// Index of the first non-zero above the diagonal of the [.., length, length] elements from `first`
// on, or -1.
template <typename Real>
int64_t FindAboveDiagonal(const char* bytes, int64_t count, int64_t first, int64_t length) {
  const Real* numbers = reinterpret_cast<const Real*>(bytes);
  for (int64_t i = 0; i < count;) {
    const int64_t column = (first + i) % length;
    const int64_t row = (first + i) / length % length;
    const int64_t end = std::min(i + length - column, count);
    const int64_t begin = std::min(i + std::max<int64_t>(row + 1 - column, 0), end);
    for (int64_t x = begin; x < end; ++x) {
      if (numbers[x] != 0) return x;
    }
    i = end;
  }
  return -1;
}

template <typename Real>
absl::Status CheckValues(const OperatorsJob& job, const operators::ArgumentDeclaration& argument,
                         const std::string& bytes, int64_t first, int64_t count) {
  const int64_t parts = c10::isComplexType(argument.dtype) ? 2 : 1;
  const auto value = [&](int64_t i) { return reinterpret_cast<const Real*>(bytes.data())[i]; };
  if (const int64_t i = FindNonfinite<Real>(bytes.data(), count * parts); i >= 0) {
    return absl::InvalidArgumentError(
        fmt::format("data: element {} of argument '{}' is {}; values are finite",
                    IndexText(argument.shape, first + i / parts), argument.name, value(i)));
  }
  if (job.class_name != "DenseOperator") return absl::OkStatus();
  if (const int64_t i = FindAboveDiagonal<Real>(bytes.data(), count, first, job.shape.length);
      i >= 0) {
    return absl::InvalidArgumentError(
        fmt::format("data: element {} of argument '{}' is {}; T is causal: 0 above the diagonal",
                    IndexText(argument.shape, first + i), argument.name, value(i)));
  }
  return absl::OkStatus();
}

}  // namespace

OperatorUpload::OperatorUpload(const OperatorsJob& job) : job_(job) {
  for (const operators::ArgumentDeclaration& argument : job.arguments) {
    arguments_.push_back(at::empty(argument.shape, argument.dtype));
  }
}

absl::Status OperatorUpload::Add(const v1::OperatorData& data) {
  if (current_ == job_.arguments.size()) {
    return absl::InvalidArgumentError(
        fmt::format("data.argument: all {} arguments are complete, and argument {} goes on",
                    job_.arguments.size(), data.argument()));
  }
  const operators::ArgumentDeclaration& argument = job_.arguments[current_];
  const int64_t total = ElementCount(argument);
  if (data.argument() != static_cast<int64_t>(current_)) {
    return absl::InvalidArgumentError(
        fmt::format("data.argument: {}; argument {} ('{}') comes next and has {} of {} elements",
                    data.argument(), current_, argument.name, received_, total));
  }
  if (data.first_element() != received_) {
    return absl::InvalidArgumentError(
        fmt::format("data.first_element: {} of argument '{}'; {} elements have come, so {} is next",
                    data.first_element(), argument.name, received_, received_));
  }
  const std::string& bytes = data.values();
  const size_t element_size = c10::elementSize(argument.dtype);
  if (bytes.empty() || bytes.size() % element_size != 0) {
    return absl::InvalidArgumentError(fmt::format(
        "data.values: {} bytes of argument '{}'; whole elements of {} bytes, at least 1",
        bytes.size(), argument.name, element_size));
  }
  const int64_t count = static_cast<int64_t>(bytes.size() / element_size);
  if (count > total - received_) {
    return absl::InvalidArgumentError(
        fmt::format("data.values: argument '{}' would have {} elements; it was declared with {}",
                    argument.name, received_ + count, total));
  }
  const bool single = c10::toRealValueType(argument.dtype) == c10::ScalarType::Float;
  ESS_RETURN_IF_ERROR(single ? CheckValues<float>(job_, argument, bytes, received_, count)
                             : CheckValues<double>(job_, argument, bytes, received_, count));
  std::memcpy(static_cast<char*>(arguments_[current_].mutable_data_ptr()) +
                  received_ * static_cast<int64_t>(element_size),
              bytes.data(), bytes.size());
  received_ += count;
  if (received_ == total) {
    ++current_;
    received_ = 0;
  }
  return absl::OkStatus();
}

absl::Status OperatorUpload::CheckComplete() const {
  if (current_ == job_.arguments.size()) return absl::OkStatus();
  const operators::ArgumentDeclaration& argument = job_.arguments[current_];
  return absl::InvalidArgumentError(
      fmt::format("data: the stream ended with {} of {} elements of argument '{}'", received_,
                  ElementCount(argument), argument.name));
}

}  // namespace ess::rpc
