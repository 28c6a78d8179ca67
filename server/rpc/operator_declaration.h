// The first message of ProfileOperators: which operator will come, checked before it comes.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "ess/v1/operators.pb.h"
#include "server/ess/measure.h"
#include "server/pipeline/operators_job.h"

namespace ess::rpc {

struct OperatorLimits {
  int64_t max_operator_bytes = int64_t{1} << 30;
  int64_t max_operator_length = 8192;
  int64_t max_operator_batch = 65536;
  int64_t max_result_bytes = int64_t{16} << 30;
  double max_reference_work = 2e12;
  std::vector<Measure> default_measures;
};

// Errors: kInvalidArgument  an unknown class or dtype, what operators::CheckDeclaration refuses, a
//         measure or selection that cannot be, or more than a limit: names field, value and limit.
absl::StatusOr<OperatorsJob> DecodeOperatorDeclaration(const v1::OperatorDeclaration& declaration,
                                                       const OperatorLimits& limits);

}  // namespace ess::rpc
