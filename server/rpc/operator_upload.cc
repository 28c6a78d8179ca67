#include "server/rpc/operator_upload.h"

#include <ATen/ATen.h>

#include <bit>
#include <cstring>
#include <string>

#include "fmt/format.h"

static_assert(std::endian::native == std::endian::little, "pieces are copied as they came");

namespace ess::rpc {

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
