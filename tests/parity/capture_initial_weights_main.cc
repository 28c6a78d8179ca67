// Writes the weights that a model without a checkpoint starts with.
//
//   capture_initial_weights MODEL_FOLDER SEED OUT
//
// MODEL_FOLDER has a config.json. OUT is safetensors, float32, by the names of the checkpoint
// without the base prefix.
#include <ATen/ATen.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>

#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "server/base/json_file.h"
#include "server/base/status_macros.h"
#include "server/models/architectures.h"
#include "server/models/random_weights.h"
#include "tests/support/safetensors_writer.h"

namespace ess::testing {
namespace {

// Keeps a copy of what the model takes.
class RecordingWeights final : public models::TensorSource {
 public:
  explicit RecordingWeights(models::RandomWeights weights) : weights_(std::move(weights)) {}

  bool Has(std::string_view name) const override { return weights_.Has(name); }

  absl::StatusOr<at::Tensor> Take(std::string_view name, at::IntArrayRef shape) override {
    ESS_ASSIGN_OR_RETURN(at::Tensor weight, weights_.Take(name, shape));
    taken_[std::string(name)] = {
        .shape = shape.vec(),
        .bytes = {static_cast<const char*>(weight.const_data_ptr()), weight.nbytes()}};
    return weight;
  }

  models::TensorTotals Totals() const override { return weights_.Totals(); }

  const std::map<std::string, TensorToWrite>& taken() const { return taken_; }

 private:
  models::RandomWeights weights_;
  std::map<std::string, TensorToWrite> taken_;
};

absl::Status Run(int argc, char** argv) {
  if (argc != 4) {
    return absl::InvalidArgumentError("usage: capture_initial_weights MODEL_FOLDER SEED OUT");
  }
  ESS_ASSIGN_OR_RETURN(const nlohmann::json json,
                       ReadJsonFile(std::filesystem::path(argv[1]) / "config.json", "config.json"));
  const models::ConfigReader config(json);
  ESS_ASSIGN_OR_RETURN(const std::string model_type, config.String("model_type", std::nullopt));
  const models::Architecture* const architecture = models::FindArchitecture(model_type);
  if (architecture == nullptr) return absl::NotFoundError(model_type);
  ESS_ASSIGN_OR_RETURN(models::InitialWeights initial, architecture->initial_weights(config));
  RecordingWeights weights(models::RandomWeights(
      std::move(initial), std::strtoull(argv[2], nullptr, 10), /*device=*/"cpu"));
  ESS_RETURN_IF_ERROR(architecture->create(config, weights, "cpu").status());
  WriteSafetensors(argv[3], weights.taken());
  return absl::OkStatus();
}

}  // namespace
}  // namespace ess::testing

int main(int argc, char** argv) {
  const absl::Status status = ess::testing::Run(argc, argv);
  if (status.ok()) return 0;
  fmt::print(stderr, "capture_initial_weights: {}\n", status.ToString());
  return 1;
}
