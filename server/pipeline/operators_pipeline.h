// The way of operators that a caller brings: build them, and hand on their ESS group by group.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "server/base/cancellation.h"
#include "server/ess/ess_engine.h"
#include "server/operators/state_size.h"
#include "server/pipeline/layer_record.h"
#include "server/pipeline/operators_job.h"
#include "server/pipeline/stage_times.h"

namespace ess {

// Receives the answer as it is made, in this order: OnBegin, OnEss for each group of operators,
// OnSummary. A status that is not OK stops the work.
class OperatorsReceiver {
 public:
  virtual ~OperatorsReceiver() = default;
  virtual absl::Status OnBegin(const operators::StateSize& state_size) = 0;
  // `ess`: of the operators from `first` on, of the batch counted row by row. Once reduced it has
  // the shape of ValueShape, and with Reduction::kHeads it comes once, from 0 on.
  virtual absl::Status OnEss(int64_t first, const OperatorEss& ess) = 0;
  virtual absl::Status OnSummary(const LayerRecord& record) = 0;
};

// Computes one job on the calling thread and the engine's. `arguments`: aligned with the job's, not
// expanded. `stages` gains what each stage took, also on failure.
// Errors: kInvalidArgument  the class refuses its arguments, or products of them are not finite;
//         those of EssEngine::Compute and of the receiver.
// Memory: that of the operator, of the engine, and of the values of one group.
absl::Status ProfileOperators(const OperatorsJob& job, std::span<const at::Tensor> arguments,
                              const EssEngine& engine, const CancellationToken& cancellation,
                              OperatorsReceiver& receiver, StageTimes& stages);

}  // namespace ess
