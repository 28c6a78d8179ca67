// How fast the inertia tree is, on one thread, against the ways it replaces; and whether it counts
// the same. Everything is timed in one run, so the ratios mean something on any machine.
#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "hwy/targets.h"
#include "server/base/worker_pool.h"
#include "server/ess/ess_engine.h"
#include "server/linalg/inertia_tree.h"
#include "server/linalg/reference_linalg.h"
#include "server/linalg/serial_torch.h"
#include "server/operators/dense_operator.h"
#include "tests/benchmarks/fma_peak.h"
#include "tests/support/test_operators.h"

namespace ess {
namespace {

constexpr double kTolerance = 1e-3;
// At longer lengths SVD is run at this many evenly spaced positions, and extrapolated.
constexpr int64_t kSampledPositions = 24;
constexpr int64_t kLongestFullSvd = 256;

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Best of several runs within about half a second.
double BestTime(const std::function<void()>& work) {
  double best = 1e300;
  const double end = Seconds() + 0.5;
  for (int run = 0; run < 3 || (run < 200 && Seconds() < end); ++run) {
    const double start = Seconds();
    work();
    best = std::min(best, Seconds() - start);
  }
  return best;
}

template <typename T>
T ValueOrExit(absl::StatusOr<T> result) {
  if (!result.ok()) {
    std::fprintf(stderr, "%s\n", result.status().ToString().c_str());
    std::exit(1);
  }
  return *std::move(result);
}

// Positions 1 <= i < L: all of them, or evenly spaced ones.
std::vector<int64_t> SvdPositions(int64_t length) {
  std::vector<int64_t> positions;
  const int64_t count = length <= kLongestFullSvd ? length - 1 : kSampledPositions;
  for (int64_t k = 0; k < count; ++k) {
    positions.push_back(1 + (2 * k + 1) * (length - 1) / (2 * count));
  }
  return positions;
}

// The per-position rival that needs no SVD: eigenvalues of the smaller Gram matrix.
int64_t CountByGram(const std::vector<double>& matrix, int64_t length, int64_t position) {
  const at::Tensor block = at::from_blob(const_cast<double*>(matrix.data()) + position * length,
                                         {length - position, position}, {length, 1}, at::kDouble);
  const at::Tensor gram =
      length - position < position ? block.matmul(block.t()) : block.t().matmul(block);
  return (at::linalg_eigvalsh(gram) > kTolerance * kTolerance).sum().item<int64_t>();
}

// The whole stage of one head as the server runs it: checks, counts, and the noise floor.
double EngineSeconds(const std::vector<double>& matrix, int64_t length) {
  const CancellationToken never;
  const at::Tensor maps =
      at::from_blob(const_cast<double*>(matrix.data()), {1, length, length}, at::kDouble);
  const operators::DenseOperator op(maps, operators::StateSize::Growing());
  WorkerPool pool(1);
  const Measure measure{.kind = Measure::Kind::kTolerance, .value = kTolerance};
  const int64_t head = 0;
  std::vector<int64_t> positions(length);
  std::iota(positions.begin(), positions.end(), 0);
  return BestTime([&] {
    ValueOrExit(EssEngine(pool).Compute(op, {&head, 1}, positions, {&measure, 1}, {}, never));
  });
}

void PrintRow(const std::string& name, int64_t length, double peak) {
  const CancellationToken never;
  const linalg::SerialTorch serial;
  std::vector<double> matrix = testing::MakeTestOperator(name, length);
  for (double& entry : matrix) entry /= 16;  // The tree wants entries of at most 1.
  linalg::InertiaTree tree;
  linalg::BlockCounts result;
  const double tree_seconds = BestTime([&] {
    if (!tree.Load(matrix, length, never).ok()) std::exit(1);
    result = ValueOrExit(tree.CountAbove(kTolerance, 1, never));
  });
  const double more_seconds =
      BestTime([&] { result = ValueOrExit(tree.CountAbove(kTolerance, 1, never)); });
  const double engine_seconds = EngineSeconds(matrix, length);

  const std::vector<int64_t> positions = SvdPositions(length);
  const double share = static_cast<double>(length - 1) / static_cast<double>(positions.size());
  int64_t wrong = 0;
  double start = Seconds();
  for (const int64_t position : positions) {
    const std::vector<double> sigma =
        ValueOrExit(linalg::BlockSingularValues(matrix, length, position));
    wrong += result.counts[position] != std::count_if(sigma.begin(), sigma.end(), [](double s) {
               return s > kTolerance * (1 + 1e-11);
             });
  }
  const double svd_seconds = (Seconds() - start) * share;
  start = Seconds();
  int64_t gram_wrong = 0;
  for (const int64_t position : positions) {
    gram_wrong += CountByGram(matrix, length, position) != result.counts[position];
  }
  const double gram_seconds = (Seconds() - start) * share;

  const double rate = 0.54 * static_cast<double>(length * length * length) / tree_seconds / 1e9;
  std::printf(
      "%-15s %5ld %9.3f %9.3f %9.3f %6.1f %4.0f%% %9.3f%c %6.0fx %9.3f%c %6.0fx %4ld/%-4zu\n",
      name.c_str(), static_cast<long>(length), tree_seconds * 1e3, more_seconds * 1e3,
      engine_seconds * 1e3, rate, 100 * rate / peak, svd_seconds, share > 1 ? '*' : ' ',
      svd_seconds / engine_seconds, gram_seconds, share > 1 ? '*' : ' ',
      gram_seconds / engine_seconds, static_cast<long>(wrong), positions.size());
  if (gram_wrong > 0)
    std::printf("    Gram eigenvalues: %ld wrong counts\n", static_cast<long>(gram_wrong));
  std::fflush(stdout);
}

}  // namespace
}  // namespace ess

int main() {
  const double peak = ess::MeasureFmaPeak();
  std::printf("ESS at every position, tolerance %g, float64, one thread, instruction set %s\n",
              ess::kTolerance, hwy::TargetName(hwy::SupportedAndGeneratedTargets().front()));
  std::printf("FMA peak measured: %.1f GFLOP/s; the tree's operations are counted as 0.54 L^3\n",
              peak);
  std::printf(
      "stage: one head through the engine, its noise floor included; ratios are to the stage\n");
  std::printf("* extrapolated from %ld evenly spaced positions\n\n",
              static_cast<long>(ess::kSampledPositions));
  std::printf("%-15s %5s %9s %9s %9s %6s %5s %10s %7s %10s %7s %9s\n", "operator", "L", "tree ms",
              "next tau", "stage ms", "GF/s", "peak", "SVD s", "ratio", "Gram+eig s", "ratio",
              "wrong/of");
  for (const char* name : {"attention_g1", "attention_sink", "gla_64"}) {
    for (const int64_t length : {256, 512, 1024}) ess::PrintRow(name, length, peak);
  }
  return 0;
}
