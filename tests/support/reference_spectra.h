// A BlockSpectra by the definition: an SVD at every position.
#pragma once

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/linalg/block_spectra.h"
#include "server/linalg/reference_linalg.h"

namespace ess::testing {

// Of T, row-major [length, length]. What `doubtful` says is put into every count's marks; there the
// count itself is wrong on purpose.
class ReferenceSpectra final : public linalg::BlockSpectra {
 public:
  ReferenceSpectra(std::vector<double> matrix, int64_t length, std::vector<uint8_t> doubtful = {})
      : matrix_(std::move(matrix)), length_(length), doubtful_(std::move(doubtful)) {}

  int64_t length() const override { return length_; }

  absl::StatusOr<double> MaxSpectralNorm(double accuracy, const CancellationToken&) override {
    double largest = 0;
    for (int64_t i = 1; i < length_; ++i) largest = std::max(largest, Sigma(i)[0]);
    return largest;
  }

  absl::StatusOr<linalg::Spectrum> Compute(const linalg::SpectrumRequest& request,
                                           const CancellationToken&) override {
    linalg::Spectrum spectrum;
    for (const double tau : request.tolerances) {
      spectrum.tolerance_counts.push_back(Counts([tau](double) { return tau; }));
    }
    for (const double fraction : request.fractions) {
      spectrum.fraction_counts.push_back(
          Counts([fraction](double norm) { return fraction * norm; }));
    }
    for (int64_t i = 0; i < length_; ++i) {
      const std::vector<double> sigma = Sigma(i);
      double sum = 0;
      double entropy = 0;
      for (const double s : sigma) sum += s;
      for (const double s : sigma) entropy -= s > 0 ? s / sum * std::log(s / sum) : 0;
      spectrum.entropies.push_back(sum > 0 ? std::exp(entropy) : 0);
      spectrum.spectral_norms.push_back(sigma.empty() ? 0 : sigma[0]);
    }
    spectrum.entropy_errors.assign(length_, 0.0);
    return spectrum;
  }

  std::vector<double> FrobeniusNorms() override {
    std::vector<double> norms;
    for (int64_t i = 0; i < length_; ++i) {
      double sum = 0;
      for (const double s : Sigma(i)) sum += s * s;
      norms.push_back(std::sqrt(sum));
    }
    return norms;
  }

  absl::StatusOr<std::vector<double>> SingularValues(int64_t position) override {
    ++svd_count_;
    return Sigma(position);
  }

  // Calls of SingularValues.
  int64_t svd_count() const { return svd_count_; }

 private:
  std::vector<double> Sigma(int64_t position) const {
    auto sigma = linalg::BlockSingularValues(matrix_, length_, position);
    EXPECT_TRUE(sigma.ok());
    return *std::move(sigma);
  }

  template <typename Threshold>
  linalg::PositionCounts Counts(const Threshold& threshold) const {
    linalg::PositionCounts result{.counts = {}, .doubtful = doubtful_};
    for (int64_t i = 0; i < length_; ++i) {
      const std::vector<double> sigma = Sigma(i);
      const double tau = threshold(sigma.empty() ? 0 : sigma[0]) * (1 + 1e-11);
      const int64_t count =
          std::count_if(sigma.begin(), sigma.end(), [tau](double s) { return s > tau; });
      const bool wrong = !doubtful_.empty() && doubtful_[i] != 0;
      result.counts.push_back(static_cast<int32_t>(count) + (wrong ? 1000 : 0));
    }
    return result;
  }

  const std::vector<double> matrix_;
  const int64_t length_;
  const std::vector<uint8_t> doubtful_;
  int64_t svd_count_ = 0;
};

}  // namespace ess::testing
