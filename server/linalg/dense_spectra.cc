#include "server/linalg/dense_spectra.h"

#include <algorithm>
#include <cmath>

#include "server/base/status_macros.h"
#include "server/linalg/block_norms.h"
#include "server/linalg/entropy_rule.h"
#include "server/linalg/reference_linalg.h"

namespace ess::linalg {
namespace {

// Runs of the entropy rule, each at a scale of its own, before SVD takes what is left.
constexpr int kMaxScales = 4;

}  // namespace

absl::Status DenseSpectra::Load(std::span<const double> matrix, int64_t length, Symmetry,
                                const CancellationToken& cancellation) {
  length_ = length;
  max_norm_ = -1;
  double largest = 0;
  for (int64_t row = 1; row < length; ++row) {
    for (int64_t column = 0; column < row; ++column) {
      largest = std::max(largest, std::abs(matrix[row * length + column]));
    }
  }
  int exponent = 0;
  std::frexp(largest, &exponent);
  exponent = std::clamp(exponent, -1000, 1000);  // Keeps both powers finite.
  scale_ = std::ldexp(1.0, exponent);
  const double inverse = std::ldexp(1.0, -exponent);
  matrix_.assign(matrix.begin(), matrix.end());
  for (double& entry : matrix_) entry *= inverse;
  return tree_.Load(matrix_, length, cancellation);
}

absl::StatusOr<double> DenseSpectra::MaxSpectralNorm(const CancellationToken& cancellation) {
  if (max_norm_ < 0) {
    ESS_ASSIGN_OR_RETURN(max_norm_, MaxBlockSpectralNorm(matrix_, length_, tree_, cancellation));
  }
  return max_norm_ * scale_;
}

absl::StatusOr<PositionCounts> DenseSpectra::CountAbove(double tau,
                                                        const CancellationToken& cancellation) {
  PositionCounts result;
  ESS_ASSIGN_OR_RETURN(BlockCounts counts, tree_.CountAbove(tau, max_norm_, cancellation));
  if (counts.uncertainty > 0) {
    // Counts a little below and above tau: where they agree the count is proved.
    const double margin = 4 * counts.uncertainty;
    ESS_ASSIGN_OR_RETURN(const BlockCounts low,
                         tree_.CountAbove(tau * (1 - margin), max_norm_, cancellation));
    ESS_ASSIGN_OR_RETURN(counts, tree_.CountAbove(tau * (1 + margin), max_norm_, cancellation));
    const bool proved = std::max(low.uncertainty, counts.uncertainty) <= margin / 2;
    result.doubtful.resize(length_);
    for (int64_t i = 1; i < length_; ++i) {
      result.doubtful[i] = !proved || low.counts[i] != counts.counts[i];
    }
  }
  result.counts = std::move(counts.counts);
  return result;
}

absl::Status DenseSpectra::FillEntropies(const CancellationToken& cancellation,
                                         Spectrum& spectrum) {
  const std::vector<double> norms = BlockFrobeniusNorms(matrix_, length_);
  spectrum.entropies.assign(length_, 0.0);
  std::vector<double> errors(length_, 0.0);
  std::vector<int64_t> left;
  for (int64_t i = 1; i < length_; ++i) {
    if (norms[i] > 0) left.push_back(i);
  }
  for (int round = 0; round < kMaxScales && !left.empty(); ++round) {
    double scale = 0;
    for (const int64_t i : left) scale = std::max(scale, norms[i]);
    std::vector<std::vector<double>> log_dets;
    for (const double shift : kEntropyShiftAt) {
      ESS_ASSIGN_OR_RETURN(log_dets.emplace_back(),
                           tree_.LogDeterminants(shift * scale, cancellation));
    }
    std::vector<int64_t> next;
    for (const int64_t i : left) {
      if (norms[i] * 4 < scale) {
        next.push_back(i);
        continue;
      }
      std::array<double, kEntropyShifts> at_position;
      for (int j = 0; j < kEntropyShifts; ++j) at_position[j] = log_dets[j][i];
      const double square = norms[i] / scale * (norms[i] / scale);
      const EntropyEstimate estimate =
          EstimateEntropy(at_position, square, static_cast<double>(std::min(i, length_ - i)));
      spectrum.entropies[i] = estimate.entropy;
      errors[i] = estimate.error;
    }
    left = std::move(next);
  }
  for (const int64_t i : left) spectrum.entropies[i] = NAN;
  spectrum.entropy_errors = SpreadErrors(errors);
  return absl::OkStatus();
}

absl::StatusOr<Spectrum> DenseSpectra::Compute(const SpectrumRequest& request,
                                               const CancellationToken& cancellation) {
  ESS_RETURN_IF_ERROR(MaxSpectralNorm(cancellation).status());
  Spectrum spectrum;
  for (const double tau : request.tolerances) {
    ESS_ASSIGN_OR_RETURN(spectrum.tolerance_counts.emplace_back(),
                         CountAbove(tau / scale_, cancellation));
  }
  if (request.entropies) ESS_RETURN_IF_ERROR(FillEntropies(cancellation, spectrum));
  if (request.spectral_norms) spectrum.spectral_norms.assign(length_, NAN);
  for (size_t f = 0; f < request.fractions.size(); ++f) {
    spectrum.fraction_counts.push_back(
        {.counts = std::vector<int32_t>(length_, 0), .doubtful = std::vector<uint8_t>(length_, 1)});
  }
  return spectrum;
}

std::vector<double> DenseSpectra::FrobeniusNorms() {
  std::vector<double> norms = BlockFrobeniusNorms(matrix_, length_);
  for (double& norm : norms) norm *= scale_;
  return norms;
}

absl::StatusOr<std::vector<double>> DenseSpectra::SingularValues(int64_t position) {
  ESS_ASSIGN_OR_RETURN(std::vector<double> sigma, BlockSingularValues(matrix_, length_, position));
  for (double& value : sigma) value *= scale_;
  return sigma;
}

}  // namespace ess::linalg
