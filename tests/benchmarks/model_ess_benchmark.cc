// The ESS stage of a real model: every position of every head of SmolLM2 over a text of 512 tokens,
// by the engine as the server runs it, against SVD at every position on the same threads.
//
//   model_ess_benchmark [MODEL_FOLDER]
//
// Both take turns within one run, so the ratio means something on any machine. SVD runs on a few
// heads spread over the layers and is extrapolated to all; their counts are compared one by one.
#include <ATen/Parallel.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "server/base/cancellation.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/base/worker_pool.h"
#include "server/ess/ess_engine.h"
#include "server/ess/reference_ess.h"
#include "server/linalg/reference_linalg.h"
#include "server/models/model_loader.h"
#include "server/models/sequence_model.h"
#include "server/operators/operator_sink.h"
#include "server/operators/sequence_operator.h"
#include "server/tokenization/tokenizer.h"

namespace ess {
namespace {

constexpr double kTolerance = 1e-3;
constexpr int64_t kTokens = 512;
constexpr int64_t kSampledLayers = 6;
constexpr double kSmallestRatio = 40;  // Promised at any thread count.

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

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
  explicit Contest(int threads) : pool(threads) {}

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
      ESS_ASSIGN_OR_RETURN(const std::vector<float> counts, RunEngine(op, *contest));
      if (sampled < 0) continue;
      const std::span<const float> head_counts =
          std::span(counts).subspan(sampled * op.length(), op.length());
      ESS_RETURN_IF_ERROR(RunSvd(op, sampled, head_counts, *contest));
    }
    return absl::OkStatus();
  }

 private:
  // The counts, [H, L].
  static absl::StatusOr<std::vector<float>> RunEngine(const operators::SequenceOperator& op,
                                                      Contest& contest) {
    std::vector<int64_t> heads(op.head_count());
    std::iota(heads.begin(), heads.end(), 0);
    std::vector<int64_t> positions(op.length());
    std::iota(positions.begin(), positions.end(), 0);
    const Measure measure{.kind = Measure::Kind::kTolerance, .value = kTolerance};
    const CancellationToken never;
    const double start = Seconds();
    ESS_ASSIGN_OR_RETURN(
        OperatorEss ess,
        EssEngine(contest.pool).Compute(op, heads, positions, {&measure, 1}, {}, never));
    contest.engine_seconds += Seconds() - start;
    contest.heads += op.head_count();
    return std::move(ess.values[0]);
  }

  // The threads share out the positions of one head, so that none of them waits.
  static absl::Status RunSvd(const operators::SequenceOperator& op, int64_t head,
                             std::span<const float> engine_counts, Contest& contest) {
    const int64_t length = op.length();
    std::vector<double> matrix(length * length);
    op.DenseHead(head, matrix);
    std::vector<int64_t> counts(length);
    std::vector<absl::Status> statuses(length);
    const double start = Seconds();
    const auto count = [&](int64_t position, int) {
      const auto sigma = linalg::BlockSingularValues(matrix, length, position);
      statuses[position] = sigma.status();
      if (sigma.ok()) counts[position] = CountAbove(*sigma, kTolerance);
    };
    ESS_RETURN_IF_ERROR(contest.pool.ParallelFor(length, count, CancellationToken()));
    contest.svd_seconds += Seconds() - start;
    ++contest.sampled_heads;
    for (int64_t position = 0; position < length; ++position) {
      ESS_RETURN_IF_ERROR(statuses[position]);
      contest.wrong_counts += static_cast<float>(counts[position]) != engine_counts[position];
      ++contest.compared_counts;
    }
    return absl::OkStatus();
  }

  const HeadSample sample_;
  const std::span<const std::unique_ptr<Contest>> contests_;
};

// Where tools/make_demo_model leaves the demo model.
std::filesystem::path DemoModelFolder() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::filesystem::path(value != nullptr ? value : "");
  };
  std::filesystem::path cache = variable("ESS_CACHE_DIR");
  if (cache.empty() && !variable("XDG_CACHE_HOME").empty()) {
    cache = variable("XDG_CACHE_HOME") / "ess-profiler";
  }
  if (cache.empty()) cache = variable("HOME") / ".cache" / "ess-profiler";
  return cache / "models" / "smollm2-135m";
}

