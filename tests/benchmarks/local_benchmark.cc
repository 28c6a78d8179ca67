// How fast the routes of windows are, on one thread, against SVD at every position: of the whole
// block, as published, and of the block cut to the window. Everything is timed in one run.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "hwy/targets.h"
#include "server/linalg/local_spectra.h"
#include "server/linalg/reference_linalg.h"
#include "server/linalg/short_convolution_spectra.h"
#include "tests/benchmarks/timing.h"

namespace ess::linalg {
namespace {

using ::ess::benchmarks::BestSeconds;
using ::ess::benchmarks::Now;
using ::ess::benchmarks::ValueOrExit;

constexpr double kTolerances[] = {1e-1, 1e-2, 1e-3, 1e-4, 1e-5};
// SVD runs at this many evenly spaced positions, and is extrapolated.
constexpr int64_t kSampledPositions = 24;
constexpr int64_t kSampledLocally = 200;
const CancellationToken kNever;

struct Operator {
  int64_t length;
  int64_t window;
  int64_t sinks;
  std::vector<double> band;
  std::vector<double> sink_columns;
};

// Softmax of 2 q k / sqrt(16) over the window and the sinks, whose logits are raised by 2.
Operator SlidingAttention(int64_t length, int64_t window, int64_t sinks) {
  constexpr int64_t kDim = 16;
  std::mt19937_64 generator(length + window);
  std::normal_distribution<double> normal;
  std::vector<double> q(length * kDim), k(length * kDim);
  for (double& x : q) x = normal(generator);
  for (double& x : k) x = normal(generator);
  Operator op{length, window, sinks, std::vector<double>(length * window),
              std::vector<double>(length * sinks)};
  const auto weight = [&](int64_t i, int64_t j) {
    double logit = j < sinks ? 2 : 0;
    for (int64_t n = 0; n < kDim; ++n) logit += 0.5 * q[i * kDim + n] * k[j * kDim + n];
    return std::exp(logit);
  };
  for (int64_t i = 0; i < length; ++i) {
    double sum = 0;
    for (int64_t d = 0; d < std::min(window, i + 1); ++d) {
      sum += op.band[i * window + d] = weight(i, i - d);
    }
    for (int64_t j = 0; j < std::min(sinks, i - window + 1); ++j) {
      sum += op.sink_columns[i * sinks + j] = weight(i, j);
    }
    for (int64_t d = 0; d < window; ++d) op.band[i * window + d] /= sum;
    for (int64_t j = 0; j < sinks; ++j) op.sink_columns[i * sinks + j] /= sum;
  }
  return op;
}

std::vector<double> Dense(const Operator& op) {
  std::vector<double> matrix(op.length * op.length, 0.0);
  for (int64_t i = 0; i < op.length; ++i) {
    for (int64_t j = 0; j < i; ++j) {
      double& entry = matrix[i * op.length + j];
      if (i - j < op.window) {
        entry = op.band[i * op.window + i - j];
      } else if (j < op.sinks) {
        entry = op.sink_columns[i * op.sinks + j];
      }
    }
  }
  return matrix;
}

std::vector<int64_t> EvenPositions(int64_t length, int64_t count) {
  std::vector<int64_t> positions;
  count = std::min(count, length - 1);
  for (int64_t k = 0; k < count; ++k) {
    positions.push_back(1 + (2 * k + 1) * (length - 1) / (2 * count));
  }
  return positions;
}

// Rows and columns of H_i where it may have entries, as a matrix whose block of its last `width`
// rows is that.
double LocalSvdSeconds(const std::vector<double>& matrix, const Operator& op) {
  const std::vector<int64_t> positions = EvenPositions(op.length, kSampledLocally);
  double seconds = 0;
  for (const int64_t i : positions) {
    const int64_t first = std::max<int64_t>(i - op.window + 1, 0);
    const int64_t end = std::min(i + op.window - 1, op.length);
    const int64_t size = end - first;
    std::vector<double> part(size * size, 0.0);
    for (int64_t row = i; row < end; ++row) {
      std::copy_n(&matrix[row * op.length + first], i - first, &part[(row - first) * size]);
    }
    const double start = Now();
    ValueOrExit(BlockSingularValues(part, size, i - first));
    seconds += Now() - start;
  }
  return seconds * static_cast<double>(op.length - 1) / static_cast<double>(positions.size());
}

double Entropy(const std::vector<double>& sigma) {
  double sum = 0;
  for (const double s : sigma) sum += s;
  double entropy = 0;
  for (const double s : sigma) {
    if (s > 0) entropy -= s / sum * std::log(s / sum);
  }
  return std::exp(entropy);
}

void PrintRow(int64_t length, int64_t window, int64_t sinks) {
  const Operator op = SlidingAttention(length, window, sinks);
  const std::vector<double> matrix = Dense(op);
  const SpectrumRequest counts{.tolerances = {std::begin(kTolerances), std::end(kTolerances)}};
  const SpectrumRequest one{.tolerances = {1e-3}};
  const SpectrumRequest entropies{.entropies = true};
  const SpectrumRequest norms{.spectral_norms = true};
  const SpectrumRequest fractions{.fractions = {1e-1, 1e-2, 1e-3}, .spectral_norms = true};
  Spectrum spectrum;
  const auto time = [&](const SpectrumRequest& request) {
    return BestSeconds([&] {
      LocalSpectra spectra(op.band, length, window, op.sink_columns, sinks);
      spectrum = ValueOrExit(spectra.Compute(request, kNever));
    });
  };
  const double norm_seconds = time(norms);
  const double fraction_seconds = time(fractions);
  const double one_seconds = time(one);
  const double entropy_seconds = time(entropies);
  const std::vector<double> entropy = spectrum.entropies;
  const double count_seconds = time(counts);

  const std::vector<int64_t> positions = EvenPositions(length, kSampledPositions);
  int64_t wrong = 0;
  double entropy_error = 0;
  double svd_seconds = 0;
  for (const int64_t i : positions) {
    const double start = Now();
    const std::vector<double> sigma = ValueOrExit(BlockSingularValues(matrix, length, i));
    svd_seconds += Now() - start;
    for (size_t k = 0; k < std::size(kTolerances); ++k) {
      wrong += spectrum.tolerance_counts[k].counts[i] !=
               std::count_if(sigma.begin(), sigma.end(),
                             [&](double s) { return s > kTolerances[k] * (1 + 1e-11); });
    }
    entropy_error = std::max(entropy_error, std::abs(entropy[i] / Entropy(sigma) - 1));
  }
  svd_seconds *= static_cast<double>(length - 1) / static_cast<double>(positions.size());
  const double local_seconds = sinks == 0 ? LocalSvdSeconds(matrix, op) : svd_seconds;
  std::printf(
      "%5ld %4ld %3ld %8.2f %8.2f %8.2f %8.2f %8.2f %8.2f* %7.0fx %6.0fx %7.0fx %6.0fx %7.0fx "
      "%6.1fx %3ld/%-3zu %7.0e\n",
      static_cast<long>(length), static_cast<long>(window), static_cast<long>(sinks),
      one_seconds * 1e3, count_seconds * 1e3, entropy_seconds * 1e3, norm_seconds * 1e3,
      fraction_seconds * 1e3, svd_seconds, svd_seconds / count_seconds,
      local_seconds / count_seconds, svd_seconds / entropy_seconds, local_seconds / entropy_seconds,
      svd_seconds / fraction_seconds, local_seconds / fraction_seconds, static_cast<long>(wrong),
      positions.size() * std::size(kTolerances), entropy_error);
  std::fflush(stdout);
}

void PrintConvolution(int64_t length, int64_t taps) {
  std::mt19937_64 generator(taps);
  std::normal_distribution<double> normal;
  std::vector<double> filter(taps);
  for (double& tap : filter) tap = normal(generator);
  const SpectrumRequest request{.tolerances = {std::begin(kTolerances), std::end(kTolerances)},
                                .spectral_norms = true,
                                .entropies = true};
  const double seconds = BestSeconds(
      [&] { ValueOrExit(ShortConvolutionSpectra(filter, length).Compute(request, kNever)); });
  std::printf("%5ld positions, %3ld taps: %8.3f ms\n", static_cast<long>(length),
              static_cast<long>(taps), seconds * 1e3);
}

}  // namespace
}  // namespace ess::linalg

