// The real model of the benchmarks: SmolLM2-135M, where tools/make_demo_model leaves it, on prose
// of this repository.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/models/model_loader.h"
#include "server/operators/operator_sink.h"
#include "tests/benchmarks/operator_cases.h"

namespace ess::benchmarks {

class DemoModel {
 public:
  // Errors: kNotFound  the model is not there; others as models::LoadModelFolder.
  static absl::StatusOr<DemoModel> Load();

  std::string name() const { return folder_.filename(); }
  int64_t mixer_count() const;

  // Runs the first `length` tokens of the text through the model, and gives its operators to
  // `sink`.
  absl::Status Forward(int64_t length, operators::OperatorSink& sink) const;

  // Attention maps of three heads: of the first, the middle and the last layer.
  absl::StatusOr<OperatorCase> Heads(int64_t length) const;

 private:
  DemoModel(std::filesystem::path folder, models::LoadedModel loaded, std::vector<int64_t> tokens);

  std::filesystem::path folder_;
  models::LoadedModel loaded_;
  std::vector<int64_t> tokens_;
};

}  // namespace ess::benchmarks
