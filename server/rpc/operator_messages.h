// The answer messages of ProfileOperators, each at most 1 MiB.
#pragma once

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "ess/v1/operators.pb.h"
#include "server/ess/ess_engine.h"
#include "server/operators/state_size.h"
#include "server/pipeline/layer_record.h"
#include "server/pipeline/operators_job.h"

namespace ess::rpc {

// Sends one message; an error ends the call.
using OperatorsWriter = absl::FunctionRef<absl::Status(v1::ProfileOperatorsResponse message)>;

// Errors: kInvalidArgument  a selection so scattered that the header exceeds 1 MiB.
absl::Status WriteOperatorsHeader(const OperatorsJob& job, const operators::StateSize& state_size,
                                  OperatorsWriter write);

// `first` and `ess`: as OperatorsReceiver::OnEss.
absl::Status WriteOperatorsEss(const OperatorsJob& job, int64_t first, const OperatorEss& ess,
                               OperatorsWriter write);

absl::Status WriteOperatorsSummary(const LayerRecord& record, double seconds,
                                   OperatorsWriter write);

}  // namespace ess::rpc
