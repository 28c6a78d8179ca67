// How fast the channel route is, on one thread, against the dense inertia tree and against SVD at
// every position; and whether it counts the same. One run, so the ratios mean something anywhere.
//
// The scans keep their gates: the exponentials of a real layer are not in these times.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "hwy/targets.h"
#include "server/linalg/channel_spectra.h"
#include "server/linalg/inertia_tree.h"
#include "server/linalg/reference_linalg.h"
#include "tests/benchmarks/fma_peak.h"
#include "tests/benchmarks/timing.h"
#include "tests/support/test_channels.h"

namespace ess {
namespace {

using ::ess::benchmarks::BestSeconds;
using ::ess::benchmarks::Now;
using ::ess::benchmarks::ValueOrExit;

constexpr int64_t kStates = 16;
constexpr int64_t kChannels = 64;
constexpr int64_t kSampledPositions = 12;
constexpr double kTolerance = 1e-3;

const CancellationToken kNever;

// Median over the groups of several rounds, in milliseconds per channel.
double MillisecondsPerChannel(const linalg::ChannelRecurrence& scan,
                              linalg::ChannelSpectra& spectra, const std::function<void()>& work) {
  std::vector<double> times;
  for (int round = 0; round < 5; ++round) {
    for (int64_t channel = 0; channel < scan.channels(); channel += spectra.lanes()) {
      const double start = Now();
      if (!spectra.Load(scan, channel, kNever).ok()) std::exit(1);
      work();
      times.push_back(Now() - start);
    }
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return 1e3 * times[times.size() / 2] / static_cast<double>(spectra.lanes());
}

linalg::ChannelRequest Tolerances(int count, int64_t lanes) {
  linalg::ChannelRequest request;
  for (int k = 0; k < count; ++k) {
    request.tolerances.insert(request.tolerances.end(), lanes, kTolerance * (1 + k));
  }
  return request;
}

struct Dense {
  double tree_ms = 0;
  double svd_ms = 0;  // Of all positions.
  int64_t wrong_tree = 0;
  int64_t wrong_svd = 0;
  int64_t sampled = 0;
};

// One channel by the tree and by SVD, and how many of its counts differ.
Dense MeasureDense(const testing::StoredChannels& scan, const std::vector<uint8_t>& counts,
                   int64_t lanes) {
  const int64_t length = scan.length();
  const std::vector<double> matrix = scan.Dense(0);
  std::vector<double> scaled = matrix;
  constexpr double kScale = 64;
  for (double& entry : scaled) entry /= kScale;  // The tree wants entries of at most 1.
  Dense dense;
  linalg::InertiaTree tree;
  linalg::BlockCounts result;
  const auto count = [&] {
    if (!tree.Load(scaled, length, kNever).ok()) std::exit(1);
    result = ValueOrExit(tree.CountAbove(kTolerance / kScale, 1, kNever));
  };
  dense.tree_ms = 1e3 * BestSeconds(count, /*budget=*/0.3);
  for (int64_t i = 0; i < length; ++i) dense.wrong_tree += result.counts[i] != counts[i * lanes];
  dense.sampled = std::min(kSampledPositions, length - 1);
  const double start = Now();
  for (int64_t k = 0; k < dense.sampled; ++k) {
    const int64_t i = 1 + (2 * k + 1) * (length - 1) / (2 * dense.sampled);
    const std::vector<double> sigma = ValueOrExit(linalg::BlockSingularValues(matrix, length, i));
    dense.wrong_svd += counts[i * lanes] != std::count_if(sigma.begin(), sigma.end(), [](double s) {
                         return s > kTolerance * (1 + 1e-11);
                       });
  }
  dense.svd_ms =
      1e3 * (Now() - start) * static_cast<double>(length - 1) / static_cast<double>(dense.sampled);
  return dense;
}

void PrintRow(const std::string& kind, int64_t length) {
  const testing::StoredChannels scan = testing::MakeScan(kind, length, kStates, kChannels, 3);
  linalg::ChannelSpectra spectra;
  const int64_t lanes = spectra.lanes();
  const auto timed = [&](const linalg::ChannelRequest& request) {
    return MillisecondsPerChannel(scan, spectra,
                                  [&] { ValueOrExit(spectra.Compute(request, kNever)); });
  };
  const linalg::ChannelRequest one = Tolerances(1, lanes);
  const double one_ms = timed(one);
  const double five_ms = timed(Tolerances(5, lanes));
  linalg::ChannelRequest entropies = one;
  entropies.entropies = true;
  const double entropy_ms = timed(entropies);
  linalg::ChannelRequest relative = entropies;
  relative.fractions = {1e-1, 1e-2, 1e-3};
  const double relative_ms = timed(relative);
  const double norm_ms = MillisecondsPerChannel(scan, spectra, [&] {
    ValueOrExit(spectra.Compute(one, kNever));
    ValueOrExit(spectra.MaxSpectralNorms(kNever));
  });

  if (!spectra.Load(scan, 0, kNever).ok()) std::exit(1);
  const linalg::ChannelAnswers answers = ValueOrExit(spectra.Compute(one, kNever));
  const Dense dense = MeasureDense(scan, answers.tolerance_counts, lanes);
  std::printf(
      "%-8s %5ld %8.4f %8.4f %8.4f %8.4f %8.4f %9.3f %6.1fx %10.0f* %8.0fx %4ld/%-5ld %3ld/%-3ld\n",
      kind.c_str(), static_cast<long>(length), one_ms, norm_ms, five_ms, entropy_ms, relative_ms,
      dense.tree_ms, dense.tree_ms / one_ms, dense.svd_ms, dense.svd_ms / one_ms,
      static_cast<long>(dense.wrong_tree), static_cast<long>(length),
      static_cast<long>(dense.wrong_svd), static_cast<long>(dense.sampled));
  std::fflush(stdout);
}

}  // namespace
}  // namespace ess

int main() {
  std::printf(
      "Selective scans of %ld states, tolerance %g, float64, one thread, %s, %.1f GFLOP/s\n",
      static_cast<long>(ess::kStates), ess::kTolerance,
      hwy::TargetName(hwy::SupportedAndGeneratedTargets().front()), ess::MeasureFmaPeak());
  std::printf(
      "ms per channel; +norm: with the largest sigma_1; entropy, relative: with the tolerance, "
      "and\n"
      "3 fractions of sigma_1(H_i); ratios are to one tolerance; wrong: against the tree, SVD\n"
      "* extrapolated from %ld evenly spaced positions\n\n",
      static_cast<long>(ess::kSampledPositions));
  std::printf("%-8s %5s %8s %8s %8s %8s %8s %9s %7s %11s %9s %10s %7s\n", "scan", "L", "1 tau",
              "+norm", "5 taus", "entropy", "relative", "tree", "ratio", "SVD", "ratio", "wrong/of",
              "");
  for (const int64_t length : {64, 128, 256, 512, 1024, 2048}) ess::PrintRow("init", length);
  for (const char* kind : {"trained", "fast", "mixed"}) ess::PrintRow(kind, 1024);
  return 0;
}