absl::StatusOr<std::vector<int64_t>> DemoTokens(const tokenization::Tokenizer& tokenizer) {
  std::ifstream file(ESS_DEMO_TEXT);
  const std::string text(std::istreambuf_iterator<char>(file), {});
  ESS_ASSIGN_OR_RETURN(std::vector<int64_t> ids, tokenizer.Encode(text, true));
  if (static_cast<int64_t>(ids.size()) < kTokens) {
    return absl::InvalidArgumentError(
        fmt::format("the demo text has {} tokens; the benchmark needs {}", ids.size(), kTokens));
  }
  ids.resize(kTokens);
  return ids;
}

// Whether nothing was miscounted and the ratio is reached.
bool PrintContest(const Contest& contest) {
  const double svd_of_all = contest.svd_seconds / static_cast<double>(contest.sampled_heads) *
                            static_cast<double>(contest.heads);
  const double ratio = svd_of_all / contest.engine_seconds;
  const bool passed = contest.wrong_counts == 0 && ratio >= kSmallestRatio;
  std::printf("%7d %12.2f %14.1f %8.0fx %12ld of %-6ld %s\n", contest.pool.threads(),
              contest.engine_seconds, svd_of_all, ratio, static_cast<long>(contest.wrong_counts),
              static_cast<long>(contest.compared_counts), passed ? "ok" : "OVER THE LIMIT");
  return passed;
}

absl::StatusOr<bool> Run(const std::filesystem::path& folder) {
  ESS_ASSIGN_OR_RETURN(const models::LoadedModel loaded, models::LoadModelFolder(folder, {}));
  if (loaded.tokenizer == nullptr) return absl::NotFoundError("the model has no tokenizer.json");
  ESS_ASSIGN_OR_RETURN(const std::vector<int64_t> ids, DemoTokens(*loaded.tokenizer));
  const int64_t layer_count = static_cast<int64_t>(loaded.model->description().mixers.size());

  std::vector<std::unique_ptr<Contest>> contests;
  for (const int threads : {1, 2}) contests.push_back(std::make_unique<Contest>(threads));
  ContestSink sink(layer_count, contests);
  ESS_RETURN_IF_ERROR(loaded.model->Forward({&ids, 1}, sink, CancellationToken(), nullptr));

  const Contest& first = *contests.front();
  std::printf("ESS stage, %s, %ld tokens of text, tolerance:%g, every position of %ld heads\n",
              folder.filename().c_str(), static_cast<long>(kTokens), kTolerance,
              static_cast<long>(first.heads));
  std::printf(
      "SVD at every position: timed on %ld heads, one in each of %ld layers, times %ld / %ld\n",
      static_cast<long>(first.sampled_heads), static_cast<long>(first.sampled_heads),
      static_cast<long>(first.heads), static_cast<long>(first.sampled_heads));
  std::printf("limits: ratio at least %gx, no wrong count in the sampled heads\n\n",
              kSmallestRatio);
  std::printf("%7s %12s %14s %9s %22s\n", "threads", "ESS stage s", "SVD s (extr.)", "ratio",
              "wrong counts");
  bool passed = true;
  for (const std::unique_ptr<Contest>& contest : contests) passed &= PrintContest(*contest);
  return passed;
}

}  // namespace
}  // namespace ess

int main(int argc, char** argv) {
  // The forward pass is not timed here, and its threads must not keep busy beside those that are.
  at::set_num_threads(1);
  const absl::StatusOr<bool> passed =
      ess::Run(argc > 1 ? std::filesystem::path(argv[1]) : ess::DemoModelFolder());
  if (!passed.ok()) {
    std::fprintf(stderr, "%s\n", passed.status().ToString().c_str());
    return 1;
  }
  return *passed ? 0 : 1;
}
