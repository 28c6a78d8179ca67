#include "server/linalg/short_convolution_spectra.h"

#include <algorithm>

#include "server/base/log.h"
#include "server/base/status_macros.h"

namespace ess::linalg {
namespace {

int64_t ShortLength(int64_t taps, int64_t length) {
  return std::min(length, std::max(2 * (taps - 1), int64_t{1}));
}

LocalSpectra MakeShort(std::span<const double> taps, int64_t length) {
  ESS_CHECK(!taps.empty() && length >= 1);
  const int64_t count = static_cast<int64_t>(taps.size());
  const int64_t short_length = ShortLength(count, length);
  return LocalSpectra(GatedConvolutionBand(taps, short_length, {}, {}), short_length, count);
}

}  // namespace

ShortConvolutionSpectra::ShortConvolutionSpectra(std::span<const double> taps, int64_t length)
    : length_(length), short_(MakeShort(taps, length)) {}

int64_t ShortConvolutionSpectra::Twin(int64_t position) const {
  return std::min({position, length_ - position, short_.length() / 2});
}

template <typename T>
std::vector<T> ShortConvolutionSpectra::Spread(const std::vector<T>& values) const {
  std::vector<T> result;
  if (values.empty()) return result;
  result.reserve(length_);
  for (int64_t i = 0; i < length_; ++i) result.push_back(values[Twin(i)]);
  return result;
}

absl::StatusOr<double> ShortConvolutionSpectra::MaxSpectralNorm(
    double accuracy, const CancellationToken& cancellation) {
  return short_.MaxSpectralNorm(accuracy, cancellation);
}

absl::StatusOr<Spectrum> ShortConvolutionSpectra::Compute(const SpectrumRequest& request,
                                                          const CancellationToken& cancellation) {
  ESS_ASSIGN_OR_RETURN(Spectrum spectrum, short_.Compute(request, cancellation));
  for (auto* all : {&spectrum.tolerance_counts, &spectrum.fraction_counts}) {
    for (PositionCounts& counts : *all) {
      counts.counts = Spread(counts.counts);
      counts.doubtful = Spread(counts.doubtful);
    }
  }
  spectrum.spectral_norms = Spread(spectrum.spectral_norms);
  spectrum.entropies = Spread(spectrum.entropies);
  spectrum.entropy_errors = Spread(spectrum.entropy_errors);
  return spectrum;
}

std::vector<double> ShortConvolutionSpectra::FrobeniusNorms() {
  return Spread(short_.FrobeniusNorms());
}

absl::StatusOr<std::vector<double>> ShortConvolutionSpectra::SingularValues(int64_t position) {
  return short_.SingularValues(Twin(position));
}

std::vector<double> GatedConvolutionBand(std::span<const double> taps, int64_t length,
                                         std::span<const double> gate_out,
                                         std::span<const double> gate_in) {
  const int64_t count = static_cast<int64_t>(taps.size());
  std::vector<double> band(length * count, 0.0);
  for (int64_t row = 0; row < length; ++row) {
    for (int64_t distance = 0; distance < std::min(count, row + 1); ++distance) {
      double entry = taps[distance];
      if (!gate_out.empty()) entry *= gate_out[row];
      if (!gate_in.empty()) entry *= gate_in[row - distance];
      band[row * count + distance] = entry;
    }
  }
  return band;
}

}  // namespace ess::linalg
