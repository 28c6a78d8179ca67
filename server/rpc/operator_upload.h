// The data of ProfileOperators: pieces in, the declared arguments out.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "ess/v1/operators.pb.h"
#include "server/pipeline/operators_job.h"

namespace ess::rpc {

// Not thread-safe. Memory is touched as the data comes, so that a declaration alone costs nothing.
class OperatorUpload {
 public:
  // `job` outlives this. Throws what LibTorch's allocator throws.
  explicit OperatorUpload(const OperatorsJob& job);

  // Takes the next piece.
  // Errors: kInvalidArgument  out of order, overlapping, beyond the end or not whole elements:
  // names
  //         the argument and what was expected.
  absl::Status Add(const v1::OperatorData& data);

  // Errors: kInvalidArgument  arguments are missing or not complete.
  absl::Status CheckComplete() const;

  // Aligned with the job's arguments, of the declared dtypes and shapes, contiguous.
  std::span<const at::Tensor> arguments() const { return arguments_; }

 private:
  const OperatorsJob& job_;
  std::vector<at::Tensor> arguments_;
  size_t current_ = 0;    // The argument that is coming in; all before it are complete.
  int64_t received_ = 0;  // Its elements that have come.
};

}  // namespace ess::rpc
