// All measures of a group of channels of a selective scan, one channel in each vector lane, on one
// thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/ess/ess_options.h"
#include "server/ess/head_measures.h"
#include "server/ess/measure.h"
#include "server/linalg/channel_spectra.h"

namespace ess::operators {
class SequenceOperator;
}

namespace ess {

// `heads`: ascending, within one group of spectra.lanes() channels that starts at a multiple of it.
// The result is aligned with them.
//
// Errors: kInternal  an operator that overflows; kCancelled, kDeadlineExceeded.
// REQUIRES: op.channel_recurrence() != nullptr; no horizon; valid measures.
absl::StatusOr<std::vector<HeadEss>> ComputeChannels(const operators::SequenceOperator& op,
                                                     std::span<const int64_t> heads,
                                                     std::span<const int64_t> positions,
                                                     std::span<const Measure> measures,
                                                     const EssOptions& options,
                                                     linalg::ChannelSpectra& spectra,
                                                     const CancellationToken& cancellation);

}  // namespace ess
