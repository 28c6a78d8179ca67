#include "tests/benchmarks/model_stage.h"

#include <ATen/Parallel.h>

#include <iostream>
#include <memory>
#include <span>
#include <vector>

#include "fmt/format.h"
#include "tests/benchmarks/demo_model.h"
#include "tests/benchmarks/engine_run.h"
#include "tests/benchmarks/svd_rival.h"
#include "tests/benchmarks/timing.h"

namespace ess::benchmarks {
namespace {

constexpr int64_t kTokens = 512;
constexpr int64_t kSampledLayers = 6;
constexpr double kSmallestRatio = 40;  // Promised at any thread count.

// One head in each of kSampledLayers layers evenly spaced from the first to the last, the heads
// in turn.
class HeadSample {
 public:
  explicit HeadSample(int64_t layer_count) : head_of_layer_(layer_count, -1) {
    for (int64_t k = 0; k < kSampledLayers; ++k) {
      head_of_layer_[k * (layer_count - 1) / (kSampledLayers - 1)] = k;
    }
  }

  // -1: none of this layer.
  int64_t HeadOf(int64_t layer, int64_t head_count) const {
    const int64_t head = head_of_layer_[layer];
    return head < 0 ? -1 : head % head_count;
  }

 private:
  std::vector<int64_t> head_of_layer_;
};

// What one number of threads took so far.
struct Contest {
  explicit Contest(int threads) : engine(threads), pool(threads) {}

  EngineRun engine;
  WorkerPool pool;
  double engine_seconds = 0;
  double svd_seconds = 0;  // Of the sampled heads.
  int64_t heads = 0;
  int64_t sampled_heads = 0;
  int64_t compared_counts = 0;
  int64_t wrong_counts = 0;
};

// Runs both contestants on each layer while the model hands it over.
class ContestSink final : public operators::OperatorSink {
 public:
  ContestSink(int64_t layer_count, std::span<const std::unique_ptr<Contest>> contests)
      : sample_(layer_count), contests_(contests) {}

  bool Wants(int64_t) const override { return true; }

  absl::Status Accept(const operators::OperatorKey& key,
                      const operators::SequenceOperator& op) override {
    const int64_t sampled =
        key.first_head == 0 ? sample_.HeadOf(key.mixer, op.head_count()) : int64_t{-1};
    for (const std::unique_ptr<Contest>& contest : contests_) {
      const double start = Now();
      const OperatorEss ess = contest->engine(op, op.head_count(), Tolerances({kTolerance}));
      contest->engine_seconds += Now() - start;
      contest->heads += op.head_count();
      if (sampled >= 0) RunSvd(op, sampled, ess, *contest);
    }
    return absl::OkStatus();
  }

 private:
  static void RunSvd(const operators::SequenceOperator& op, int64_t head, const OperatorEss& ess,
                     Contest& contest) {
    const int64_t length = op.length();
    const std::vector<double> matrix = DenseMatrix(op, head);
    SvdRival svd(matrix, length, EvenPositions(length, length - 1));
    svd.Run(contest.pool);
    contest.svd_seconds += svd.Seconds();
    ++contest.sampled_heads;
    contest.wrong_counts +=
        WrongCounts(svd, std::span(ess.values[0]).subspan(head * length, length), kTolerance);
    contest.compared_counts += static_cast<int64_t>(svd.positions().size());
  }

  const HeadSample sample_;
  const std::span<const std::unique_ptr<Contest>> contests_;
};

}  // namespace

void RunModelStage(const Settings& settings, Limits& limits) {
  if (settings.demo_model == nullptr) {
    limits.NotMeasured("ESS stage of the demo model", "no demo model");
    return;
  }
  std::vector<std::unique_ptr<Contest>> contests;
  for (const int threads : {1, 2}) contests.push_back(std::make_unique<Contest>(threads));
  ContestSink sink(settings.demo_model->mixer_count(), contests);
  // The forward pass is not timed here, and its threads must not keep busy beside those that are.
  const int threads_before = at::get_num_threads();
  at::set_num_threads(1);
  ExitUnlessOk(settings.demo_model->Forward(kTokens, sink));
  at::set_num_threads(threads_before);

  const Contest& first = *contests.front();
  std::cout << fmt::format(
      "ESS stage, {}, {} tokens of text, tolerance {}, every position of {} heads\n"
      "SVD at every position: timed on {} heads, one in each of {} layers, times {} / {}\n"
      "{:>7} {:>12} {:>14} {:>9} {:>16}\n",
      settings.demo_model->name(), kTokens, kTolerance, first.heads, first.sampled_heads,
      first.sampled_heads, first.heads, first.sampled_heads, "threads", "ESS stage s",
      "SVD s (extr.)", "ratio", "wrong counts");
  for (const std::unique_ptr<Contest>& contest : contests) {
    const double svd_of_all = contest->svd_seconds / static_cast<double>(contest->sampled_heads) *
                              static_cast<double>(contest->heads);
    const double ratio = svd_of_all / contest->engine_seconds;
    std::cout << fmt::format("{:>7} {:>12.2f} {:>14.1f} {:>8.0f}x {:>8} of {}\n",
                             contest->pool.threads(), contest->engine_seconds, svd_of_all, ratio,
                             contest->wrong_counts, contest->compared_counts);
    const std::string name = fmt::format("ESS stage of {} on {} thread(s)",
                                         settings.demo_model->name(), contest->pool.threads());
    limits.AtLeast(name + ", against SVD", kSmallestRatio, ratio, "x");
    limits.AtMost(name + ", wrong counts", 0, static_cast<double>(contest->wrong_counts), "");
  }
}

}  // namespace ess::benchmarks
