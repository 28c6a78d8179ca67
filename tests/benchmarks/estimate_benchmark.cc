// What EstimateProfile says of an operator beside what then happens, one thread, by row: estimated
// over measured, for seconds and for peak bytes. Fits of the cost table
// (server/ess/ess_estimate.cc) start from the last two columns.
//
//   estimate_benchmark [ROW [LENGTH]]   one row of the table, by a part of its name
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "server/base/worker_pool.h"
#include "server/ess/ess_engine.h"
#include "server/ess/ess_estimate.h"
#include "server/operators/banded_operator.h"
#include "server/operators/convolution.h"
#include "server/operators/delta_recurrence.h"
#include "server/operators/dense_operator.h"
#include "server/operators/diagonal_plus_rank_one.h"
#include "server/operators/diagonal_recurrence.h"
#include "server/operators/general_recurrence.h"
#include "server/operators/selective_scan.h"
#include "tests/benchmarks/memory.h"
#include "tests/benchmarks/timing.h"
#include "tests/support/test_operators.h"

namespace ess::benchmarks {
namespace {

using Kind = Measure::Kind;
using operators::SequenceOperator;

// Begins again with each operator, so that a row is the same alone and in the table.
at::Generator& Numbers() {
  static at::Generator generator = at::detail::createCPUGenerator(5);
  return generator;
}

at::Tensor Normal(at::IntArrayRef shape) { return at::randn(shape, Numbers(), at::kDouble); }

// Gates of a memory of some tens of positions, as trained models have them.
at::Tensor Gates(at::IntArrayRef shape) { return at::sigmoid(Normal(shape)).pow(1.0 / 16); }

std::unique_ptr<SequenceOperator> Attention(int64_t length) {
  const std::vector<double> map = testing::MakeTestOperator("attention_g1", length);
  return std::make_unique<operators::DenseOperator>(
      at::tensor(map, at::kDouble).view({1, length, length}), operators::StateSize::Growing());
}

std::unique_ptr<SequenceOperator> Diagonal(int64_t length, int64_t gates, int64_t states) {
  return std::make_unique<operators::DiagonalRecurrence>(
      Gates({length, gates}), Normal({length, states}), Normal({length, states}));
}

std::unique_ptr<SequenceOperator> Scan(int64_t length) {
  constexpr int64_t kChannels = 64;
  return std::make_unique<operators::SelectiveScan>(
      at::softplus(Normal({kChannels, length}) - 4),
      -at::arange(1, 17, at::kDouble).expand({kChannels, 16}), Normal({length, 16}),
      Normal({length, 16}));
}

std::unique_ptr<SequenceOperator> DeltaNet(int64_t length) {
  const at::Tensor k = Normal({length, 64});
  return std::make_unique<operators::DeltaRecurrence>(
      Gates({length}), at::sigmoid(Normal({length})),
      k / at::linalg_vector_norm(k, 2, at::IntArrayRef{1}, true), Normal({length, 64}));
}

std::unique_ptr<SequenceOperator> RankOne(int64_t length) {
  const auto random = [&] { return Normal({length, 64}); };
  return std::make_unique<operators::DiagonalPlusRankOne>(Gates({length, 64}), random() / 64,
                                                          random() / 64, random(), random());
}

std::unique_ptr<SequenceOperator> General(int64_t length) {
  return std::make_unique<operators::GeneralRecurrence>(Normal({length, 32, 32}) / 8,
                                                        Normal({length, 32}), Normal({length, 32}));
}

std::unique_ptr<SequenceOperator> Filter(int64_t length) {
  const at::Tensor lag = at::arange(length, at::kDouble);
  return std::make_unique<operators::Convolution>(Normal({length}) * at::exp(-lag / 200));
}

std::unique_ptr<SequenceOperator> Window(int64_t length) {
  return std::make_unique<operators::BandedOperator>(at::softmax(Normal({length, 128}), 1));
}

struct Row {
  const char* name;
  std::function<std::unique_ptr<SequenceOperator>(int64_t length)> make;
};

const std::vector<Row> kRows = {
    {"attention", Attention},
    {"gla_64", [](int64_t length) { return Diagonal(length, 64, 64); }},
    {"gla_128", [](int64_t length) { return Diagonal(length, 128, 128); }},
    {"mamba2_128", [](int64_t length) { return Diagonal(length, 1, 128); }},
    {"s6_16", Scan},
    {"deltanet_64", DeltaNet},
    {"rank_one_64", RankOne},
    {"general_32", General},
    {"convolution", Filter},
    {"window_128", Window}};

struct Question {
  const char* name;
  std::vector<Measure> measures;
};

std::vector<Question> Questions() {
  std::vector<Measure> five;
  for (const double tau : {1e-1, 1e-2, 1e-3, 1e-4, 1e-5}) {
    five.push_back({.kind = Kind::kTolerance, .value = tau});
  }
  return {{"norm", {{.kind = Kind::kFrobeniusNorm}}},
          {"tolerance", {five[2]}},
          {"5 tolerances", five},
          {"head relative", {{.kind = Kind::kHeadRelative, .value = 1e-3}}},
          {"entropy", {{.kind = Kind::kEntropy}}},
          {"relative", {{.kind = Kind::kRelative, .value = 1e-3}}}};
}

void PrintRow(const Row& row, int64_t length) {
  Numbers().set_current_seed(5);
  const std::unique_ptr<SequenceOperator> op = row.make(length);
  std::vector<int64_t> heads(op->head_count());
  std::iota(heads.begin(), heads.end(), 0);
  std::vector<int64_t> positions(length);
  std::iota(positions.begin(), positions.end(), 0);
  WorkerPool pool(1);
  for (const Question& question : Questions()) {
    const EssEstimate estimate = EstimateEss(ShapeOf(*op), positions, question.measures, {});
    OperatorEss ess;
    // A new engine for each run: answers about filters are kept.
    const auto compute = [&] {
      ess = ValueOrExit(EssEngine(pool).Compute(*op, heads, positions, question.measures, {},
                                                CancellationToken()));
    };
    const double measured_bytes = PeakBytes(compute);
    const double measured = BestSeconds(compute, /*budget=*/0.1) / std::ssize(heads);
    const double estimated = estimate.flops / FloatSpeed();
    std::printf("%-12s %5ld %-13s %-22s %8.2f %8.2f %12.6f %12.3f %s\n", row.name,
                static_cast<long>(length), question.name, ess.routes[0].c_str(),
                estimated / measured, static_cast<double>(estimate.scratch_bytes) / measured_bytes,
                measured, measured_bytes / (1 << 20),
                estimate.routes[0].Name() == ess.routes[0] ? "" : "ROUTE DIFFERS");
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace ess::benchmarks

int main(int argc, char** argv) {
  using namespace ess::benchmarks;
  std::printf("one thread, per head; FloatSpeed %.1f GFLOP/s\n", ess::FloatSpeed() / 1e9);
  std::printf("%-12s %5s %-13s %-22s %8s %8s %12s %12s\n", "operator", "L", "measures", "route",
              "seconds", "bytes", "seconds", "peak MiB");
  for (const Row& row : kRows) {
    if (argc > 1 && std::string(row.name).find(argv[1]) == std::string::npos) continue;
    for (const int64_t length : {256, 512, 1024, 2048}) {
      if (argc > 2 && std::atoll(argv[2]) != length) continue;
      PrintRow(row, length);
    }
  }
  return 0;
}
