#include "server/linalg/dense_spectra.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "server/base/status_macros.h"
#include "server/linalg/block_norms.h"
#include "server/linalg/entropy_rule.h"
#include "server/linalg/matrix_scan.h"
#include "server/linalg/nudged_counts.h"
#include "server/linalg/reference_linalg.h"

namespace ess::linalg {
namespace {

// Shorter matrices have no room for windows, and an SVD of their blocks takes microseconds.
constexpr int64_t kSmallestBandLength = 16;

// exp(-sum p ln p), p = sigma / sum sigma.
double EntropyOf(std::span<const double> sigma) {
  double sum = 0;
  for (const double value : sigma) sum += value;
  double entropy = 0;
  for (const double value : sigma) {
    if (value > 0) entropy -= value / sum * std::log(value / sum);
  }
  return sum > 0 ? std::exp(entropy) : 0;
}

}  // namespace

absl::Status DenseSpectra::Load(std::span<double> matrix, int64_t length, Symmetry symmetry,
                                const CancellationToken& cancellation) {
  length_ = length;
  symmetry_ = symmetry;
  matrix_ = matrix;
  known_sigma_.clear();
  spectral_norm_.reset();
  tree_loaded_ = false;
  // A power of two rounds nothing; later squares can neither overflow nor vanish.
  int exponent = 0;
  std::frexp(LargestBelowDiagonal(matrix, length), &exponent);
  exponent = std::clamp(exponent, -1000, 1000);  // Keeps both powers finite.
  scale_ = std::ldexp(1.0, exponent);
  if (exponent != 0) ScaleBelowDiagonal(std::ldexp(1.0, -exponent), matrix, length);
  return cancellation.Check();
}

PositionRange DenseSpectra::AskedPositions() const {
  return {1, symmetry_ == Symmetry::kToeplitz ? length_ / 2 + 1 : length_};
}

template <typename Number>
void DenseSpectra::Mirror(std::vector<Number>& values) const {
  if (values.empty()) return;
  const int64_t end = AskedPositions().end;  // Position i takes the answer of L - i.
  std::reverse_copy(values.begin() + 1, values.begin() + 1 + length_ - end, values.begin() + end);
}

void DenseSpectra::Mirror(PositionCounts& counts) const {
  Mirror(counts.counts);
  Mirror(counts.doubtful);
}

std::vector<double> DenseSpectra::ScaledFrobeniusNorms() const {
  std::vector<double> norms = BlockFrobeniusNorms(matrix_, length_);
  Mirror(norms);  // The same bits as well.
  return norms;
}

absl::StatusOr<InertiaTree*> DenseSpectra::Tree(const CancellationToken& cancellation) {
  if (!tree_loaded_) {
    ESS_RETURN_IF_ERROR(tree_.Load(matrix_, length_, cancellation, AskedPositions()));
    tree_loaded_ = true;
  }
  return &tree_;
}

absl::StatusOr<double> DenseSpectra::MaxSpectralNorm(double accuracy,
                                                     const CancellationToken& cancellation) {
  if (!spectral_norm_ || norm_accuracy_ > accuracy) {
    ESS_ASSIGN_OR_RETURN(InertiaTree * tree, Tree(cancellation));
    ESS_ASSIGN_OR_RETURN(spectral_norm_,
                         MaxBlockSpectralNorm(matrix_, length_, accuracy, *tree, cancellation));
    norm_accuracy_ = accuracy;
  }
  return *spectral_norm_ * scale_;
}

absl::StatusOr<PositionCounts> DenseSpectra::CountAbove(double tau,
                                                        const CancellationToken& cancellation) {
  if (!spectral_norm_) {
    ESS_RETURN_IF_ERROR(MaxSpectralNorm(kNormMagnitude, cancellation).status());
  }
  ESS_ASSIGN_OR_RETURN(InertiaTree * tree, Tree(cancellation));
  ESS_ASSIGN_OR_RETURN(PositionCounts result, ProvedCounts(tau, [&](double at) {
                         return tree->CountAbove(at, *spectral_norm_, cancellation);
                       }));
  Mirror(result);
  return result;
}

void DenseSpectra::TurnMatrix() {
  // Entry [row, column] and its image [L - 1 - column, L - 1 - row], block by block for the caches.
  const int64_t last = length_ - 1;
  for (int64_t first = 0; first < length_; first += kBlock) {
    for (int64_t left = 0; left <= first && left < length_ - first; left += kBlock) {
      for (int64_t row = first; row < std::min(first + kBlock, length_); ++row) {
        const int64_t end = std::min({left + kBlock, row, last - row});
        double* image = matrix_.data() + (last - left) * length_ + last - row;
        for (int64_t column = left; column < end; ++column, image -= length_) {
          std::swap(matrix_[row * length_ + column], *image);
        }
      }
    }
  }
}

absl::Status DenseSpectra::FillByBands(const SpectrumRequest& request, Spectrum& spectrum,
                                       const CancellationToken& cancellation) {
  const std::vector<double> norms = ScaledFrobeniusNorms();
  // Both halves have blocks of 8, and no position may be left out in the middle.
  const int64_t left = length_ / 2 / kBlock * kBlock + kBlock;
  const int64_t right = (length_ - left) / kBlock * kBlock + kBlock;
  const auto compute = [&](int64_t end, bool turned) {
    return bands_.Compute(
        {.matrix = {matrix_.data(), length_}, .length = length_, .end = end, .turned = turned},
        norms, request, spectrum, tree_.scratch(), cancellation);
  };
  ESS_RETURN_IF_ERROR(compute(left, false));
  if (symmetry_ == Symmetry::kToeplitz) return absl::OkStatus();
  // In place: a copy would be another half of the matrix.
  TurnMatrix();
  const absl::Status status = compute(right, true);
  TurnMatrix();
  return status;
}

absl::Status DenseSpectra::FillBySvd(const SpectrumRequest& request, Spectrum& spectrum,
                                     const CancellationToken& cancellation) const {
  for (int64_t i = 1; i < AskedPositions().end; ++i) {
    ESS_RETURN_IF_ERROR(cancellation.Check());
    ESS_ASSIGN_OR_RETURN(const std::vector<double> sigma, BlockSingularValues(matrix_, length_, i));
    if (request.entropies) spectrum.entropies[i] = EntropyOf(sigma);
    if (request.spectral_norms) spectrum.spectral_norms[i] = sigma[0];
    for (size_t f = 0; f < request.fractions.size(); ++f) {
      const double tau = request.fractions[f] * sigma[0] * (1 + kTieNudge);
      spectrum.fraction_counts[f].counts[i] = static_cast<int32_t>(
          std::count_if(sigma.begin(), sigma.end(), [tau](double s) { return s > tau; }));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Spectrum> DenseSpectra::Compute(const SpectrumRequest& request,
                                               const CancellationToken& cancellation) {
  Spectrum spectrum;
  for (const double tau : request.tolerances) {
    ESS_ASSIGN_OR_RETURN(spectrum.tolerance_counts.emplace_back(),
                         CountAbove(tau / scale_, cancellation));
  }
  if (request.entropies) {
    spectrum.entropies.assign(length_, 0.0);
    spectrum.entropy_errors.assign(length_, 0.0);
  }
  if (request.spectral_norms) spectrum.spectral_norms.assign(length_, 0.0);
  for (size_t f = 0; f < request.fractions.size(); ++f) {
    spectrum.fraction_counts.push_back(
        {.counts = std::vector<int32_t>(length_, 0), .doubtful = {}});
  }
  if (request.entropies || request.spectral_norms || !request.fractions.empty()) {
    ESS_RETURN_IF_ERROR(length_ < kSmallestBandLength
                            ? FillBySvd(request, spectrum, cancellation)
                            : FillByBands(request, spectrum, cancellation));
    for (double& norm : spectrum.spectral_norms) norm *= scale_;
    Mirror(spectrum.spectral_norms);
    Mirror(spectrum.entropies);
    Mirror(spectrum.entropy_errors);
    for (PositionCounts& counts : spectrum.fraction_counts) Mirror(counts);
    spectrum.entropy_errors = SpreadErrors(spectrum.entropy_errors);
  }
  return spectrum;
}

std::vector<double> DenseSpectra::FrobeniusNorms() {
  std::vector<double> norms = ScaledFrobeniusNorms();
  for (double& norm : norms) norm *= scale_;
  return norms;
}

absl::StatusOr<std::vector<double>> DenseSpectra::SingularValues(int64_t position) {
  std::vector<double>* known = nullptr;
  if (symmetry_ == Symmetry::kToeplitz && position > 0) {
    position = std::min(position, length_ - position);
    known_sigma_.resize(length_ / 2 + 1);
    known = &known_sigma_[position];
    if (!known->empty()) return *known;
  }
  ESS_ASSIGN_OR_RETURN(std::vector<double> sigma, BlockSingularValues(matrix_, length_, position));
  for (double& value : sigma) value *= scale_;
  if (known != nullptr) *known = sigma;
  return sigma;
}

}  // namespace ess::linalg
