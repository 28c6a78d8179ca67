// All measures of dense heads by batched tensor operations, on the device that holds their maps.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/ess/ess_options.h"
#include "server/ess/head_ess.h"
#include "server/ess/head_measures.h"
#include "server/ess/measure.h"

namespace ess {

// The result is aligned with `heads`. Heads that the tensor route has no answer for go by the dense
// route of the host, with `work` for scratch.
//
// Errors: those of linalg::TensorSpectra. Throws what LibTorch throws.
// REQUIRES: op.dense_maps() != nullptr; no horizon; valid measures, none kCausal.
absl::StatusOr<std::vector<HeadEss>> ComputeByTensors(const operators::SequenceOperator& op,
                                                      std::span<const int64_t> heads,
                                                      std::span<const int64_t> positions,
                                                      std::span<const Measure> measures,
                                                      const EssOptions& options,
                                                      int64_t byte_budget, HeadWork& work,
                                                      const CancellationToken& cancellation);

}  // namespace ess
