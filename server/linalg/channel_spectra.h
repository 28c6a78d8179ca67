// Singular values of every past-to-future block of every channel of a selective scan: thousands of
// operators with a small state each, one in every lane of a vector.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/linalg/channel_counts.h"
#include "server/linalg/channel_forms.h"
#include "server/linalg/channel_group.h"
#include "server/linalg/channel_recurrence.h"

namespace ess::linalg {

// What is asked of a group of channels. Everything in one request shares its preparation.
struct ChannelRequest {
  // [T, lanes]: N_i(tau) of each lane for its own tau >= 0.
  std::vector<double> tolerances;
  std::vector<double> fractions;  // [F]: N_i(f sigma_1(H_i)) for f in (0, 1).
  bool spectral_norms = false;    // sigma_1(H_i).
  bool entropies = false;         // exp(-sum p ln p), p = sigma / sum sigma; 0 for H_i = 0.
  // max_i sigma_1(H_i), proved to this accuracy (block_spectra.h); 0: not asked for.
  double max_norm_accuracy = 0;
};

// The answers; what was not asked for is empty. Lanes without a channel hold zeros.
struct ChannelAnswers {
  std::vector<uint8_t> tolerance_counts;  // [T, L, lanes]: singular values above tau (1 + 1e-11).
  std::vector<uint8_t> fraction_counts;   // [F, L, lanes]
  std::vector<double> spectral_norms;     // [L, lanes]; relative error below 1e-11.
  std::vector<double> entropies;          // [L, lanes]
  std::vector<double> entropy_errors;     // [L, lanes]: estimate of the relative error.
  // [lanes]: as BlockSpectra::MaxSpectralNorm; 0 for L = 1 and for a zero channel.
  std::vector<double> max_spectral_norms;
  // Windows of 8 positions, times tolerances, whose elimination was not stable in some lane and
  // that were counted from bidiagonal forms instead.
  int64_t recounted_windows = 0;
};

// The route for ChannelRecurrence, one group of lanes() channels at a time: Load it, then make any
// of the other calls, in any order and any number of times; asking for everything in one Compute is
// cheapest. A channel's answers depend neither on the channels beside it nor on other calls.
// docs/ess.md tells the method.
//
// Scratch: `scratch_bytes` and less than 6 MiB more, whatever the number of channels. When L is too
// long for that (L > 16000 for N = 16 and 8 lanes), every call reads the recurrence twice.
// Thread-compatible.
class ChannelSpectra {
 public:
  static constexpr int64_t kScratchBytes = int64_t{40} << 20;

  explicit ChannelSpectra(int64_t scratch_bytes = kScratchBytes);
  ChannelSpectra(const ChannelSpectra&) = delete;
  ChannelSpectra& operator=(const ChannelSpectra&) = delete;

  int64_t lanes() const { return group_.lanes(); }
  // Of the scratch that is kept from one call to the next; answers come on top.
  int64_t memory_bytes() const;

  // Takes channels [channel, channel + lanes()); those from D on are empty. The recurrence stays as
  // it is until the next Load. REQUIRES: 1 <= N <= 32, L >= 1, finite numbers. Scale does not
  // matter, but what is below 1e-120 of a channel's largest may count as 0.
  // Errors of all calls: kCancelled, kDeadlineExceeded  within milliseconds of the token's change;
  //                      after a Load that failed, only Load may be called.
  absl::Status Load(const ChannelRecurrence& recurrence, int64_t channel,
                    const CancellationToken& cancellation);

  // A singular value within max(1e-9, 1e-16 (sigma_1 / tau)^2) relative of a tolerance above
  // 1e-7 sigma_1(H_i), or within 1e-14 sigma_1(H_i) of any tolerance, may be on either side of it.
  absl::StatusOr<ChannelAnswers> Compute(const ChannelRequest& request,
                                         const CancellationToken& cancellation);

  // Compute's max_spectral_norms alone. Together with tolerances they cost less.
  absl::StatusOr<std::vector<double>> MaxSpectralNorms(double accuracy,
                                                       const CancellationToken& cancellation);

  // [L, lanes]: ||H_i||_F, from sums of squares only.
  absl::StatusOr<std::vector<double>> FrobeniusNorms(const CancellationToken& cancellation);

  // Singular values of one block of one lane in descending order, min(N, i, L - i) of them: all
  // others are 0. Right to about 1e-14 of the largest.
  absl::StatusOr<std::vector<double>> SingularValues(int64_t lane, int64_t position,
                                                     const CancellationToken& cancellation);

  // [L, lanes]: numerical rank of the past factor (BlockSpectra::CausalRanks).
  absl::StatusOr<std::vector<int32_t>> CausalRanks(const CancellationToken& cancellation);

 private:
  // max_i sigma_1(H_i), in the units of the group, from upper bounds of its square [L, lanes]: one
  // position's sigma_1, and the proof by counts that no other position has a larger one.
  absl::StatusOr<std::vector<double>> LargestNorms(std::vector<double> bounds, double accuracy,
                                                   WorkMeter& meter);
  // sigma_1 of each lane at its own position, in the units of the group.
  absl::StatusOr<std::vector<double>> LargestAt(const std::vector<int64_t>& positions,
                                                WorkMeter& meter);
  // Answers of one window.
  void CountByElimination(const ChannelRequest& request, int64_t first_position,
                          const ChannelWindow& window, ChannelAnswers& answers);
  void AnswerFromForms(const ChannelRequest& request, int64_t first_position,
                       const ChannelWindow& window, ChannelAnswers& answers);
  void AnswerPosition(const ChannelRequest& request, int64_t position, int64_t offset,
                      ChannelAnswers& answers);
  // A request's tolerance in the units of the group, moved up a little against ties.
  double ScaledTolerance(double tolerance, int64_t lane) const;
  int64_t FormsWork() const;

  ChannelGroup group_;
  ChannelForms forms_{group_};
  ChannelCounter counter_{group_, forms_};
  LaneMemory core_;
  LaneMemory values_;      // [8]
  LaneMemory thresholds_;  // [1]
  LaneMemory squares_;     // The bidiagonal form of core_.
};

}  // namespace ess::linalg
