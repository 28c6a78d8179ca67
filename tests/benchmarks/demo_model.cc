#include "tests/benchmarks/demo_model.h"

#include <ATen/ATen.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <utility>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/sequence_model.h"
#include "server/operators/dense_operator.h"
#include "server/tokenization/tokenizer.h"

namespace ess::benchmarks {
namespace {

constexpr int64_t kSampledHeads = 3;

std::filesystem::path ModelFolder() {
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

// The demo's story, and what else is long enough for thousands of tokens.
std::string Text() {
  std::string text;
  for (const char* name : {"tools/demo_text/long.txt", "LICENSE", "README.md"}) {
    std::ifstream file(std::filesystem::path(ESS_SOURCE_FOLDER) / name);
    text.append(std::istreambuf_iterator<char>(file), {});
  }
  return text;
}

// Keeps a copy of one head in each of a few layers.
class HeadSink final : public operators::OperatorSink {
 public:
  explicit HeadSink(int64_t mixer_count) : head_of_mixer_(mixer_count, -1) {
    for (int64_t k = 0; k < kSampledHeads; ++k) {
      head_of_mixer_[k * (mixer_count - 1) / (kSampledHeads - 1)] = k;
    }
  }

  bool Wants(int64_t mixer) const override { return head_of_mixer_[mixer] >= 0; }

  absl::Status Accept(const operators::OperatorKey& key,
                      const operators::SequenceOperator& op) override {
    const int64_t head = head_of_mixer_[key.mixer] - key.first_head;
    if (head >= 0 && head < op.head_count())
      maps_.push_back(op.dense_maps()->select(0, head).clone());
    return absl::OkStatus();
  }

  at::Tensor Maps() const { return at::stack(maps_); }

 private:
  std::vector<int64_t> head_of_mixer_;  // -1: none.
  std::vector<at::Tensor> maps_;
};

}  // namespace

DemoModel::DemoModel(std::filesystem::path folder, models::LoadedModel loaded,
                     std::vector<int64_t> tokens)
    : folder_(std::move(folder)), loaded_(std::move(loaded)), tokens_(std::move(tokens)) {}

absl::StatusOr<DemoModel> DemoModel::Load() {
  const std::filesystem::path folder = ModelFolder();
  if (!std::filesystem::exists(folder / "config.json")) {
    return absl::NotFoundError("no demo model (tools/make_demo_model)");
  }
  ESS_ASSIGN_OR_RETURN(models::LoadedModel loaded, models::LoadModelFolder(folder, {}));
  if (loaded.tokenizer == nullptr) return absl::NotFoundError("the model has no tokenizer.json");
  ESS_ASSIGN_OR_RETURN(std::vector<int64_t> tokens, loaded.tokenizer->Encode(Text(), true));
  return DemoModel(folder, std::move(loaded), std::move(tokens));
}

int64_t DemoModel::mixer_count() const {
  return static_cast<int64_t>(loaded_.model->description().mixers.size());
}

absl::Status DemoModel::Forward(int64_t length, operators::OperatorSink& sink) const {
  if (length > static_cast<int64_t>(tokens_.size())) {
    return absl::InvalidArgumentError(
        fmt::format("the text has {} tokens; {} are asked for", tokens_.size(), length));
  }
  const std::vector<int64_t> prompt(tokens_.begin(), tokens_.begin() + length);
  return loaded_.model->Forward({&prompt, 1}, sink, CancellationToken(), nullptr);
}

absl::StatusOr<OperatorCase> DemoModel::Heads(int64_t length) const {
  HeadSink sink(mixer_count());
  ESS_RETURN_IF_ERROR(Forward(length, sink));
  return OperatorCase{.op = std::make_unique<operators::DenseOperator>(
                          sink.Maps(), operators::StateSize::Growing()),
                      .one_thread_heads = kSampledHeads,
                      .two_thread_heads = kSampledHeads,
                      .compared_heads = kSampledHeads};
}

}  // namespace ess::benchmarks
