// A residency of models without weights, and what loads them.
#pragma once

#include <atomic>
#include <filesystem>
#include <fstream>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "server/residency/model_residency.h"
#include "tests/support/await_answer.h"

namespace ess::residency {

// A model without weights: the state machine never looks inside.
class NoModel : public models::SequenceModel {
 public:
  explicit NoModel(std::atomic<int>& alive) : alive_(alive) {
    ++alive_;
    description_.architecture = "none";
    description_.weight_bytes = 100;
  }
  ~NoModel() override { --alive_; }
  const models::ModelDescription& description() const override { return description_; }
  absl::Status Forward(models::PromptBatch, operators::OperatorSink&, const CancellationToken&,
                       std::vector<at::Tensor>*) const override {
    return absl::OkStatus();
  }
  absl::Status ForwardGaussian(const models::GaussianPrompts&, operators::OperatorSink&,
                               const CancellationToken&, std::vector<at::Tensor>*) const override {
    return absl::OkStatus();
  }

 private:
  std::atomic<int>& alive_;
  models::ModelDescription description_;
};

class ModelResidencyTest : public ::testing::Test {
 protected:
  ModelResidencyTest() {
    std::filesystem::remove_all(root_);
    std::filesystem::create_directories(root_ / "m");
    std::ofstream(root_ / "m" / "config.json") << "{}";
  }

  ModelResidency MakeResidency() { return MakeResidency(catalogue_); }
  ModelResidency MakeResidency(ModelCatalogue& catalogue) {
    return ModelResidency(
        catalogue, metrics_,
        {.source = {
             .device = "cpu",
             .device_memory_budget_bytes = device_budget_,
             .loader = [this](const std::filesystem::path&,
                              const models::LoadOptions& options) -> absl::StatusOr<ResidentModel> {
               ++loads_;
               last_options_ = options;
               if (load_throws_) throw std::bad_alloc();
               if (!load_result_.ok()) return load_result_;
               ResidentModel resident;
               resident.loaded.model = std::make_unique<NoModel>(alive_);
               return resident;
             },
             .measurer = [](const std::filesystem::path&,
                            const models::LoadOptions&) { return 100; }}});
  }

  static absl::StatusOr<int64_t> Unload(ModelResidency& residency, const std::string& name,
                                        const CancellationToken& cancellation) {
    const std::shared_ptr<const CancellationToken> borrowed(std::shared_ptr<void>(), &cancellation);
    return testing::AwaitAnswer<int64_t>(
        [&](auto done) { residency.WhenUnloaded(name, borrowed, std::move(done)); });
  }

  const std::filesystem::path root_ =
      std::filesystem::path(::testing::TempDir()) / "model_residency_test";
  ModelCatalogue catalogue_{root_, {}};
  telemetry::Metrics metrics_;
  std::atomic<int> loads_{0};
  std::atomic<int> alive_{0};
  models::LoadOptions last_options_;
  absl::Status load_result_;
  bool load_throws_ = false;
  int64_t device_budget_ = 0;
  CancellationToken never_;
};

}  // namespace ess::residency