int main() {
  std::printf(
      "ESS at every position of a sliding window, float64, one thread, instruction set %s\n",
      hwy::TargetName(hwy::SupportedAndGeneratedTargets().front()));
  std::printf("1, 5: tolerances; fractions: three, with spectral norms; ms\n");
  std::printf(
      "SVD: of every whole block, * extrapolated from %ld positions; local: of the window's\n\n",
      static_cast<long>(ess::linalg::kSampledPositions));
  std::printf("%5s %4s %3s %8s %8s %8s %8s %8s %9s %8s %7s %8s %7s %8s %7s %7s %7s\n", "L", "W",
              "S", "1", "5", "entropy", "norms", "fraction", "SVD s", "5: SVD", "local", "ent: SVD",
              "local", "fr: SVD", "local", "wrong", "ent err");
  for (const auto& [length, window, sinks] : {std::tuple{512, 64, 0},
                                              {1024, 64, 0},
                                              {1024, 8, 0},
                                              {1024, 64, 4},
                                              {2048, 128, 0},
                                              {2048, 128, 4}}) {
    ess::linalg::PrintRow(length, window, sinks);
  }
  std::printf("\nshort convolutions: five tolerances, entropies and spectral norms\n");
  ess::linalg::PrintConvolution(2048, 4);
  ess::linalg::PrintConvolution(2048, 64);
  return 0;
}
