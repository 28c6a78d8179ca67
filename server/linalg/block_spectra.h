// What ESS asks of the singular values of every past-to-future block H_i = T[i:, :i] of one
// operator. Each fast route is one implementation; docs/ess.md tells them.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/cancellation.h"

namespace ess::linalg {

// How closely max_i sigma_1(H_i) is proved, relative to it. Counts above a share of it need it
// exactly. A noise floor and what guards a count need its magnitude, and that costs much less:
// along a ridge of nearly equal blocks no exact maximum has to be found.
inline constexpr double kExactNorm = 1e-10;
inline constexpr double kNormMagnitude = 1e-3;

// Everything in one request shares its preparation.
struct SpectrumRequest {
  std::vector<double> tolerances;  // N_i(tau) for each tau > 0.
  std::vector<double> fractions;   // N_i(f sigma_1(H_i)) for each f in (0, 1).
  bool spectral_norms = false;     // sigma_1(H_i).
  bool entropies = false;          // exp(-sum p ln p), p = sigma / sum sigma; 0 for H_i = 0.
};

// Counts of singular values above tau (1 + 1e-11), for each position.
struct PositionCounts {
  std::vector<int32_t> counts;  // [L]; 0 at position 0.
  // [L], or empty when there is none: 1 where the pivots were not stable and the count may be
  // wrong.
  std::vector<uint8_t> doubtful;
};

struct Spectrum {
  std::vector<PositionCounts> tolerance_counts;  // As SpectrumRequest::tolerances.
  std::vector<PositionCounts> fraction_counts;   // As SpectrumRequest::fractions.
  std::vector<double> spectral_norms;            // [L] if asked for; relative error below 1e-11.
  std::vector<double> entropies;                 // [L] if asked for.
  std::vector<double> entropy_errors;            // [L]: estimate of the relative error.
};

// One operator, in its own units: entries of 1e150 or 1e-150 must not hurt. Position 0 has an empty
// block: every answer there is 0. The same operator gives the same bits every time.
// Thread-compatible.
class BlockSpectra {
 public:
  virtual ~BlockSpectra() = default;

  virtual int64_t length() const = 0;  // L

  // max_i sigma_1(H_i), or a lower bound of it that is proved to be within `accuracy` relative,
  // kExactNorm or kNormMagnitude. 0 for L = 1 and for a zero operator.
  // Errors: as Compute.
  virtual absl::StatusOr<double> MaxSpectralNorm(double accuracy,
                                                 const CancellationToken& cancellation) = 0;

  // A singular value within max(1e-9, 1e-16 (sigma_1 / tau)^2) relative of a tolerance may be on
  // either side of it, sigma_1 being the largest of all positions.
  // Errors: kAborted    this route cannot answer here (no stable pivots); use another.
  //         kCancelled, kDeadlineExceeded  within 200 ms of the token's change.
  virtual absl::StatusOr<Spectrum> Compute(const SpectrumRequest& request,
                                           const CancellationToken& cancellation) = 0;

  // ||H_i||_F for each position [L], from sums of squares only: nothing cancels.
  virtual std::vector<double> FrobeniusNorms() = 0;

  // All singular values of one block in descending order by an SVD: min(i, L - i) of them, or fewer
  // when the route knows that the others are 0. Right to about 1e-14 of the largest.
  // Errors: kInternal  the SVD did not converge.
  virtual absl::StatusOr<std::vector<double>> SingularValues(int64_t position) = 0;

  // Of a recurrence with N states, for each position i [L]: the numerical rank of its past factor
  // [A_{i-1} ... A_1 b_0, ..., A_{i-1} b_{i-2}, b_{i-1}] (N x i), the number of its singular values
  // above max(N, i) 2^-52 times its largest. Source: arXiv:2504.19561, appendix C.2.2.
  // Errors: kInvalidArgument  the operator is no recurrence; kCancelled, kDeadlineExceeded.
  virtual absl::StatusOr<std::vector<int32_t>> CausalRanks(const CancellationToken& cancellation) {
    return absl::InvalidArgumentError("only recurrences have a causal rank");
  }
};

}  // namespace ess::linalg
