// How fast the channel route is on selective scans, exponentials included, on one thread, against
// the dense inertia tree and against SVD at every position; and whether it counts the same. One
// run, so the ratios mean something anywhere.
#include <ATen/ATen.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "hwy/targets.h"
#include "server/base/worker_pool.h"
#include "server/ess/ess_engine.h"
#include "server/linalg/channel_spectra.h"
#include "server/linalg/inertia_tree.h"
#include "server/linalg/reference_linalg.h"
#include "server/operators/selective_scan.h"
#include "tests/benchmarks/fma_peak.h"
#include "tests/benchmarks/timing.h"

namespace ess {
namespace {

using ::ess::benchmarks::BestSeconds;
using ::ess::benchmarks::Now;
using ::ess::benchmarks::ValueOrExit;
using ::ess::operators::SelectiveScan;

constexpr int64_t kStates = 16;
constexpr int64_t kChannels = 64;
constexpr int64_t kSampledPositions = 12;
constexpr double kTolerance = 1e-3;

const CancellationToken kNever;

// A Mamba layer at initialization ("init"), with step sizes of training, with next to no memory, or
// with 2 % resets.
SelectiveScan MakeScan(const std::string& kind, int64_t length) {
  at::Generator generator = at::detail::createCPUGenerator(3);
  const auto normal = [&](at::IntArrayRef shape) {
    return at::randn(shape, generator, at::TensorOptions().dtype(at::kDouble));
  };
  const auto uniform = [&](at::IntArrayRef shape) {
    return at::rand(shape, generator, at::TensorOptions().dtype(at::kDouble));
  };
  const at::Tensor noise = normal({kChannels, length});
  at::Tensor delta = at::softplus(noise - 4);
  if (kind == "trained") {
    const at::Tensor level = 1e-3 * at::pow(100, uniform({kChannels, 1}));
    delta = at::softplus(at::log(at::expm1(level)) + 0.7 * noise);
  } else if (kind == "fast") {
    delta = at::softplus(noise + 1);
  } else if (kind == "mixed") {
    delta.masked_fill_(uniform({kChannels, length}) < 0.02, 20);
  }
  const at::Tensor A = -at::arange(1, kStates + 1, at::kDouble).expand({kChannels, kStates});
  return SelectiveScan(delta, A, normal({length, kStates}), normal({length, kStates}));
}

// Median over the groups of several rounds, in milliseconds per channel.
double MillisecondsPerChannel(const SelectiveScan& scan, linalg::ChannelSpectra& spectra,
                              const std::function<void()>& work) {
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

// All channels at all positions through the engine, noise floors included; its counts of channel 0.
double EngineMilliseconds(const SelectiveScan& scan, std::vector<float>& counts) {
  WorkerPool pool(1);
  const EssEngine engine(pool);
  std::vector<int64_t> heads(kChannels), positions(scan.length());
  std::iota(heads.begin(), heads.end(), 0);
  std::iota(positions.begin(), positions.end(), 0);
  const std::vector<Measure> measures = {{.kind = Measure::Kind::kTolerance, .value = kTolerance}};
  const double seconds = BestSeconds([&] {
    const OperatorEss ess =
        ValueOrExit(engine.Compute(scan, heads, positions, measures, {}, kNever));
    counts.assign(ess.values[0].begin(), ess.values[0].begin() + scan.length());
  });
  return 1e3 * seconds / kChannels;
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

// Channel 0 by the tree and by SVD, and how many of its counts differ.
Dense MeasureDense(const SelectiveScan& scan, const std::vector<float>& counts) {
  const int64_t length = scan.length();
  std::vector<double> matrix(length * length);
  scan.DenseHead(0, matrix);
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
  for (int64_t i = 0; i < length; ++i) dense.wrong_tree += result.counts[i] != counts[i];
  dense.sampled = std::min(kSampledPositions, length - 1);
  const double start = Now();
  for (int64_t k = 0; k < dense.sampled; ++k) {
    const int64_t i = 1 + (2 * k + 1) * (length - 1) / (2 * dense.sampled);
    const std::vector<double> sigma = ValueOrExit(linalg::BlockSingularValues(matrix, length, i));
    dense.wrong_svd += counts[i] != std::count_if(sigma.begin(), sigma.end(), [](double s) {
                         return s > kTolerance * (1 + 1e-11);
                       });
  }
  dense.svd_ms =
      1e3 * (Now() - start) * static_cast<double>(length - 1) / static_cast<double>(dense.sampled);
  return dense;
}

void PrintRow(const std::string& kind, int64_t length) {
  const SelectiveScan scan = MakeScan(kind, length);
  linalg::ChannelSpectra spectra;
  const auto timed = [&](const linalg::ChannelRequest& request) {
    return MillisecondsPerChannel(scan, spectra,
                                  [&] { ValueOrExit(spectra.Compute(request, kNever)); });
  };
  const linalg::ChannelRequest one = Tolerances(1, spectra.lanes());
  const double one_ms = timed(one);
  std::vector<float> counts;
  const double engine_ms = EngineMilliseconds(scan, counts);
  const double five_ms = timed(Tolerances(5, spectra.lanes()));
  linalg::ChannelRequest entropies = one;
  entropies.entropies = true;
  const double entropy_ms = timed(entropies);
  linalg::ChannelRequest relative = entropies;
  relative.fractions = {1e-1, 1e-2, 1e-3};
  const double relative_ms = timed(relative);
  const Dense dense = MeasureDense(scan, counts);
  std::printf(
      "%-8s %5ld %8.4f %8.4f %8.4f %8.4f %8.4f %9.3f %6.1fx %6.1fx %10.0f* %8.0fx %4ld/%-5ld "
      "%3ld/%-3ld\n",
      kind.c_str(), static_cast<long>(length), one_ms, engine_ms, five_ms, entropy_ms, relative_ms,
      dense.tree_ms, dense.tree_ms / one_ms, dense.tree_ms / engine_ms, dense.svd_ms,
      dense.svd_ms / one_ms, static_cast<long>(dense.wrong_tree), static_cast<long>(length),
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
      "ms per channel, exponentials included; engine: one tolerance of %ld channels through "
      "EssEngine,\n"
      "with the noise floor; entropy, relative: with the tolerance, and 3 fractions of "
      "sigma_1(H_i);\n"
      "ratios of tree and SVD are to one tolerance, and to the engine; wrong: engine against tree, "
      "SVD\n"
      "* extrapolated from %ld evenly spaced positions\n\n",
      static_cast<long>(ess::kChannels), static_cast<long>(ess::kSampledPositions));
  std::printf("%-8s %5s %8s %8s %8s %8s %8s %9s %7s %7s %11s %9s %10s %7s\n", "scan", "L", "1 tau",
              "engine", "5 taus", "entropy", "relative", "tree", "ratio", "engine", "SVD", "ratio",
              "wrong/of", "");
  for (const int64_t length : {64, 128, 256, 512, 1024, 2048}) ess::PrintRow("init", length);
  for (const char* kind : {"trained", "fast", "mixed"}) ess::PrintRow(kind, 1024);
  return 0;
}
