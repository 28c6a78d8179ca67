// All measures of one head of an operator, on one thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/ess/ess_options.h"
#include "server/ess/head_measures.h"
#include "server/ess/measure.h"
#include "server/ess/route.h"
#include "server/linalg/dense_spectra.h"

namespace ess::operators {
class SequenceOperator;
}

namespace ess {

// One thread's scratch.
struct HeadWork {
  std::vector<double>
      matrix;  // T of one head, [L, L]; in units of dense.scale() once loaded there.
  linalg::DenseSpectra dense;
};

// Takes the main route that it is given, and an SVD where that route has no answer.
//
// Errors: kInternal  an entry is not finite; kCancelled, kDeadlineExceeded.
// Throws what LibTorch and the allocator throw.
// REQUIRES: the operator has that route, the dense one with a horizon; measures are valid; kCausal
// only of a recurrence.
absl::StatusOr<HeadEss> ComputeHead(const operators::SequenceOperator& op, int64_t head,
                                    std::span<const int64_t> positions,
                                    std::span<const Measure> measures, const EssOptions& options,
                                    Route route, HeadWork& work,
                                    const CancellationToken& cancellation);

}  // namespace ess
