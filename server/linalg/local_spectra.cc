#include "server/linalg/local_spectra.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/linalg/dense_svd.h"
#include "server/linalg/entropy_rule.h"
#include "server/linalg/local_gram.h"
#include "server/linalg/local_measures.h"
#include "server/linalg/local_product.h"

namespace ess::linalg {
namespace {

// Lanczos misses the largest value of a block, if ever, once; where a count is doubtful it has the
// last word.
constexpr int kMaxTries = 2;
constexpr int64_t kSamples = 8;
// Below it, fractions of sigma_1 drown in the rounding errors of the Gram matrix.
constexpr double kSmallestFraction = 1e-7;

PositionCounts NoCounts(int64_t length) {
  return {.counts = std::vector<int32_t>(length, 0), .doubtful = std::vector<uint8_t>(length, 0)};
}

void DropDoubtsIfNone(PositionCounts& counts) {
  if (std::find(counts.doubtful.begin(), counts.doubtful.end(), 1) == counts.doubtful.end()) {
    counts.doubtful.clear();
  }
}

}  // namespace

LocalSpectra::LocalSpectra(std::span<const double> band, int64_t length, int64_t window,
                           std::span<const double> sink_columns, int64_t sinks)
    : matrix_(band, length, window, sink_columns, sinks), norms_(matrix_.FrobeniusNorms()) {}

double LocalSpectra::InUnits(double value) const { return std::ldexp(value, matrix_.exponent()); }
double LocalSpectra::FromUnits(double value) const {
  return std::ldexp(value, -matrix_.exponent());
}

std::vector<double> LocalSpectra::FrobeniusNorms() {
  std::vector<double> norms = norms_;
  for (double& norm : norms) norm = InUnits(norm);
  return norms;
}

absl::StatusOr<double> LocalSpectra::MaxSpectralNorm(double accuracy,
                                                     const CancellationToken& cancellation) {
  const int64_t length = matrix_.length();
  const auto heaviest = std::max_element(norms_.begin(), norms_.end());
  if (*heaviest == 0) return 0.0;
  LocalMeasures measures(matrix_, norms_);
  std::vector<uint8_t> tries(length, 0);
  ESS_ASSIGN_OR_RETURN(double best, LocalSpectralNorm(matrix_, heaviest - norms_.begin(),
                                                      /*seed=*/0, cancellation));
  std::vector<int64_t> larger(length);  // Positions that may have a larger one.
  std::iota(larger.begin(), larger.end(), 0);
  while (true) {
    // A few of them, spread out, leave few that are larger still.
    const int64_t count = static_cast<int64_t>(larger.size());
    for (int64_t k = 0; k < std::min(kSamples, count); ++k) {
      const int64_t i = larger[(2 * k + 1) * count / (2 * std::min(kSamples, count))];
      if (norms_[i] <= best) continue;
      ESS_ASSIGN_OR_RETURN(const double norm,
                           LocalSpectralNorm(matrix_, i, tries[i]++, cancellation));
      best = std::max(best, norm);
    }
    PositionCounts counts = NoCounts(length);
    int64_t counted_to = 0;
    std::vector<int64_t> still_larger;
    for (const int64_t i : larger) {
      if (i >= counted_to) {
        const int64_t first = i / measures.window_width() * measures.window_width();
        counted_to = measures.WindowEnd(first);
        ESS_RETURN_IF_ERROR(
            measures.CountWindow(first, best * (1 + accuracy / 2), counts, cancellation));
      }
      const bool may_be_larger = counts.counts[i] > 0 || counts.doubtful[i];
      if (may_be_larger && tries[i] < kMaxTries) still_larger.push_back(i);
    }
    if (still_larger.empty()) return InUnits(best);
    larger = std::move(still_larger);
  }
}

absl::StatusOr<Spectrum> LocalSpectra::Compute(const SpectrumRequest& request,
                                               const CancellationToken& cancellation) {
  const int64_t length = matrix_.length();
  Spectrum spectrum;
  spectrum.tolerance_counts.assign(request.tolerances.size(), NoCounts(length));
  spectrum.fraction_counts.assign(request.fractions.size(), NoCounts(length));
  if (request.spectral_norms) spectrum.spectral_norms.assign(length, 0.0);
  if (request.entropies) {
    spectrum.entropies.assign(length, 0.0);
    spectrum.entropy_errors.assign(length, 0.0);
  }
  if (!request.tolerances.empty() || request.entropies) {
    LocalMeasures measures(matrix_, norms_);
    for (int64_t first = 0; first < length; first += measures.window_width()) {
      for (size_t k = 0; k < request.tolerances.size(); ++k) {
        ESS_CHECK(request.tolerances[k] > 0);
        ESS_RETURN_IF_ERROR(measures.CountWindow(first, FromUnits(request.tolerances[k]),
                                                 spectrum.tolerance_counts[k], cancellation));
      }
      if (request.entropies) {
        ESS_RETURN_IF_ERROR(measures.MeasureEntropies(first, spectrum.entropies,
                                                      spectrum.entropy_errors, cancellation));
      }
    }
  }
  if (request.entropies) spectrum.entropy_errors = SpreadErrors(spectrum.entropy_errors);
  if (request.spectral_norms || !request.fractions.empty()) {
    ESS_RETURN_IF_ERROR(ComputeByGram(request, spectrum, cancellation));
  }
  for (PositionCounts& counts : spectrum.tolerance_counts) DropDoubtsIfNone(counts);
  for (PositionCounts& counts : spectrum.fraction_counts) DropDoubtsIfNone(counts);
  return spectrum;
}

absl::Status LocalSpectra::ComputeByGram(const SpectrumRequest& request, Spectrum& spectrum,
                                         const CancellationToken& cancellation) const {
  LocalGram gram(matrix_);
  for (int64_t i = matrix_.length() - 1; i >= 1; --i) {
    if (norms_[i] == 0) continue;
    ESS_RETURN_IF_ERROR(gram.MoveTo(i, norms_[i], cancellation));
    ESS_ASSIGN_OR_RETURN(const double norm, gram.SpectralNorm(cancellation));
    if (request.spectral_norms) spectrum.spectral_norms[i] = InUnits(norm);
    for (size_t k = 0; k < request.fractions.size(); ++k) {
      const double fraction = request.fractions[k];
      ESS_CHECK(fraction > 0 && fraction < 1);
      PositionCounts& counts = spectrum.fraction_counts[k];
      if (fraction < kSmallestFraction) {
        counts.doubtful[i] = 1;
        continue;
      }
      ESS_ASSIGN_OR_RETURN(const BlockCounts result,
                           gram.CountAbove(fraction * norm, norm, cancellation));
      if (!result.counts.empty()) counts.counts[i] = result.counts.front();
      counts.doubtful[i] = result.uncertainty > 0;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<double>> LocalSpectra::SingularValues(int64_t position) {
  ESS_CHECK(position >= 0 && position < matrix_.length());
  const int64_t sinks = std::min(matrix_.sinks(), position);
  const int64_t row_end = matrix_.RowEnd(position);
  const int64_t first_column = matrix_.ColumnBegin(position);
  // Rows that the band does not reach have sinks only; a triangle stands for them.
  DenseMatrix below(matrix_.length() - row_end, sinks);
  for (int64_t row = row_end; row < matrix_.length(); ++row) {
    std::copy_n(matrix_.SinkRow(row), sinks, below.Row(row - row_end));
  }
  if (below.rows > below.columns) below = TriangularFactor(std::move(below));

  DenseMatrix block(row_end - position + below.rows, sinks + position - first_column);
  for (int64_t row = position; row < row_end; ++row) {
    double* to = block.Row(row - position);
    std::copy_n(matrix_.SinkRow(row), sinks, to);
    const int64_t first_in_band = row - matrix_.memory();
    for (int64_t column = std::max(first_column, first_in_band); column < position; ++column) {
      to[sinks + column - first_column] = matrix_.BandRow(row)[column - first_in_band];
    }
  }
  for (int64_t row = 0; row < below.rows; ++row) {
    std::copy_n(below.Row(row), sinks, block.Row(row_end - position + row));
  }
  std::vector<double> sigma = DenseSingularValues(std::move(block));
  for (double& value : sigma) value = InUnits(value);
  return sigma;
}

}  // namespace ess::linalg
